"""Two of everything: folders that are moved, ends that meet, stores that do not belong together."""

import datetime
import pathlib
import subprocess
import sys
import time

import grpc
from flyteidl.admin import execution_pb2
from flyteidl.core import execution_pb2 as core_execution

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import test_crash as crash  # noqa: E402
from test_trouble import status, until  # noqa: E402

from conftest import free_port  # noqa: E402


def test_an_acknowledged_termination_ends_in_aborted(own_server):
    """attack 7: the termination meets the commit of the last step"""
    client = crash.Client(own_server)
    plan = crash.register_sleeps(client, 0.05, 1)
    accepted = []
    for n in range(150):
        name = crash.create(client, plan)
        time.sleep(0.035 + 0.001 * (n % 20))
        try:
            client.stub.TerminateExecution(execution_pb2.ExecutionTerminateRequest(id=crash.execution_id(name), cause="enough"), timeout=30)
            accepted.append(name)
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.FAILED_PRECONDITION, e
    for name in accepted:
        phase = crash.wait_for(client, name).closure.phase
        assert phase == core_execution.WorkflowExecution.ABORTED, f"the termination of {name} was acknowledged and it is in phase {phase}"


def test_a_data_folder_that_is_moved_while_a_task_runs(own_server, tmp_path):
    """attack 9"""
    server = own_server
    folder = tmp_path / "run"
    folder.mkdir()
    name = server.run("trouble.py", "passing", "--token", "x", "--folder", str(folder))
    until(server, "it does not run", lambda: (folder / "runs").exists())
    server.stop()
    old, server.data, server.port = server.data, tmp_path / "elsewhere", free_port()
    old.rename(server.data)
    server.start()
    (folder / "go").touch()
    assert server.outputs(name)["o0"] == "x"
    charges = [a["charge"].get("budget", "NONE") for n in status(server, name)["nodes"] for a in n.get("attempts", []) if "charge" in a]
    assert "USER" not in charges, charges
    assert not old.exists(), sorted(p.name for p in old.rglob("*"))


def test_runs_of_one_name_in_two_domains_keep_their_files(server):
    """The name of an execution is its own in its domain only."""
    name = "nightly" + str(time.time_ns())
    content = {}
    for domain in ("development", "staging"):
        server.run("-d", domain, "--name", name, "named.py", "written", "--text", domain)
        remote = server.remote(domain=domain)
        remote.wait(remote.fetch_execution(name=name), timeout=datetime.timedelta(seconds=120))
    for domain in ("development", "staging"):
        outputs = server.remote(domain=domain).fetch_execution(name=name)
        content[domain] = pathlib.Path(server.remote(domain=domain).sync_execution(outputs).outputs["o0"].download()).read_text()
    assert content == {"development": "development", "staging": "staging"}


def refusal(server) -> str:
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0, "it starts"
    return done.stderr


def test_blobs_that_are_gone_and_a_log_that_is_gone_are_said_at_the_start(own_server):
    """attack 4, attack 15"""
    server = own_server
    client = crash.Client(server)
    crash.wait_for(client, crash.create(client, crash.register_sleeps(client, 0, 1)))
    server.stop()
    (server.data / "blob").rename(server.data / "away")
    said = refusal(server)
    assert "it is empty" in said and "if it was deleted on purpose" in said, said
    subprocess.run(["rm", "-r", str(server.data / "blob")], check=True)
    (server.data / "away").rename(server.data / "blob")
    server.start()
    crash.wait_for(client, crash.create(client, crash.register_sleeps(client, 0, 1)))
    age = server.data / "aloft.db.age"  # says how far the database has come, a few seconds later
    until(server, "it is not noted how far the database has come", lambda: age.exists() and age.read_text() == "2\n")
    server.kill()
    (server.data / "aloft.db-wal").unlink()
    said = refusal(server)
    assert "it is older than it was" in said and f"rm {age}" in said, said
    age.unlink()
    server.start()
