"""A task that takes all the room there is."""

import os

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
