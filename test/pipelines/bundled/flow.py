"""Code that reads and overwrites a file which it was shipped with, by relative path."""

import pathlib

from flytekit import task, workflow
from meeting import arrive, meet

WORDS = pathlib.Path("bundled/words.txt")


@task
def overwrite(label: str, folder: str) -> str:
    before = WORDS.read_text().strip()
    arrive(folder, f"{label} has read")
    meet(folder, "left has read", "right has read")
    WORDS.write_text(label)
    arrive(folder, f"{label} has written")
    meet(folder, "left has written", "right has written")
    return f"{before} -> {WORDS.read_text()}"


@workflow
def both(folder: str) -> tuple[str, str]:
    return overwrite(label="left", folder=folder), overwrite(label="right", folder=folder)
