"""Tasks that do all kinds of things with the files that they are given."""

import dataclasses
import os
import pathlib
import shutil
import time
import typing

import pandas as pd
from flytekit import current_context, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile


@dataclasses.dataclass
class Report:
    number: int
    page: FlyteFile
    pages: typing.List[FlyteFile]


class Pickled:
    def __init__(self, text: str):
        self.text = text


Made = typing.NamedTuple("Made", file=FlyteFile, folder=FlyteDirectory, frame=pd.DataFrame, report=Report, many=typing.Dict[str, typing.List[FlyteFile]], pickled=Pickled)


def written(name: str) -> FlyteFile:
    pathlib.Path(name).write_text("original " + name)
    return FlyteFile(name)


@task(cache=True, cache_version="1")
def make(seed: int) -> Made:
    deep = pathlib.Path("folder", "deep", "er")
    deep.mkdir(parents=True)
    (deep / "b").write_text("original b")
    (deep.parent.parent / "a").write_text("original a")
    return Made(
        file=written("file"), folder=FlyteDirectory("folder"), frame=pd.DataFrame({"x": [seed, 2]}),
        report=Report(number=seed, page=written("page"), pages=[written("page1")]), many={"k": [written("k1"), written("k2")]}, pickled=Pickled("original"),
    )


def given(file, folder, frame, report, many, pickled, upload) -> typing.Tuple[str, typing.List[str]]:
    """What a task sees of all its files, and where they are."""
    files = [str(f.download()) for f in [file, report.page, *report.pages, *many["k"], upload]]
    root = folder.download()
    files += [os.path.join(at, name) for at, _, names in os.walk(root) for name in names]
    seen = {os.path.basename(f): open(f).read() for f in sorted(files)}
    return f"{sorted(seen.items())} {frame.x.tolist()} {report.number} {pickled.text}", files


def spoil(path: str, how: int) -> None:
    """Every way to change, move or remove a file."""
    if how == 0:
        open(path, "a").write(" CHANGED")
    elif how == 1:
        os.remove(path)
    elif how == 2:
        shutil.move(path, os.path.join(os.getcwd(), "mine"))
    elif how == 3:
        os.chmod(path, 0o777)
        open(path, "w").write("OVERWRITTEN")
    elif how == 4:
        os.truncate(path, 0)
    elif how == 5:
        shutil.copy(__file__, "copy")
        os.replace("copy", path)
    elif how == 6:
        os.link(path, path + ".another")
        open(path + ".another", "w").write("OVERWRITTEN")


@task(retries=1)
def harm(file: FlyteFile, folder: FlyteDirectory, frame: pd.DataFrame, report: Report, many: typing.Dict[str, typing.List[FlyteFile]], pickled: Pickled, upload: FlyteFile, how: int) -> str:
    seen, files = given(file, folder, frame, report, many, pickled, upload)
    for path in files:
        spoil(path, how)
    pathlib.Path(folder.path, "new").write_text("new")
    if how % 2:
        shutil.rmtree(folder.path)
    if os.environ["FLYTE_ATTEMPT_NUMBER"] == "0":
        raise FlyteRecoverableException("the network was away")
    return seen


@task
def look(file: FlyteFile, folder: FlyteDirectory, frame: pd.DataFrame, report: Report, many: typing.Dict[str, typing.List[FlyteFile]], pickled: Pickled, upload: FlyteFile, after: typing.List[str]) -> str:
    seen = given(file, folder, frame, report, many, pickled, upload)[0]
    return repr([seen == other for other in after]) + seen


@task
def breaks(marks: str, after: str) -> str:
    if not pathlib.Path(marks, "fixed").exists():
        raise ValueError("it is not fixed yet")
    return after


@workflow
def harmed(seed: int, upload: FlyteFile, marks: str) -> typing.Tuple[str, FlyteFile, FlyteDirectory]:
    m = make(seed=seed)
    told = [
        harm(file=m.file, folder=m.folder, frame=m.frame, report=m.report, many=m.many, pickled=m.pickled, upload=upload, how=how)
        for how in range(7)
    ]
    seen = look(file=m.file, folder=m.folder, frame=m.frame, report=m.report, many=m.many, pickled=m.pickled, upload=upload, after=told)
    return breaks(marks=marks, after=seen), m.file, m.folder


@task
def made(marks: str) -> FlyteFile:
    pathlib.Path(marks, "made").open("a").write("once\n")
    pathlib.Path("lost.txt").write_text("found")
    return FlyteFile("lost.txt")


@task
def lose(marks: str, file: FlyteFile) -> str:
    """Waits for what no task can do, as an `rm` in the data folder does."""
    pathlib.Path(marks, "ready").touch()
    while not pathlib.Path(marks, "lost").exists():
        time.sleep(0.02)
    return "lost"


@task
def use(file: FlyteFile, after: str) -> str:
    return open(file.download()).read()


@workflow
def loses(marks: str) -> str:
    f = made(marks=marks)
    return use(file=f, after=lose(marks=marks, file=f))


@task(retries=2)
def saves(how: int) -> str:
    """Saves a checkpoint, spoils the copy of it that it is given, and goes on from it once more."""
    checkpoint = current_context().checkpoint
    number = int(os.environ["FLYTE_ATTEMPT_NUMBER"])
    if number == 0:
        checkpoint.write(b"original checkpoint")
        raise FlyteRecoverableException("the network was away")
    seen = checkpoint.read().decode()
    if number == 1:
        given = [os.path.join(at, name) for at, _, names in os.walk(checkpoint._checkpoint_src) for name in names]
        assert given, checkpoint._checkpoint_src
        for path in given:
            spoil(path, how)
        raise FlyteRecoverableException("the network was away")
    return seen


@task
def vandal(how: int) -> str:
    """Spoils its own code."""
    spoil(__file__, how)
    return "spoilt"


@task
def intact(after: typing.List[str]) -> str:
    return open(__file__).read()


@workflow
def spoils() -> typing.Tuple[typing.List[str], str]:
    return [saves(how=how) for how in range(7)], intact(after=[vandal(how=how) for how in range(7)])
