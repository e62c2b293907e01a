"""Attacks 16 and 18: another user of the machine, and a task, look for what the server keeps. Both need root, which alone can be
another user; without it the modes alone are looked at."""

import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import textwrap

import pytest
from conftest import Server

root_only = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be another user")


def as_nobody(*command: str, cwd: str = "/tmp") -> subprocess.CompletedProcess:
    return subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """A server on a data folder that was made with mode 0777, in folders that all may enter, with a secret in its variables."""
    folder = tmp_path_factory.mktemp("open")
    for above in [folder, *folder.parents]:
        if above.stat().st_uid == os.geteuid() and above not in (pathlib.Path("/"), pathlib.Path("/tmp")):
            above.chmod(above.stat().st_mode | 0o755)
    data = folder / "data"
    (data / "blob").mkdir(parents=True)
    data.chmod(0o777)
    (data / "blob").chmod(0o777)
    umask = os.umask(0)
    try:
        s = Server(data, ALOFT_TEST_SECRET="geheim-vom-server").start()
    finally:
        os.umask(umask)
    s.run("basics.py", "add", "--a", "1", "--b", "2")
    yield s
    s.end()


def test_nothing_is_open_to_others_whatever_the_umask(open_server):
    """attack 18: a folder with 0755 stayed so, aloft.db, -wal and -shm were 0644, blob/ was 0755."""
    data = open_server.data
    for path in [data, *data.iterdir()]:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, f"{path} has mode {stat.S_IMODE(path.lstat().st_mode):04o}"
    for name in ["aloft.db", "aloft.db-wal", "signing.key", "worker/sock"]:
        assert stat.S_IMODE((data / name).stat().st_mode) & 0o077 == 0, name
    told = [line for line in open_server.log.read_text().splitlines() if "other users could read the data folder" in line]
    assert len(told) == 1


@root_only
def test_another_user_reads_nothing(open_server):
    """attack 18"""
    data = open_server.data
    assert as_nobody("ls", str(data.parent)).returncode == 0, "nobody does not even get to the data folder: the test shows nothing"
    found = as_nobody("find", str(data))
    assert found.stdout.splitlines() == [str(data)] and "Permission denied" in found.stderr
    for name in ["aloft.db", "signing.key", "server.id", "worker/log"]:
        assert as_nobody("cat", str(data / name)).stdout == ""


@root_only
def test_another_user_cannot_talk_to_the_supervisor(open_server):
    """attack 16: even where the modes of folder and socket would let him, both ends ask the kernel who is at the other."""
    data = open_server.data
    ask = textwrap.dedent("""
        import json, socket, sys
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        try:
            s.connect(sys.argv[1])
            s.sendall(json.dumps({"id": 1, "call": "hello", "hello": {"protocol": 1, "build": "x", "pid": 1, "boot_id": "x"}}).encode() + b"\\n")
            print("answer", s.recv(1000))
        except OSError as e:
            print("refused", e)
    """)
    path = str(data / "worker" / "sock")
    assert "refused" in as_nobody(sys.executable, "-c", ask, path).stdout
    modes = {p: p.stat().st_mode for p in [data, data / "worker", data / "worker" / "sock"]}
    try:
        for p in modes:
            p.chmod(0o777)
        said = as_nobody(sys.executable, "-S", "-c", ask, path)
        assert "refused" in said.stdout or "answer b''" in said.stdout, said
        ours = subprocess.run([sys.executable, "-S", "-c", ask, path], capture_output=True, text=True, timeout=60)
        assert "answer b'{" in ours.stdout, "the supervisor does not answer at all: the test shows nothing"
    finally:
        for p, mode in modes.items():
            p.chmod(stat.S_IMODE(mode))


@root_only
def test_a_socket_folder_of_another_user_is_not_used(tmp_path):
    """attack 16: the folder for short sockets was made by another user, with mode 0700, before the server came."""
    theirs = pathlib.Path("/tmp") / f"s{os.getpid()}"
    folder = theirs / f"aloft-{os.getuid()}"
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 65534, 65534)
    s = Server(tmp_path / ("long" * 30) / "data", XDG_RUNTIME_DIR=str(theirs))
    s.data.parent.mkdir()
    try:
        s.start()
        s.run("basics.py", "add", "--a", "1", "--b", "2")
        s.wait_for_log("belongs to user 65534")
        assert list(folder.iterdir()) == []
    finally:
        s.end()
        shutil.rmtree(theirs)


def test_a_task_does_not_see_the_variables_of_the_server(open_server):
    """attack 18: a task found the server's secrets by grep in /proc/*/environ, since it runs as the same user."""
    processes = [open_server.process.pid, *supervisors(open_server)]
    assert len(processes) == 2
    for pid in processes:
        try:
            environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            continue  # /proc shows it so if the server does not run as root
        assert b"geheim-vom-server" not in environ and b"PATH=" not in environ
        assert pathlib.Path(f"/proc/{pid}/mem").stat().st_uid == 0


def supervisors(server: Server) -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"worker" in line and str(server.data).encode() in line:
                found.append(int(entry.name))
    return found


class FewDescriptors(Server):
    def command(self) -> list[str]:
        return ["prlimit", "--nofile=64:64", *super().command()]


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit")
def test_idle_connections_do_not_keep_others_out(tmp_path):
    """attack 18: ulimit -n 64 and as many idle connections: new clients timed out, and the store could not open its files."""
    s = FewDescriptors(tmp_path / "data")
    try:
        s.start()
        idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(80)]
        with s.get("/api/v1/projects") as answer:
            assert answer.status == 200
        name = s.run("basics.py", "add", "--a", "1", "--b", "2")
        assert s.ended(name).outputs["o0"] == 3
        assert "too many files" not in s.log.read_text()
        for connection in idle:
            connection.close()
    finally:
        s.end()
