"""Code that reads and overwrites a file which it was shipped with, by relative path."""

import pathlib
import time

from flytekit import task, workflow

WORDS = pathlib.Path("bundled/words.txt")


@task
def overwrite(label: str) -> str:
    before = WORDS.read_text().strip()
    WORDS.write_text(label)
    time.sleep(1.0)  # both attempts are here at once
    return f"{before} -> {WORDS.read_text()}"


@workflow
def both() -> tuple[str, str]:
    return overwrite(label="left"), overwrite(label="right")
