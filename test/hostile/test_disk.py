"""The disk is full, in ways that are not bytes."""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from test_trouble import charged, launch, until  # noqa: E402

from conftest import Server  # noqa: E402


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
