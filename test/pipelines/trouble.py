"""A task that takes all the room there is."""

import os
from datetime import timedelta

from flytekit import task, workflow


@task
def take_all() -> int:
    with open(os.path.join(os.environ["TMPDIR"], "all"), "wb") as file:
        while True:
            file.write(bytes(1 << 20))
    return 0


@workflow
def full() -> int:
    return take_all()


@task
def one() -> int:
    return 1


@workflow
def ones() -> int:
    return one()


@task
def through(token: str, folder: str) -> str:
    """Says that it runs, and goes on when it may."""
    import time

    open(os.path.join(folder, "runs"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return token


@workflow
def passing(token: str, folder: str) -> str:
    return through(token=token, folder=folder)


@task(timeout=timedelta(seconds=10))
def late(folder: str):
    """Says that it runs, and fails by itself when it may."""
    import time

    open(os.path.join(folder, "runs"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    raise ValueError("it is its own failure")


@workflow
def fails_late(folder: str):
    late(folder=folder)
