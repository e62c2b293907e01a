"""Code that is found in its environment, as if it were installed there: nothing is shipped with it."""

import pathlib

from flytekit import task, workflow


@task(environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)})
def triple(x: int) -> int:
    return 3 * x


@workflow
def ninefold(x: int) -> int:
    return triple(x=triple(x=x))
