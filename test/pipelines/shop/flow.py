from flytekit import LaunchPlan, task, workflow

from shop.prices import price


@task
def with_tax(net: float, rate: float) -> float:
    return round(net * (1 + rate), 2)


@workflow
def checkout(article: str, rate: float = 0.2) -> float:
    return with_tax(net=price(article=article), rate=rate)


cheap = LaunchPlan.get_or_create(checkout, name="shop.flow.cheap", default_inputs={"rate": 0.1}, fixed_inputs={"article": "pen"})
