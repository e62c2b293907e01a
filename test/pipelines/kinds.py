"""One small workflow for each kind of value and of task that pipelines use; `expected` says what it ends with."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Annotated, NamedTuple, Optional, Union

import numpy as np
import pandas as pd
import pyarrow as pa
from flytekit import StructuredDataset, WorkflowFailurePolicy, current_context, kwtypes, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.extras.tasks.shell import OutputLocation, ShellTask
from flytekit.types.directory import FlyteDirectory
from flytekit.types.error import FlyteError
from flytekit.types.file import FlyteFile

expected = {}


def ends_with(**outputs):
    def note(wf):
        expected[wf.name] = outputs
        return wf

    return note


@task
def one_file(text: str) -> FlyteFile:
    with open("file.txt", "w") as file:
        file.write(text)
    return FlyteFile("file.txt")


@task
def one_folder() -> FlyteDirectory:
    os.makedirs("folder/inner")
    for name in ("one", "inner/two"):
        with open(f"folder/{name}", "w") as file:
            file.write(name)
    return FlyteDirectory("folder")


@task
def one_frame(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"n": range(rows)})


@task
def rows_of(frame: Optional[pd.DataFrame] = None) -> int:
    return -1 if frame is None else len(frame)


@ends_with(o0=-1, o1=3)
@workflow
def optional_frame() -> tuple[int, int]:
    return rows_of(), rows_of(frame=one_frame(rows=3))


@task
def kind_of(x: Union[FlyteFile, FlyteDirectory, int, None] = None) -> str:
    return type(x).__name__


@ends_with(o0="FlyteFile", o1="FlyteDirectory", o2="int", o3="NoneType")
@workflow
def union() -> tuple[str, str, str, str]:
    return kind_of(x=one_file(text="x")), kind_of(x=one_folder()), kind_of(x=1), kind_of()


@task
def several_files() -> list[FlyteFile]:
    for i in range(3):
        with open(f"{i}.txt", "w") as file:
            file.write(str(i))
    return [FlyteFile(f"{i}.txt") for i in range(3)]


@task
def read_all(files: list[FlyteFile], named: dict[str, FlyteFile]) -> str:
    return " ".join([open(f).read() for f in files] + [f"{k}={open(f).read()}" for k, f in sorted(named.items())])


@ends_with(o0="0 1 2 a=A b=B")
@workflow
def files_in_collections() -> str:
    return read_all(files=several_files(), named={"a": one_file(text="A"), "b": one_file(text="B")})


@task
def table() -> pa.Table:
    return pa.table({"a": [1, 2], "b": ["x", "y"]})


@task
def columns_of(data: Annotated[StructuredDataset, kwtypes(a=int)]) -> list[str]:
    return list(data.open(pd.DataFrame).all().columns)


@task
def rows_of_table(data: pa.Table) -> int:
    return data.num_rows


@task
def dataset() -> Annotated[StructuredDataset, kwtypes(a=int, b=str)]:
    return StructuredDataset(dataframe=pd.DataFrame({"a": [1], "b": ["x"]}))


@ends_with(o0=2, o1=["a"])
@workflow
def datasets() -> tuple[int, list[str]]:
    return rows_of_table(data=table()), columns_of(data=dataset())


@task
def numbers(n: int) -> np.ndarray:
    return np.arange(n)


@task
def total(a: np.ndarray) -> int:
    return int(a.sum())


@ends_with(o0=10)
@workflow
def array() -> int:
    return total(a=numbers(n=5))


class Plain:
    def __init__(self, value):
        self.value = value


@task
def make_plain(value: int) -> Plain:
    return Plain(value)


@task
def read_plain(plain: Plain) -> int:
    return plain.value


@ends_with(o0=9)
@workflow
def pickled() -> int:
    return read_plain(plain=make_plain(value=9))


class Pair(NamedTuple):
    first: int
    second: str


@task
def pair(x: int) -> Pair:
    return Pair(x, str(x))


@ends_with(first=4, second="4")
@workflow
def named() -> Pair:
    p = pair(x=4)
    return Pair(first=p.first, second=p.second)


@dataclass
class Bundle:
    file: FlyteFile
    folder: FlyteDirectory


@task
def make_bundle() -> Bundle:
    with open("inside.txt", "w") as file:
        file.write("inside")
    os.mkdir("things")
    with open("things/thing", "w") as file:
        file.write("thing")
    return Bundle(FlyteFile("inside.txt"), FlyteDirectory("things"))


@task
def read_bundle(bundle: Bundle) -> str:
    return f"{open(bundle.file).read()} {os.listdir(bundle.folder)}"


@task
def read_file(file: FlyteFile) -> str:
    return open(file).read()


@ends_with(o0="inside ['thing']", o1="inside")
@workflow
def files_in_a_dataclass() -> tuple[str, str]:
    bundle = make_bundle()
    return read_bundle(bundle=bundle), read_file(file=bundle.file)


@task
def nothing() -> None:
    print("nothing")


@task
def day_after(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)


@ends_with(o0=date(2026, 1, 3), o1=[1, 2], o2={"a": [1, {"b": None}], "n": 1})
@workflow
def passing(day: date = date(2026, 1, 2), numbers: list[int] = [1, 2]) -> tuple[date, list[int], dict]:
    """An input that is an output, an order without data, a default, a free dictionary."""
    before, after = nothing(), day_after(day=day)
    before >> after
    return after, numbers, with_n(d={"a": [1, {"b": None}]})


@task
def with_n(d: dict) -> dict:
    return {**d, "n": 1}


shell = ShellTask(
    name="kinds.shell", script="echo hello {inputs.name} > {outputs.said}", inputs=kwtypes(name=str),
    output_locs=[OutputLocation(var="said", var_type=FlyteFile, location="said.txt")],
)  # fmt: skip


@ends_with(o0="hello world\n")
@workflow
def shells() -> str:
    return read_file(file=shell(name="world"))


@task
def children() -> int:
    """A subprocess, and a pool of forks of a process that was forked itself."""
    said = subprocess.run(["echo", "5"], capture_output=True, text=True).stdout
    with ProcessPoolExecutor(2) as pool:
        return int(said) + sum(pool.map(abs, [-1, -2]))


@ends_with(o0=8)
@workflow
def processes() -> int:
    return children()


@task
def text(n: int) -> str:
    return "ä" * n


@task
def length(s: str) -> int:
    return len(s)


@ends_with(o0=1_500_000, o1="ä" * 100_000)
@workflow
def long_text() -> tuple[int, str]:
    return length(s=text(n=1_500_000)), text(n=100_000)


@task(retries=3)
def third_time() -> int:
    if int(os.environ["FLYTE_ATTEMPT_NUMBER"]) < 2:
        raise FlyteRecoverableException("not yet")
    return int(os.environ["FLYTE_ATTEMPT_NUMBER"])


@ends_with(o0=2)
@workflow
def retried() -> int:
    return third_time()


@task
def broken(why: str) -> int:
    if why:
        raise ValueError(why)
    return 0


@task
def leave(code: int) -> int:
    print("almost there", file=sys.stderr, flush=True)
    if code:
        os._exit(code)
    return 0


@task
def tidy(x: int, err: Optional[FlyteError] = None) -> None:
    print(f"tidied {x} after {current_context().execution_id.name}")


@workflow(failure_policy=WorkflowFailurePolicy.FAIL_AFTER_EXECUTABLE_NODES_COMPLETE)
def after_all() -> tuple[int, int]:
    return broken(why="the left one"), length(s=text(n=7))


@workflow(on_failure=tidy)
def tidied(x: int = 3) -> int:
    return broken(why="untidy")


@workflow
def gone() -> int:
    return leave(code=7)
