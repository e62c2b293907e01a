"""A task that changes its input files changes no other file, and outputs that are lost are computed again."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import typing

import pytest
from conftest import PIPELINES, Server
from flyteidl.core import execution_pb2

SUCCEEDED, FAILED = 4, 6
NOBODY = 65534


class UnprivilegedServer(Server):
    """A server of a user without privileges."""

    def command(self) -> list[str]:
        return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *super().command()]


def as_nobody(*command: str) -> bool:
    command = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all", "sh", "-c", 'exec "$@"', "sh", *command)
    return subprocess.run(command, capture_output=True, env={**os.environ, "HOME": "/nonexistent"}).returncode == 0


def python_for_nobody(folder: pathlib.Path) -> str | None:
    """A Python with flytekit that another user can run: the interpreter of the tests may lie in a folder of root's."""
    if as_nobody(sys.executable, "-c", "import flytekit"):
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(version, path="/usr/local/bin:/usr/bin")
    if not system or subprocess.run([system, "-m", "venv", "--without-pip", str(folder)], capture_output=True).returncode:
        return None
    (folder / "lib" / version / "site-packages" / "flytekit.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = folder / "bin" / "python"
    for script in pathlib.Path(sys.executable).parent.glob("pyflyte-*"):
        (folder / "bin" / script.name).write_text(f"#!{python}\n" + script.read_text().partition("\n")[2])
        (folder / "bin" / script.name).chmod(0o755)
    return str(python) if as_nobody(str(python), "-c", "import flytekit") else None


@pytest.fixture
def unprivileged():
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    if not shutil.which("setpriv"):
        pytest.skip("there is no setpriv")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="aloft-inputs-"))
    try:
        os.chmod(folder, 0o755)
        if not (python := python_for_nobody(folder / "python")):
            pytest.skip("there is no Python with flytekit that another user can run")
        os.chown(folder, NOBODY, NOBODY)
        s = UnprivilegedServer(folder / "data", python=python, HOME=str(folder))
        try:
            yield s.start()
        finally:
            s.end()
    finally:
        shutil.rmtree(folder)


def check(server: Server, marks: pathlib.Path) -> None:
    marks.chmod(0o777)
    spoilt = server.run("private.py", "spoils")
    upload = marks / "upload.txt"
    upload.write_text("original upload")
    arguments = ["private.py", "harmed", "--seed", "1", "--upload", str(upload), "--marks", str(marks)]
    name = server.run(*arguments)
    failed = server.ended(name)
    assert failed.closure.phase == FAILED and "it is not fixed yet" in failed.closure.error.message, failed.closure.error

    (marks / "fixed").touch()
    recovered = server.remote().client.recover_execution(failed.id).name  # the outputs of finished nodes are as they were
    again = server.run(*arguments)  # so are cached results and the uploaded file
    for name in (recovered, again):
        execution = server.ended(name)
        assert execution.closure.phase == SUCCEEDED, execution.closure.error
        text = execution.outputs.get("o0", str)
        assert text.startswith("[True, True, True, True, True, True, True]"), text
        for part in ("file", "page", "page1", "k1", "k2", "a", "b", "upload"):
            assert f"original {part}'" in text, text
        assert text.endswith("[1, 2] 1 original"), text
        from flytekit.types.directory import FlyteDirectory
        from flytekit.types.file import FlyteFile

        with open(execution.outputs.get("o1", FlyteFile)) as f:
            assert f.read() == "original file"
        folder = pathlib.Path(execution.outputs.get("o2", FlyteDirectory).download())
        assert {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} == {"a": "original a", "deep/er/b": "original b"}


    execution = server.ended(spoilt)
    assert execution.closure.phase == SUCCEEDED, execution.closure.error
    assert execution.outputs.get("o0", typing.List[str]) == ["original checkpoint"] * 7
    assert execution.outputs.get("o1", str) == (PIPELINES / "private.py").read_text()


def test_a_task_may_do_what_it_likes_with_its_inputs(server, tmp_path):
    """Case 03: files, folders, frames, pickles, dataclasses, uploads, at any depth; seven ways to harm them, twice each; then
    another node, a recovery, a cache hit, an upload and the client's download. Checkpoints and the code likewise."""
    check(server, tmp_path)


def test_an_ordinary_user_s_task_may_do_what_it_likes_with_its_inputs(unprivileged):
    """As above; writing to an input works."""
    folder = unprivileged.data.parent / "marks"
    folder.mkdir()
    check(unprivileged, folder)


def wait_for(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("damage", [False, True])
def test_what_is_lost_is_computed_again_by_a_recovery(own_server, tmp_path, damage):
    """A lost or changed input is no error of the user's; a recovery computes it again."""
    name = own_server.run("private.py", "loses", "--marks", str(tmp_path))
    wait_for((tmp_path / "ready").exists)
    for path in (own_server.data / "blob" / "raw").rglob("lost.txt"):
        if damage:
            path.chmod(0o644)
            path.write_text("garbage")
        else:
            path.unlink()
    (tmp_path / "lost").touch()
    failed = own_server.ended(name)
    assert failed.closure.phase == FAILED
    error = failed.closure.error
    assert error.code == "InputLost" and error.kind == execution_pb2.ExecutionError.SYSTEM, error
    assert "input file: what" in error.message and "lost.txt" in error.message and f"aloft recover -p flytesnacks -d development {name}" in error.message, error.message
    assert error.message.count("\n") < 6, error.message

    planned = own_server.aloft("recover", name, "--dry-run").stdout
    assert ("is not what was written" if damage else "is missing") in planned, planned
    recovered = own_server.remote().client.recover_execution(failed.id).name
    execution = own_server.ended(recovered)
    assert execution.closure.phase == SUCCEEDED, execution.closure.error
    assert own_server.outputs(recovered).get("o0", str) == "found"
    assert (tmp_path / "made").read_text() == "once\nonce\n"
