"""Records a release: a data folder, and where asked for a database, with runs of every kind, as that release leaves them.

    python test/record.py FOLDER                 with the binary that ALOFT_TEST_BINARY names
    python test/record.py FOLDER postgres://…    records in this database (empty) instead of SQLite

First it makes runs that end in all ways in which a run can end. Then some runs are left in flight, a recovery job is paused, and the
server, its supervisor and its tasks are killed. The Go tests that use the records say how to pack them: engine/recorded_journal_test.go,
server/recorded_folder_test.go. Takes about a minute. FOLDER and the interpreter should have neutral paths, which are recorded, too.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from conftest import Server
from flyteidl.admin import execution_pb2
from flyteidl.core import identifier_pb2
from google.protobuf.wrappers_pb2 import BoolValue
from test_crash import Client, execution_id, ident, literal, register_sleeps

VERSION = "recorded"
SUCCEEDED, FAILED, ABORTED = 4, 6, 7
FOR_EVER = "876000h"


class Recorded(Server):
    flags: list[str] = []

    def command(self) -> list[str]:
        return [*super().command(), *self.flags]

    def tasks_end(self) -> None:
        """Kill the supervisor and its tasks: neither the server nor this process, whose command lines name the data folder, too."""
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), self.process.pid):
                try:
                    line, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                    if b"record.py" not in line and str(self.data).encode() in line + environ:
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    pass


def plan(name: str) -> identifier_pb2.Identifier:
    return identifier_pb2.Identifier(resource_type=identifier_pb2.LAUNCH_PLAN, project="flytesnacks", domain="development", name=f"released.{name}", version=VERSION)


class Recording:
    def __init__(self, server: Server, folder: pathlib.Path):
        self.server, self.folder, self.client = server, folder, Client(server)

    def create(self, name: str, launch_plan, inputs: dict | None = None, **spec) -> str:
        from flyteidl.core import literals_pb2

        if isinstance(launch_plan, str):
            launch_plan = plan(launch_plan)
        made = execution_pb2.ExecutionSpec(launch_plan=launch_plan, metadata=execution_pb2.ExecutionMetadata(), **spec)
        values = literals_pb2.LiteralMap(literals={k: literal(v) for k, v in (inputs or {}).items()})
        self.client.call("CreateExecution", execution_pb2.ExecutionCreateRequest(project="flytesnacks", domain="development", name=name, spec=made, inputs=values))
        return name

    def recover(self, of: str, name: str) -> str:
        self.client.call("RecoverExecution", execution_pb2.ExecutionRecoverRequest(id=execution_id(of), name=name))
        return name

    def phase(self, name: str) -> int:
        return self.client.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name))).closure.phase

    def ends(self, name: str, phase: int) -> None:
        until(f"{name} ends", lambda: self.phase(name) in (SUCCEEDED, FAILED, ABORTED, 8))
        assert self.phase(name) == phase, (name, self.phase(name))

    def run(self, name: str, launch_plan, phase: int = SUCCEEDED, **inputs) -> None:
        self.ends(self.create(name, launch_plan, inputs), phase)

    def says(self, name: str, text: str) -> None:
        until(f"{name} says {text}", lambda: text in self.server.aloft("status", name, "-o", "json").stdout)

    def told(self, name: str) -> pathlib.Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


def until(what: str, true, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def everything(r: Recording) -> None:
    """Runs that end, in each of the ways."""
    server = r.server
    for name in ("chain", "files", "retried", "timed", "starved"):
        r.run(name, name)
    r.run("exhausted", "exhausted", FAILED)
    r.run("cached", "cached", x=1)
    r.run("hit", "cached", x=1)
    r.ends(r.create("overwritten", "cached", {"x": 1}, overwrite_cache=True), SUCCEEDED)
    r.ends(r.create("wide", "wide", max_parallelism=3), SUCCEEDED)
    r.ends(r.create("interruptible", "chain", interruptible=BoolValue(value=True)), SUCCEEDED)
    for name in ("nested", "tidied", "after-all", "together"):
        r.run("broken-" + name, name.replace("-", "_"), FAILED)
    for name in ("nested", "after-all"):
        r.ends(r.recover("broken-" + name, "recovered-" + name), SUCCEEDED)
    r.run("by-hash", "by_hash", x=42)
    r.run("by-hash-hit", "by_hash", x=43, why="to see it again")
    r.run("saved", "saved", FAILED)
    r.ends(r.recover("saved", "recovered-saved"), SUCCEEDED)
    r.run("slept", register_sleeps(r.client, 0.2, 3))

    branches(r)

    # A run waits for a result that another run computes.
    folder = r.told("reservation")
    r.create("owner", "reserved_later", {"folder": str(folder)})
    until("it runs", (folder / "runs").exists)
    r.create("parked", "reserved_later", {"folder": str(folder)})
    r.says("parked", "owner")
    (folder / "go").touch()
    r.ends("owner", SUCCEEDED)
    r.ends("parked", SUCCEEDED)

    # Terminated while it runs, and while it waits for its time.
    folder = r.told("terminated")
    r.create("terminated", "told_to", {"folder": str(folder)})
    until("it runs", (folder / "runs").exists)
    r.create("terminated-waiting", "waits")
    r.says("terminated-waiting", "not_before")
    for name in ("terminated", "terminated-waiting"):
        r.client.call("TerminateExecution", execution_pb2.ExecutionTerminateRequest(id=execution_id(name), cause="not needed any more"))
        r.ends(name, ABORTED)

    # One attempt is lost; and two, after which there is only one more.
    r.create("lost", "lasts", {"attempts": 1})
    r.create("lost-twice", "lasts", {"attempts": 2})
    for attempt in range(2):
        for name in ("lost", "lost-twice")[attempt:]:
            until(f"{name} runs", lambda name=name: server.aloft("status", name, "-o", "json").stdout.count('"RUNNING"') >= 3)
        time.sleep(1)
        server.tasks_end()
        until("it is replaced", lambda: server.aloft("status", "lost-twice", "-o", "json").stdout.count('"attempt":') > attempt)
    r.ends("lost", SUCCEEDED)
    r.ends("lost-twice", SUCCEEDED)

    # The blob store is away when an attempt ends, and when others begin.
    folder = r.told("outage")
    r.create("outage", "told_to", {"folder": str(folder)})
    until("it runs", (folder / "runs").exists)
    blobs = server.data / "blob"
    blobs.rename(server.data / "away")
    blobs.touch()
    (folder / "go").touch()
    try:
        r.says("outage", "waiting for the blob store since")
        r.create("outage-begun", "told_to", {"folder": str(folder)})
        r.says("outage-begun", "waiting for the blob store since")
    finally:
        blobs.unlink()
        (server.data / "away").rename(blobs)
    r.ends("outage", SUCCEEDED)
    r.ends("outage-begun", SUCCEEDED)

    # The blob store is away when attempts are to be started: one failure is charged, the others are not.
    names = [r.create(f"outage-start-{i}", "read_later", {"x": i}) for i in range(2)]
    for name in names:
        r.says(name, "not_before")
    server.process.send_signal(signal.SIGSTOP)  # until all attempts are due, so that the server takes them together
    time.sleep(5)
    blobs.rename(server.data / "away")
    blobs.touch()
    server.process.send_signal(signal.SIGCONT)
    try:
        for name in names:
            r.says(name, "the attempt was not started")
    finally:
        blobs.unlink()
        (server.data / "away").rename(blobs)
    for name in names:
        r.ends(name, SUCCEEDED)


def branches(r: Recording) -> None:
    r.run("chosen", "chosen")
    r.run("chosen-less", "chosen", x=-5)
    r.run("chosen-none", "chosen", FAILED, x=-1)
    r.run("broken-chosen", "chosen", FAILED, x=2, cause="once")
    r.ends(r.recover("broken-chosen", "recovered-chosen"), SUCCEEDED)
    r.run("chosen-after-all", "chosen_after_all", FAILED)


def in_flight(r: Recording) -> None:
    """Runs that do not end. There is room for two tasks."""
    r.run("kept", "cached", x=40)
    r.run("broken-alone", "nested", FAILED)
    for i in range(2):
        r.run(f"broken-job-{i}", "nested", FAILED, x=10 + i)
    r.run("hopeless", "nested", FAILED, cause="hopeless")
    job = r.server.aloft("recover", "hopeless", "broken-job-0", "broken-job-1", "--canary", "2", check=False)
    assert "in the canary failed" in job.stdout, job.stdout + job.stderr
    r.create("waiting", "waits")
    r.says("waiting", "not_before")
    r.create("sleeping", register_sleeps(r.client, 180, 1))
    r.create("owning", "reserved")
    r.says("owning", "RUNNING")
    r.create("running", "lasts", {"x": 20})
    for name in ("owning", "running"):
        until(f"{name} runs", lambda: r.server.aloft("status", name, "-o", "json").stdout.count('"RUNNING"') >= 3)
    r.create("parking", "reserved")
    r.says("parking", "owning")
    r.create("queued", "chain", {"x": 30})
    r.says("queued", "no room")
    time.sleep(1)


def main() -> None:
    data, database = pathlib.Path(sys.argv[1]).absolute(), sys.argv[2:3]
    server = Recorded(data)
    server.log = data.parent / f"{data.name}.log"
    common = ["--retry-policies", "task=*.patient backoff=3m", "--retry-policies", "task=*.read_second error=USER backoff=4s", "--retry-policies", "error=OOMKilled memory=2", "--system-retries", "max=2 backoff=100ms max-backoff=1s"]
    common += ["--database", database[0]] if database else []
    server.flags = [*common, "--queue-timeout", "24h", "--execution-timeout", "24h"]
    folder = pathlib.Path(tempfile.mkdtemp(dir=data.parent))
    try:
        server.start()
        server.pyflyte("register", "--version", VERSION, "released.py")
        everything(Recording(server, folder))
        # A run that is recorded in flight has no time limits, which would have passed when it goes on.
        server.stop()
        server.flags = [*common, "--task-timeout", FOR_EVER, "--slots", "2"]
        server.start()
        in_flight(Recording(server, folder))
        server.kill()
    except BaseException:
        print(server.log.read_text()[-5000:], file=sys.stderr)
        raise
    finally:
        server.stop()
        server.tasks_end()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
