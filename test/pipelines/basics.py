"""Small workflows with every kind of value that tasks exchange."""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Optional

import pandas as pd
from flytekit import Deck, Resources, current_context, task, workflow
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile
from meeting import meet


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Inner:
    names: list[str] = field(default_factory=list)
    weight: float = 0.5


@dataclass
class Settings:
    depth: int
    inner: Inner
    note: Optional[str] = None


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def double(x: int) -> int:
    print(f"doubling {x}")
    return 2 * x


@workflow
def chain(x: int, y: int = 4) -> int:
    return double(x=add(a=x, b=y))


@task
def describe(i: int, f: float, s: str, b: bool, d: datetime, t: timedelta, c: Colour, l: list[int], m: dict[str, float], o: Optional[int], z: Settings) -> str:
    return f"{i} {f} {s} {b} {d.isoformat()} {t.total_seconds()} {c.value} {l} {m} {o} {z.depth} {z.inner.names} {z.note}"


@workflow
def all_types(
    i: int, f: float, s: str, b: bool, d: datetime, t: timedelta, c: Colour, l: list[int], m: dict[str, float], z: Settings, o: Optional[int] = None
) -> str:
    return describe(i=i, f=f, s=s, b=b, d=d, t=t, c=c, l=l, m=m, o=o, z=z)


@task
def make_settings(depth: int) -> Settings:
    return Settings(depth=depth, inner=Inner(names=["a", "b"], weight=1.5))


@task
def make_list(n: int) -> list[dict[str, int]]:
    return [{"value": i * i} for i in range(n)]


@workflow
def attributes(depth: int) -> tuple[int, str, int]:
    """Outputs are reached into by attribute, index and key."""
    settings = make_settings(depth=depth)
    squares = make_list(n=4)
    return add(a=settings.depth, b=1), settings.inner.names[1], squares[3]["value"]


@workflow
def doubled_twice(x: int) -> int:
    return double(x=double(x=x))


@workflow
def nested(x: int) -> tuple[int, int]:
    """A sub-workflow inside of another."""
    return doubled_twice(x=x), chain(x=x, y=1)


@task
def write_files(text: str) -> tuple[FlyteFile, FlyteDirectory, pd.DataFrame]:
    with open("greeting.txt", "w") as file:
        file.write(text)
    print(f"greeting.txt says {text}")
    os.mkdir("folder")
    for name in ("one", "two"):
        with open(f"folder/{name}.txt", "w") as file:
            file.write(name)
    return FlyteFile("greeting.txt"), FlyteDirectory("folder"), pd.DataFrame({"n": [1, 2, 3], "s": ["x", "y", "z"]})


@task
def read_files(file: FlyteFile, folder: FlyteDirectory, frame: pd.DataFrame) -> str:
    with open(file) as stream:
        text = stream.read()
    return f"{text} {sorted(os.listdir(folder.download()))} {int(frame['n'].sum())} {list(frame['s'])}"


@workflow
def files(text: str) -> tuple[FlyteFile, FlyteDirectory, pd.DataFrame, str]:
    file, folder, frame = write_files(text=text)
    return file, folder, frame, read_files(file=file, folder=folder, frame=frame)


@task
def upper(file: FlyteFile) -> str:
    with open(file) as stream:
        return stream.read().upper()


@workflow
def shout(file: FlyteFile) -> str:
    return upper(file=file)


@task
def fail(reason: str) -> int:
    if reason:
        raise ValueError(f"cannot go on: {reason}")
    return 0


@workflow
def failing(reason: str) -> int:
    return double(x=fail(reason=reason))


@task
def nap(seconds: float, label: str) -> str:
    time.sleep(seconds)
    return label


@workflow
def sleepy(seconds: float) -> str:
    return nap(seconds=seconds, label="rested")


@task
def ids() -> str:
    context = current_context()
    return f"{context.execution_id.project} {context.execution_id.domain} {context.execution_id.name} {context.task_id.name}"


@workflow
def who_am_i() -> str:
    return ids()


@task
def environment(name: str) -> str:
    return os.environ.get(name, "unset")


@workflow
def look_at(name: str) -> str:
    return environment(name=name)


@task
def talk(folder: str) -> int:
    """Says something, waits for the listener, and says something more."""
    print("so far so good", flush=True)
    meet(folder, "heard")
    print("goodbye", flush=True)
    return 0


@workflow
def talking(folder: str) -> int:
    return talk(folder=folder)


@task
def stay(folder: str) -> int:
    meet(folder, "leave")
    return 0


@workflow
def staying(folder: str) -> int:
    return stay(folder=folder)


@task(enable_deck=True)
def draw(title: str) -> str:
    Deck("Picture", f"<h1>{title}</h1>")
    return title


@workflow
def drawing(title: str) -> str:
    return draw(title=title)


@task(limits=Resources(mem="400Mi"))
def hoard(mebibytes: int) -> int:
    """Takes memory bit by bit, and uses it."""
    kept = []
    for _ in range(mebibytes):
        kept.append(bytes(range(256)) * 4096)
        time.sleep(0.0005)
    return len(kept)


@workflow
def hoarding(mebibytes: int) -> int:
    return hoard(mebibytes=mebibytes)


@workflow
def nested_twice(x: int) -> int:
    a, b = nested(x=x)
    return add(a=a, b=b)
