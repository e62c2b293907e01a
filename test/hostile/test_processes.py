"""Case 09, case 10, attack 10 and 11: nothing outlives or escapes its attempt."""

import datetime
import os
import pathlib
import time

import pytest
from conftest import Server

HERE = pathlib.Path(__file__).parent


def running(marker: str) -> list[str]:
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line == b"/bin/sleep\0" + marker.encode() + b"\0":
                found.append(entry.name)
    return found


@pytest.fixture(scope="module", params=["groups", "no groups"])
def held(request, tmp_path_factory):
    """A server that holds processes as well as this machine can, and one that has no control groups."""
    variables = {"ALOFT_TEST_GROUPS": "none"} if request.param == "no groups" else {}
    server = Server(tmp_path_factory.mktemp("held") / "data", **variables).start()
    try:
        server.pyflyte("register", "left.py", "--version", "1", cwd=HERE)
        yield server
    finally:
        server.end()


WAIT = {"timeout": datetime.timedelta(seconds=90), "poll_interval": datetime.timedelta(milliseconds=200), "sync_nodes": False}


def test_no_process_outlives_its_attempt(held: Server):
    """Case 09, attack 11: sessions, environments and parents of their own, after each way to end, warm and cold."""
    remote = held.remote()
    begun = {}
    for workflow in ("warms", "colds"):
        for end in ("success", "failure", "terminate"):
            begun[workflow, end] = None
    begun["lates", "timeout"] = None
    for number, (workflow, end) in enumerate(begun):
        marker = f"{98_000 + number}.{os.getpid()}{len(str(held.data))}"
        wf = remote.fetch_workflow(name=f"left.{workflow}", version="1")
        begun[workflow, end] = (marker, remote.execute(wf, {"marker": marker, "end": end}))
    left = {}
    for (workflow, end), (marker, execution) in begun.items():
        deadline = time.monotonic() + 90
        while not list(held.data.glob(f"blob/run/**/{marker}")):
            assert time.monotonic() < deadline, f"{workflow}, {end}: its processes never ran"
            time.sleep(0.02)
        if end == "terminate":
            remote.terminate(execution, "enough")
    for (workflow, end), (marker, execution) in begun.items():
        done = remote.wait(execution, **WAIT)
        want = {"success": 4, "terminate": 7}.get(end, 6)
        assert done.closure.phase == want, f"{workflow}, {end}: {done.closure}"
        deadline = time.monotonic() + 10
        while found := running(marker):
            if time.monotonic() > deadline:
                left[workflow, end] = found
                break
            time.sleep(0.02)
    assert not left, f"processes that are left: {left}"


def test_a_task_whose_process_is_killed_for_memory_ends(held: Server):
    """Case 10 and attack 10: a pool whose worker the kernel kills, and a shell that hides it, end as OOMKilled."""
    remote = held.remote()
    begun = [remote.execute(remote.fetch_workflow(name=f"left.{name}", version="1"), {}) for name in ("pools", "shells")]
    for execution in begun:
        error = remote.wait(execution, **WAIT).error
        assert "OOMKilled" in error.code and "MiB" in error.message and error.kind == 1, error
