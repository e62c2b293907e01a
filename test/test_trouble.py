"""Trouble around aloft: each run that it concerns reports it in a sentence, and no other run suffers."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from conftest import Server, execution_name


def run(server: Server, workflow: str):
    """The execution of a workflow of trouble.py when it has ended."""
    remote = server.remote()
    done = server.pyflyte("run", "--remote", "trouble.py", workflow)
    return remote.wait(remote.fetch_execution(name=execution_name(done.stdout)), sync_nodes=False)


def test_a_python_without_flytekit_fails_the_run_with_the_way_out(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    server = Server(tmp_path / "data", python=str(bare / "bin" / "python")).start()
    try:
        error = run(server, "ones").error
        assert f"has no flytekit: run `{bare}/bin/python -m pip install flytekit" in error.message, error
        assert "or name another Python with --python" in error.message
        assert "has no flytekit" in server.log.read_text(), "the server says it as soon as it knows"
    finally:
        server.end()


@pytest.fixture
def small_disk(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root mounts a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_task_that_fills_the_disk_fails_alone(small_disk):
    server = Server(small_disk / "data")
    server.log = small_disk.parent / "log"
    server.start()
    try:
        execution = run(server, "full")
        assert "No space left on device" in execution.error.message, execution.error
        assert run(server, "ones").outputs.get("o0", int) == 1
        assert not list((server.data / "attempts").glob("*.tmp/*"))
    finally:
        server.end()


def mount(folder: pathlib.Path, size: str):
    if os.getuid() != 0:
        pytest.skip("only root mounts a small disk")
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Takes all free space of a disk."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return ballast


def status(server: Server, name: str) -> dict:
    return json.loads(server.aloft("status", name, "-o", "json").stdout)


def until(server: Server, what: str, true, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what}:\n{server.log.read_text()[-6000:]}"
        time.sleep(0.1)
    return found


def launch(server: Server, folder: pathlib.Path, token: str) -> str:
    remote = server.remote()
    workflow = remote.fetch_workflow(name="trouble.passing")
    return remote.execute(workflow, inputs={"token": token, "folder": str(folder)}).id.name


def waits_for(server: Server, name: str, service: str):
    """The attempts of an execution once it says that it waits for the service."""
    def look():
        seen = status(server, name)
        said = [seen["execution"].get("waiting", "")] + [a.get("waiting", "") for n in seen.get("nodes", []) for a in n.get("attempts", [])]
        return seen if any(f"waiting for {service} since 20" in text for text in said) else None

    return until(server, f"{name} does not say that it waits for {service}", look)


@pytest.fixture
def small_blobs(tmp_path):
    """A server whose blobs have a small disk of their own, and which knows the pipelines."""
    data = tmp_path / "data"
    mount(data / "blob", "24m")
    server = Server(data).start()
    try:
        folder = tmp_path / "first"
        folder.mkdir()
        (folder / "go").touch()
        name = server.run("trouble.py", "passing", "--token", "first", "--folder", str(folder))
        assert server.outputs(name)["o0"] == "first"
        yield server
    finally:
        server.end()
        subprocess.run(["umount", "-l", str(data / "blob")], check=True)


def charged(server: Server, name: str) -> list[str]:
    """The budgets that were charged with failures of attempts."""
    attempts = [a for n in status(server, name)["nodes"] for a in n.get("attempts", [])]
    return [a["charge"].get("budget", "NONE") for a in attempts if "charge" in a]


def test_what_starts_while_the_blobs_are_full_waits_and_goes_on(small_blobs, tmp_path):
    server = small_blobs
    ballast = fill(server.data / "blob")
    folders = []
    for i in range(4):
        folder = tmp_path / f"run{i}"
        folder.mkdir()
        (folder / "go").touch()
        folders.append(folder)
    names = [launch(server, folder, str(i)) for i, folder in enumerate(folders)]
    for name in names:
        waits_for(server, name, "the blob store")
    assert "is away since" in server.aloft("doctor", check=False).stdout
    late = launch(server, folders[0], "late")  # while the outage is known
    waits_for(server, late, "the blob store")
    ballast.unlink()
    for i, name in enumerate(names + [late]):
        assert server.outputs(name)["o0"] == (str(i) if name != late else "late")
    budgets = [budget for name in names + [late] for budget in charged(server, name)]
    assert budgets.count("SYSTEM") <= 1 and budgets.count("USER") == 0, budgets
    assert charged(server, late) == []


def test_what_runs_while_the_blobs_are_away_is_not_held_against_the_task(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        folder = tmp_path / "run"
        folder.mkdir()
        name = server.run("trouble.py", "passing", "--token", "x", "--folder", str(folder))
        until(server, "it does not run", lambda: (folder / "runs").exists())
        blobs = server.data / "blob"
        blobs.rename(server.data / "away")
        blobs.touch()
        (folder / "go").touch()
        try:
            waits_for(server, name, "the blob store")
        finally:
            blobs.unlink()
            (server.data / "away").rename(blobs)
        assert server.outputs(name)["o0"] == "x"
        assert charged(server, name).count("USER") == 0, charged(server, name)
    finally:
        server.end()


def test_a_full_disk_stops_everything_and_everything_goes_on(tmp_path):
    disk = tmp_path / "disk"
    mount(disk, "64m")
    server = Server(disk / "data")
    server.log = tmp_path / "log"
    server.start()
    try:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "go").touch()
        server.run("trouble.py", "passing", "--token", "first", "--folder", str(folder))
        names = []
        for i in range(3):
            (tmp_path / f"run{i}").mkdir()
            names.append(launch(server, tmp_path / f"run{i}", str(i)))
        for i in range(3):
            until(server, "it does not run", lambda: (tmp_path / f"run{i}" / "runs").exists())
        ballast = fill(disk)
        for i in range(3):
            (tmp_path / f"run{i}" / "go").touch()
        until(server, "the server does not say that its disk is full", lambda: "disk is full" in server.log.read_text())
        ballast.unlink()
        for i, name in enumerate(names):
            assert server.outputs(name)["o0"] == str(i)
            assert charged(server, name).count("USER") == 0
    finally:
        server.end()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_lies_unread_goes_before_a_deadline_that_passed_meanwhile(own_server, tmp_path):
    """The server is killed, the task ends in time, and its time is over when there is a server again."""
    server = own_server

    def known(name: str) -> str:
        seen = status(server, name)
        attempts = [a["phase"] for n in seen.get("nodes", []) for a in n.get("attempts", [])]
        return attempts[0] if attempts and attempts[0] not in ("QUEUED", "INITIALIZING") else ""

    for n in range(5):
        folder = tmp_path / str(n)
        folder.mkdir()
        name = execution_name(server.pyflyte("run", "--remote", "trouble.py", "fails_late", "--folder", str(folder)).stdout)
        if until(server, "it does not run", lambda: known(name)) == "RUNNING":
            break  # on a very busy machine the time of the task may be over by now
    server.kill()
    (folder / "go").touch()
    time.sleep(11)
    server.start()
    assert "it is its own failure" in server.ended(name).error.message
