"""A package with code in several modules."""

from flytekit import task


@task
def price(article: str) -> float:
    return float(len(article))
