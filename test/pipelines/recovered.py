"""Tasks that fail until the test fixes their cause, and leave a mark each time they begin."""

import os
import pathlib

from flytekit import conditional, current_context, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException


def mark(folder: str, number: int) -> None:
    with open(os.path.join(folder, "marks"), "a") as file:
        file.write(f"{number} {os.environ['FLYTE_INTERNAL_TASK_NAME'].rpartition('.')[2]}\n")


def fixed(folder: str, cause: str) -> bool:
    return pathlib.Path(folder, f"fixed-{cause}").exists()


@task
def first(number: int, folder: str) -> int:
    mark(folder, number)
    return number + 1


@task(retries=1)
def fragile(number: int, x: int, folder: str, cause: str) -> int:
    mark(folder, number)
    if not fixed(folder, cause):
        raise FlyteRecoverableException(f"row {number} of {folder}: {cause} is broken")
    return 10 * x


@task
def brittle(number: int, x: int, folder: str, cause: str) -> int:
    mark(folder, number)
    if not fixed(folder, cause):
        raise ValueError(f"row {number} of {folder}: {cause} is broken")
    return 10 * x


@workflow
def inner(number: int, folder: str, cause: str) -> int:
    return fragile(number=number, x=first(number=number, folder=folder), folder=folder, cause=cause)


@workflow
def nested(number: int, folder: str, cause: str) -> (int, int):
    whole = inner(number=101, folder=folder, cause="none")
    return whole, inner(number=number, folder=folder, cause=cause)


@workflow
def flat(number: int, folder: str, cause: str) -> int:
    return brittle(number=number, x=first(number=number, folder=folder), folder=folder, cause=cause)


@task
def counting(folder: str) -> int:
    """Gets one step further in each run, from where the last one was."""
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    n = int(saved) if saved else 0
    mark(folder, n)
    if n < 2:
        checkpoint.write(str(n + 1).encode())
        raise ValueError("not there yet")
    return n


@workflow
def saving(folder: str) -> int:
    return counting(folder=folder)


@workflow
def branched(number: int, folder: str, cause: str) -> (int, int):
    """The first branch has succeeded when the arm of the second fails, which is a sub-workflow."""
    x = first(number=number, folder=folder)
    whole = conditional("whole").if_(x > 0).then(first(number=7, folder=folder)).else_().then(first(number=8, folder=folder))
    return whole, conditional("part").if_(x < 0).then(first(number=9, folder=folder)).else_().then(inner(number=number, folder=folder, cause=cause))
