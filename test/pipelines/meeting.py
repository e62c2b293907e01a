"""Tasks that wait for each other or for the test, by files in a folder: what runs at the same time needs no sleeping."""

import pathlib
import time

PATIENCE = 60  # seconds


def arrive(folder: str, name: str) -> None:
    pathlib.Path(folder, name).touch()


def meet(folder: str, *names: str) -> None:
    """Return when all of them have arrived."""
    deadline = time.monotonic() + PATIENCE
    while not all(pathlib.Path(folder, name).exists() for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {names} came to {folder}")
        time.sleep(0.01)
