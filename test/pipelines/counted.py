"""Tasks that leave a mark in a file each time they begin: how often something ran is there to count."""

import os
import time

from flytekit import current_context, task, workflow


def mark(folder: str) -> None:
    context = current_context()
    line = f"{context.execution_id.name} {os.environ['FLYTE_INTERNAL_TASK_NAME']} {os.environ['FLYTE_ATTEMPT_NUMBER']} {os.getpid()}\n"
    with open(os.path.join(folder, "marks"), "a") as file:
        file.write(line)


@task
def first(x: int, folder: str, seconds: float) -> int:
    mark(folder)
    time.sleep(seconds)
    return x + 1


@task
def second(x: int, folder: str, seconds: float) -> int:
    mark(folder)
    time.sleep(seconds)
    return 10 * x


@workflow
def counted(x: int, folder: str, seconds: float) -> int:
    return second(x=first(x=x, folder=folder, seconds=seconds), folder=folder, seconds=seconds)
