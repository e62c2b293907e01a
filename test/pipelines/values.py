"""Values, files and names that went wrong once: each task gives back what it saw."""

import datetime as dt
import multiprocessing
import os
import tempfile
import typing
from dataclasses import dataclass, field

import fsspec
from flytekit import eager, task, workflow
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile


@dataclass
class Packed:
    moment: dt.datetime = dt.datetime(2024, 2, 29, 1, 2, 3, 4)
    day: dt.date = dt.date(2024, 2, 29)
    lasts: dt.timedelta = dt.timedelta(days=1, seconds=2)
    several: list[dt.datetime] = field(default_factory=lambda: [dt.datetime(2024, 1, 1)])
    perhaps: dt.timedelta | None = dt.timedelta(hours=3)
    number: int = 7
    text: str = "t"


@task
def pack() -> Packed:
    return Packed()


@task
def moment(x: dt.datetime) -> str:
    return repr(x)


@task
def day(x: dt.date) -> str:
    return repr(x)


@task
def lasts(x: dt.timedelta) -> str:
    return repr(x)


@task
def perhaps(x: typing.Optional[dt.timedelta]) -> str:
    return repr(x)


@task
def plain(x: int, y: str) -> str:
    return repr((x, y))


@workflow
def attributes() -> tuple[str, str, str, str, str, str, dt.datetime]:
    p = pack()
    return (
        moment(x=p.moment), day(x=p.day), lasts(x=p.lasts), moment(x=p.several[0]), perhaps(x=p.perhaps), plain(x=p.number, y=p.text), p.moment,
    )


@task
def files(f: FlyteFile, d: FlyteDirectory, s: str) -> str:
    seen = sorted(os.path.relpath(os.path.join(at, name), d.path) for at, _, names in os.walk(d.download()) for name in names)
    with open(f) as one, fsspec.open(s) as two:
        return repr((one.read(), seen, two.read()))


@workflow
def uploaded(f: FlyteFile, d: FlyteDirectory, s: str) -> str:
    return files(f=f, d=d, s=s)


@task
def quoted() -> FlyteFile:
    with open("a%20b.txt", "w") as f:
        f.write("found")
    return FlyteFile("a%20b.txt")


@task
def passing() -> FlyteFile:
    with open("passing.txt", "w") as f:
        f.write("x")
    return FlyteFile(os.path.abspath("passing.txt"), remote_path=False)


@task
def content(f: FlyteFile) -> str:
    with open(f) as opened:
        return opened.read()


@workflow
def unescaped() -> str:
    return content(f=quoted())


@workflow
def goes() -> str:
    return content(f=passing())


@task
def sockets() -> str:
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        shared["tmp"] = len(tempfile.gettempdir())
        return repr(dict(shared).keys())


@task
def one_more(x: int) -> int:
    return x + 1


@eager
async def driven(x: int) -> int:
    return one_more(x=one_more(x=x))


@task
def lacks(kind: str) -> str:
    if kind == "module":
        import not_installed_anywhere  # noqa: F401
    with open("data/not_shipped.csv") as f:
        return f.read()
