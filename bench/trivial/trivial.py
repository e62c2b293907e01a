"""Tasks that do nothing, to measure what a task costs besides its own work."""
from flytekit import task, workflow


@task
def add1(x: int) -> int:
    return x + 1


@workflow
def one(x: int = 1) -> int:
    return add1(x=x)


@workflow
def fan() -> None:
    for i in range(200):
        add1(x=i)
