"""Tasks that leave pipes, links and devices where the executor reads files, and processes that outlive their attempt."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

from flytekit import Resources, task, workflow


def folder() -> str:
    """Where this attempt's outputs.pb is looked for."""
    return sys.argv[sys.argv.index("--output-prefix") + 1]


def put(what: str, path: str) -> None:
    if os.path.lexists(path):
        os.remove(path)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        os.chdir(os.path.dirname(path))
        socket.socket(socket.AF_UNIX).bind(os.path.basename(path))
    elif what == "loop":
        os.symlink(os.path.basename(path), path)
    elif what == "zero":
        os.symlink("/dev/zero", path)
    elif what == "passwd":
        os.symlink("/etc/passwd", path)
    elif what == "folder":
        os.mkdir(path)
    elif what == "monster":
        with open(path, "wb") as file:
            file.truncate(4 << 40)


@task
def leave(what: str, name: str, code: int) -> int:
    put(what, os.path.join(folder(), name))
    os._exit(code)
    return 0  # flytekit wants an output


@workflow
def leaves(what: str, name: str, code: int) -> int:
    return leave(what=what, name=name, code=code)


@task
def one() -> int:
    return 1


@workflow
def ones() -> int:
    return one()


def daemons(marker: str) -> None:
    """Four processes, none of which has this session, this parent or these variables."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(["/bin/sleep", marker], env={"PATH": "/usr/bin:/bin"}, start_new_session=True, **quiet)
    subprocess.Popen(["/bin/sh", "-c", f"(setsid env -i /bin/sleep {marker} &) & exit 0"], env={}, **quiet).wait()
    subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM HUP; setsid env -i /bin/sh -c 'trap \"\" TERM; /bin/sleep {marker} & wait' &"], **quiet).wait()
    if (first := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["/bin/sleep", marker], {})
        os._exit(0)
    os.waitpid(first, 0)
    while subprocess.run(["pgrep", "-fc", f"^/bin/sleep {marker}$"], capture_output=True, text=True).stdout.strip() != "4":
        time.sleep(0.01)
    with open(os.path.join(folder(), marker), "w"):
        pass  # the test finds it below the run's folder


def lingering(marker: str, end: str) -> int:
    daemons(marker)
    if end == "failure":
        raise ValueError("as asked")
    if end != "success":
        time.sleep(1000)
    return 1


@task
def warm(marker: str, end: str) -> int:
    return lingering(marker, end)


@task(environment={"PYTHONHASHSEED": "0"})  # honoured only by a fresh interpreter
def cold(marker: str, end: str) -> int:
    return lingering(marker, end)


@task(timeout=timedelta(seconds=3))
def late(marker: str, end: str) -> int:
    return lingering(marker, end)


@workflow
def warms(marker: str, end: str) -> int:
    return warm(marker=marker, end=end)


@workflow
def colds(marker: str, end: str) -> int:
    return cold(marker=marker, end=end)


@workflow
def lates(marker: str, end: str) -> int:
    return late(marker=marker, end=end)


def eat(n: int) -> int:
    memory = bytearray(n)
    time.sleep(2)
    return len(memory)


@task(limits=Resources(mem="160Mi"))
def pool() -> int:
    with multiprocessing.get_context("fork").Pool(4) as workers:
        return sum(workers.map(eat, [64 << 20] * 4))


@workflow
def pools() -> int:
    return pool()


@task(limits=Resources(mem="100Mi"), environment={"PYTHONHASHSEED": "0"})
def shell() -> int:
    return subprocess.run(["/bin/sh", "-c", "tail -n 1 /dev/zero; exit 0"]).returncode


@workflow
def shells() -> int:
    return shell()
