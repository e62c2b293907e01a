"""What Flyte can and this release cannot."""

from datetime import timedelta

from flytekit import LaunchPlan, dynamic, map_task, sleep, task, workflow


@task
def more(x: int) -> int:
    return x + 1


@workflow
def inner(x: int) -> int:
    return more(x=x)


@workflow
def mapped() -> list[int]:
    return map_task(more)(x=[1, 2])


@workflow
def gated() -> int:
    nap, result = sleep(timedelta(seconds=1)), more(x=1)
    nap >> result
    return result


@workflow
def launched() -> int:
    return LaunchPlan.get_or_create(inner, name="later.inner")(x=1)


@dynamic
def growing(n: int) -> int:
    x = more(x=0)
    for _ in range(n):
        x = more(x=x)
    return x


@workflow
def grown() -> int:
    return growing(n=2)
