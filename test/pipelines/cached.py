"""Tasks whose results are used again. Each prints to a file how often it really ran."""

import os
import time
import typing

from flytekit import HashMethod, task, workflow
from flytekit.types.file import FlyteFile
from typing_extensions import Annotated


def note(log: str, what: str) -> None:
    with open(log, "a") as f:
        f.write(what + "\n")


@task(cache=True, cache_version="1")
def double(x: int, log: str) -> int:
    note(log, f"double {x}")
    return 2 * x


@task(cache=True, cache_version="1")
def remember(x: int, log: str):
    note(log, f"remember {x}")


@task(cache=True, cache_version="1", cache_serialize=True)
def slow(x: int, log: str) -> int:
    note(log, f"slow {x}")
    until = time.monotonic() + 60
    while not os.path.exists(log + ".go"):
        assert time.monotonic() < until
        time.sleep(0.02)
    return 3 * x


@task(cache=True, cache_version="1", cache_ignore_input_vars=("why",))
def ignoring(x: int, why: str, log: str) -> int:
    note(log, f"ignoring {x} {why}")
    return x


@task
def salted(x: int, salt: str) -> Annotated[str, HashMethod(lambda s: s.split("-")[0])]:
    return f"{x}-{salt}"


@task(cache=True, cache_version="1")
def hashed(s: str, log: str) -> str:
    note(log, "hashed")
    return s


@task(cache=True, cache_version="1")
def write(text: str, log: str) -> FlyteFile:
    note(log, f"write {text}")
    path = "out.txt"
    with open(path, "w") as f:
        f.write(text)
    return FlyteFile(path)


@workflow
def one(x: int, log: str) -> int:
    remember(x=x, log=log)
    return double(x=x, log=log)


@workflow
def other(y: int, log: str) -> typing.Tuple[int, int]:
    return double(x=y, log=log), double(x=y, log=log).with_overrides(cache=True, cache_version="2")


@workflow
def waiting(x: int, log: str) -> int:
    return slow(x=x, log=log)


@workflow
def ignored(x: int, why: str, log: str) -> int:
    return ignoring(x=x, why=why, log=log)


@workflow
def by_hash(x: int, salt: str, log: str) -> str:
    return hashed(s=salted(x=x, salt=salt), log=log)


@workflow
def filed(text: str, log: str) -> FlyteFile:
    return write(text=text, log=log)
