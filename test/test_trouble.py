"""What is wrong around aloft: each run that it concerns says it in a sentence, and nothing else suffers."""

import os
import subprocess
import sys

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
