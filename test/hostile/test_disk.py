"""The disk has no inodes left; it does not answer; it takes no writes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from test_trouble import charged, launch, until  # noqa: E402

from conftest import Server, execution_name  # noqa: E402


def test_a_disk_without_inodes_is_not_the_users_fault(tmp_path):
    """attack 8"""
    if os.getuid() != 0:
        pytest.skip("only root mounts a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,nr_inodes=1200", "none", str(disk)], check=True)
    server = Server(disk / "data")
    server.log = tmp_path / "log"
    server.start()
    try:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "go").touch()
        server.run("trouble.py", "passing", "--token", "first", "--folder", str(folder))
        running = []
        for i in range(2):
            (tmp_path / f"run{i}").mkdir()
            running.append(launch(server, tmp_path / f"run{i}", str(i)))
        for i in range(2):
            until(server, "it does not run", lambda: (tmp_path / f"run{i}" / "runs").exists())
        ballast = disk / "ballast"
        ballast.mkdir()
        try:
            for n in range(2000):
                (ballast / str(n)).touch()
        except OSError:
            pass
        for i in range(2):
            (tmp_path / f"run{i}" / "go").touch()
        late = launch(server, folder, "late")
        until(server, "the server does not say that its disk is full", lambda: "disk is full" in server.log.read_text())
        for path in ballast.iterdir():
            path.unlink()
        for name, token in [*zip(running, "01"), (late, "late")]:
            assert server.outputs(name)["o0"] == token
            assert charged(server, name).count("USER") == 0
    finally:
        server.end()
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def own_disk(tmp_path):
    """A file system in a file, and what its kernel part can be told."""
    if os.getuid() != 0:
        pytest.skip("only root mounts a small disk")
    if not shutil.which("mkfs.ext4"):
        pytest.skip("there is no mkfs.ext4")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["truncate", "-s", "256M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(image), str(disk)]).returncode != 0:
        pytest.skip("no file can be mounted here")
    source = subprocess.run(["findmnt", "-no", "SOURCE", str(disk)], check=True, capture_output=True, text=True).stdout.strip()
    yield disk, pathlib.Path("/sys/fs/ext4") / pathlib.Path(source).name
    subprocess.run(["umount", "-l", str(disk)], check=True)


def refused(server: Server, path: str, body: dict | None = None, timeout: float = 60) -> tuple[int, float]:
    """What a client without a deadline is told, and after how long; 200: it was not refused."""
    began = time.monotonic()
    request = urllib.request.Request(f"http://{server.address}{path}", data=json.dumps(body).encode() if body else None, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return 200, time.monotonic() - began
    except urllib.error.HTTPError as e:
        return e.code, time.monotonic() - began


def to_do(server: Server) -> str:
    done = server.aloft("doctor", check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("TO DO")]
    assert done.returncode == (1 if found else 0), done.stdout
    return "\n".join(found)


def threads(server: Server) -> int:
    return len(list(pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()))


def test_a_disk_that_does_not_answer_or_takes_no_writes_holds_nobody(own_disk, tmp_path):
    """attack 17: with a task that runs meanwhile, and whose result counts when the disk is back."""
    disk, kernel = own_disk
    server = Server(disk / "data")
    server.log = tmp_path / "log"
    server.start()
    frozen = False
    try:
        folder = tmp_path / "run"
        folder.mkdir()
        running = execution_name(server.pyflyte("run", "--remote", "trouble.py", "passing", "--token", "one", "--folder", str(folder)).stdout)
        until(server, "it does not run", lambda: (folder / "runs").exists())
        assert to_do(server) == ""

        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        frozen = True
        answers = []
        clients = [threading.Thread(target=lambda n=n: answers.append(refused(server, "/api/v1/projects", {"project": {"id": f"p{n}", "name": "p"}}))) for n in range(40)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert {code for code, _ in answers} == {503}, answers
        until(server, "doctor does not say it", lambda: "the database is away" in to_do(server))
        before = threads(server)
        for n in range(40):
            code, took = refused(server, "/api/v1/projects", {"project": {"id": f"q{n}", "name": "p"}})
            assert code == 503 and took < 10, (code, took)
        assert threads(server) < before + 20, "each call that hangs keeps a thread"
        refused(server, f"/api/v1/executions/flytesnacks/development/{running}")  # it may be read, or not, but it returns
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        frozen = False
        until(server, "doctor still says it", lambda: to_do(server) == "")

        (folder / "go").touch()
        assert server.outputs(running)["o0"] == "one"
        assert charged(server, running) == [], "an attempt was charged for the disk"

        if (kernel / "trigger_fs_error").exists():
            (kernel / "trigger_fs_error").write_text("1")  # what a broken sector does; nothing but a new mount ends it
            until(server, "doctor does not say it", lambda: "the database is away" in (said := to_do(server)) and "read-only" in said)
            assert refused(server, "/api/v1/projects", {"project": {"id": "r", "name": "p"}})[0] == 503
            assert refused(server, f"/api/v1/executions/flytesnacks/development/{running}")[0] == 200
    finally:
        if frozen:
            subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        server.end()
