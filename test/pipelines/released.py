"""What is recorded of each release (test/record.py): runs in which everything happens that can happen to one.

Nothing in here may need anything of the machine that it was recorded on: recorded runs go on elsewhere. Tasks that outlast the
server wait in their first attempt alone.
"""

import os
import time

from flytekit import Deck, HashMethod, Resources, WorkflowFailurePolicy, conditional, current_context, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.file import FlyteFile
from typing_extensions import Annotated



def attempt() -> int:
    """From 0."""
    return int(os.environ["FLYTE_ATTEMPT_NUMBER"])


def execution() -> str:
    return os.environ["FLYTE_INTERNAL_EXECUTION_ID"]


@task
def plus_one(x: int) -> int:
    return x + 1


@task(enable_deck=True)
def decked(x: int) -> int:
    Deck("numbers", f"<b>{x}</b>")
    return x


@task
def filed(x: int) -> FlyteFile:
    with open("x.txt", "w") as file:
        file.write(str(x))
    return FlyteFile("x.txt")


@task
def read(file: FlyteFile) -> int:
    return int(open(file).read())


@task(retries=1)
def read_second(file: FlyteFile) -> int:
    """Its policy has it wait for some seconds before its second attempt."""
    if attempt() == 0:
        raise FlyteRecoverableException("the first time")
    return int(open(file).read())


@task
def long_text() -> str:
    """Above what a row holds."""
    return "ab" * 40_000


@task(cache=True, cache_version="1")
def doubled(x: int) -> int:
    return 2 * x


@task
def tens(x: int) -> Annotated[int, HashMethod(lambda n: str(n // 10))]:
    return x


@task(cache=True, cache_version="2", cache_ignore_input_vars=("why",))
def rounded(x: int, why: str) -> int:
    return x // 10 * 10


@task(cache=True, cache_version="1", cache_serialize=True)
def tripled(x: int) -> int:
    """Holds its reservation until its first attempt has been lost."""
    if attempt() == 0:
        time.sleep(3600)
    return 3 * x


@task(cache=True, cache_version="1", cache_serialize=True)
def tripled_later(x: int, folder: str) -> int:
    until_told(folder)
    return 3 * x


@task
def lasting(x: int, attempts: int) -> int:
    """Does not end in so many attempts."""
    if attempt() < attempts:
        time.sleep(3600)
    return x


def until_told(folder: str) -> None:
    open(os.path.join(folder, "runs"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)


@task
def told(x: int, folder: str) -> int:
    until_told(folder)
    return x


@task(retries=4)
def fourth_time() -> int:
    if attempt() < 3:
        raise FlyteRecoverableException(f"attempt {attempt()} is not enough")
    return attempt()


@task(retries=1)
def never() -> int:
    if attempt() < 100:
        raise FlyteRecoverableException("not in any attempt")
    return 0


@task(retries=2)
def patient(x: int) -> int:
    """Its policy has it wait for some minutes before its second attempt."""
    if attempt() == 0:
        raise FlyteRecoverableException("the first time")
    return x


@task(retries=1, timeout=1)
def late() -> int:
    if attempt() == 0:
        time.sleep(3600)
    return attempt()


@task(retries=1, limits=Resources(mem="300Mi"))
def hungry() -> int:
    return len(bytearray(400 << 20)) >> 20


@task(interruptible=True, retries=1)
def broken(x: int, cause: str) -> int:
    """Fails in executions that are called after failures: their recoveries have other names."""
    if execution().startswith("broken") or cause == "hopeless":
        raise ValueError(cause)
    return x


@task
def saving() -> int:
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    if not saved:
        checkpoint.write(b"7")
        raise ValueError("saved, and not there yet")
    return int(saved)


@task(environment={"LD_HINT": "only a fresh interpreter honours such variables"})
def cold(x: int) -> int:
    return x


@task
def tidy(x: int) -> None:
    print("tidied")


@workflow
def chain(x: int = 1) -> int:
    return plus_one(x=plus_one(x=decked(x=x)))


@workflow
def files(x: int = 1) -> tuple[int, str]:
    return read(file=filed(x=x)), long_text()


@workflow
def read_later(x: int = 1) -> int:
    return read_second(file=filed(x=x))


@workflow
def cached(x: int = 1) -> int:
    return doubled(x=doubled(x=x))


@workflow
def by_hash(x: int = 42, why: str = "to see") -> int:
    return rounded(x=tens(x=x), why=why)


@workflow
def reserved(x: int = 1) -> int:
    return tripled(x=x)


@workflow
def reserved_later(folder: str, x: int = 2) -> int:
    return tripled_later(x=x, folder=folder)


@workflow
def lasts(x: int = 1, attempts: int = 1) -> int:
    return plus_one(x=lasting(x=x, attempts=attempts))


@workflow
def told_to(folder: str, x: int = 1) -> int:
    return plus_one(x=told(x=x, folder=folder))


@workflow
def retried() -> int:
    return fourth_time()


@workflow
def exhausted() -> int:
    return never()


@workflow
def waits(x: int = 1) -> int:
    return patient(x=x)


@workflow
def timed() -> int:
    return late()


@workflow
def starved() -> int:
    return hungry()


@workflow
def inner(x: int, cause: str) -> int:
    return plus_one(x=broken(x=plus_one(x=doubled(x=x)), cause=cause))


@workflow
def inner_chain(x: int) -> int:
    return plus_one(x=decked(x=x))


@workflow
def nested(x: int = 5, cause: str = "the disk is gone") -> tuple[int, int]:
    return inner_chain(x=x), inner(x=x, cause=cause)


@workflow
def saved() -> int:
    return saving()


@workflow(on_failure=tidy)
def tidied(x: int = 3) -> int:
    return broken(x=x, cause="untidy")


@workflow(failure_policy=WorkflowFailurePolicy.FAIL_AFTER_EXECUTABLE_NODES_COMPLETE)
def after_all(x: int = 3) -> tuple[int, int]:
    return plus_one(x=broken(x=x, cause="the left one")), decked(x=cold(x=x))


@workflow
def together(x: int = 3) -> tuple[int, int]:
    """What runs when another node fails is stopped."""
    return broken(x=x, cause="at once"), lasting(x=x, attempts=100)


@workflow
def wide() -> list[int]:
    return [plus_one(x=i) for i in range(12)]


@workflow
def chosen(x: int = 1, cause: str = "none") -> int:
    """One branch has an arm that waits for what its conditions do not need, an arm of the other is a branch with a sub-workflow."""
    slow = plus_one(x=doubled(x=x))
    first = conditional("waits").if_(x > 100).then(plus_one(x=x)).else_().then(plus_one(x=slow))
    return (
        conditional("outer")
        .if_((first < 0) | (first == 1))
        .then(plus_one(x=x))
        .elif_((first > 1000) & (first != 2000))
        .then(plus_one(x=0))
        .else_()
        .then(conditional("within").if_(first > 2).then(inner(x=first, cause=cause)).else_().fail("too small"))
    )


@workflow(failure_policy=WorkflowFailurePolicy.FAIL_AFTER_EXECUTABLE_NODES_COMPLETE)
def chosen_after_all(x: int = 1) -> int:
    """The arm that is taken waits for what fails."""
    failed = broken(x=x, cause="hopeless")
    return conditional("skipped").if_(x == 1).then(plus_one(x=failed)).else_().then(plus_one(x=x))
