"""Recovery with the real client: only what had not finished runs again, for one execution and for hundreds."""

import collections
import json
import pathlib
import subprocess
import sys
import time

import grpc
import pytest
from conftest import HERE, Server
from flyteidl.admin import common_pb2, execution_pb2, node_execution_pb2
from flyteidl.core import execution_pb2 as core_execution
from flyteidl.core import identifier_pb2, literals_pb2
from test_crash import Client, create, execution_id, literal, wait_for

SUCCEEDED, FAILED = 4, 6
RECOVERED_MODE = execution_pb2.ExecutionMetadata.RECOVERED


def plan(name: str) -> identifier_pb2.Identifier:
    return identifier_pb2.Identifier(resource_type=identifier_pb2.LAUNCH_PLAN, project="flytesnacks", domain="development", name=f"recovered.{name}", version="recover")


def inputs(folder: pathlib.Path, number: int, cause: str) -> dict:
    return {"number": literal(number), "folder": literal(str(folder)), "cause": literal(cause)}


def marks(folder: pathlib.Path) -> collections.Counter:
    """How often each task began, by number."""
    return collections.Counter(tuple(line.split()) for line in (folder / "marks").read_text().splitlines())


def fix(folder: pathlib.Path, cause: str) -> None:
    (folder / f"fixed-{cause}").touch()


def ended(client: Client, name: str, phase: int):
    execution = wait_for(client, name)
    assert execution.closure.phase == phase, execution.closure.error
    return execution


def phases(client: Client, name: str, parent: str = "") -> dict[str, int]:
    request = node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=execution_id(name), limit=1000, unique_parent_id=parent)
    return {n.id.node_id: n.closure.phase for n in client.call("ListNodeExecutions", request).node_executions if not n.id.node_id.endswith(("start-node", "end-node"))}


@pytest.fixture(scope="module")
def recovered(server):
    server.pyflyte("register", "--version", "recover", "recovered.py")
    return Client(server)


def test_a_run_that_ran_out_of_retries_is_recovered_from_what_failed(server, recovered, tmp_path):
    """A sub-workflow that had succeeded is taken over as a whole, one that failed is entered; recoveries follow one another."""
    fix(tmp_path, "none")
    name = create(recovered, plan("nested"), inputs(tmp_path, 1, "disk"))
    failed = ended(recovered, name, FAILED)
    assert "disk is broken" in failed.closure.error.message
    once = {("101", "first"): 1, ("101", "fragile"): 1, ("1", "first"): 1}
    assert marks(tmp_path) == {**once, ("1", "fragile"): 2}

    remote = server.remote()
    again = remote.client.recover_execution(remote.fetch_execution(name=name).id).name
    ended(recovered, again, FAILED)
    assert marks(tmp_path) == {**once, ("1", "fragile"): 4}

    fix(tmp_path, "disk")
    last = remote.client.recover_execution(remote.fetch_execution(name=again).id, "the-last").name
    assert last == "the-last"
    execution = ended(recovered, last, SUCCEEDED)
    assert (execution.spec.metadata.mode, execution.spec.metadata.reference_execution.name) == (RECOVERED_MODE, again)
    assert marks(tmp_path) == {**once, ("1", "fragile"): 5}
    Phase = core_execution.NodeExecution
    assert sorted(phases(recovered, last).values()) == sorted([Phase.RECOVERED, Phase.SUCCEEDED])
    (entered,) = [n for n, phase in phases(recovered, last).items() if phase == Phase.SUCCEEDED]
    assert sorted(phases(recovered, last, entered).values()) == sorted([Phase.RECOVERED, Phase.SUCCEEDED])
    outputs = server.outputs(last)
    assert (outputs.get("o0", int), outputs.get("o1", int)) == (1020, 20)

    status = server.aloft("status", last).stdout
    assert f"recovers {again}: 2 recovered" in status


def test_a_failed_branch_is_entered_by_its_recovery(server, recovered, tmp_path):
    """The branch that had succeeded is taken over as a whole; of the other one's arm only what failed runs again."""
    name = create(recovered, plan("branched"), inputs(tmp_path, 1, "disk"))
    ended(recovered, name, FAILED)
    before = {("1", "first"): 2, ("7", "first"): 1, ("1", "fragile"): 2}
    assert marks(tmp_path) == before
    fix(tmp_path, "disk")
    remote = server.remote()
    again = remote.client.recover_execution(remote.fetch_execution(name=name).id).name
    ended(recovered, again, SUCCEEDED)
    assert marks(tmp_path) == {**before, ("1", "fragile"): 3}
    top = phases(recovered, again)
    assert sorted(top.values()) == [3, 10, 10], top  # the task and the first branch are recovered, the second has run
    entered = next(node for node, phase in top.items() if phase == 3)
    assert list(phases(recovered, again, entered).values()) == [3]


def test_a_task_goes_on_from_the_checkpoint_of_the_run_that_is_recovered(server, recovered, tmp_path):
    name = create(recovered, plan("saving"), {"folder": literal(str(tmp_path))})
    for n in range(2):
        ended(recovered, name, FAILED)
        nodes = recovered.call("ListNodeExecutions", node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=execution_id(name), limit=10)).node_executions
        (uri,) = [n.closure.task_node_metadata.checkpoint_uri for n in nodes if n.closure.task_node_metadata.checkpoint_uri]
        assert name in uri
        name = server.remote().client.recover_execution(server.remote().fetch_execution(name=name).id).name
    ended(recovered, name, SUCCEEDED)
    assert server.outputs(name).get("o0", int) == 2
    assert marks(tmp_path) == {("0", "counting"): 1, ("1", "counting"): 1, ("2", "counting"): 1}


def test_what_cannot_be_recovered_is_refused(server, recovered, tmp_path):
    fix(tmp_path, "none")
    succeeded = create(recovered, plan("flat"), inputs(tmp_path, 1, "none"))
    ended(recovered, succeeded, SUCCEEDED)

    def recover(name: str) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as e:
            recovered.stub.RecoverExecution(execution_pb2.ExecutionRecoverRequest(id=execution_id(name)))
        return e.value.code()

    assert recover(succeeded) == grpc.StatusCode.FAILED_PRECONDITION
    assert recover("nobody") == grpc.StatusCode.NOT_FOUND
    refused = server.aloft("recover", succeeded, check=False)
    assert refused.returncode == 1 and "there is nothing to recover" in refused.stderr


CAUSES = ("disk", "net", "quota")
EACH = 200


def job(server: Server, name: str) -> dict:
    return json.loads(server.aloft("recover", "show", name, "-o", "json").stdout)


def until(server: Server, name: str, is_so, seconds: float = 180) -> dict:
    deadline = time.monotonic() + seconds
    while not is_so(found := job(server, name)):
        assert time.monotonic() < deadline, found["job"]
        time.sleep(0.05)
    return found


def recoveries(client: Client) -> collections.Counter:
    """How often each execution was recovered."""
    found, token = collections.Counter(), ""
    while True:
        page = client.call("ListExecutions", common_pb2.ResourceListRequest(
            id=common_pb2.NamedEntityIdentifier(project="flytesnacks", domain="development"), limit=1000, token=token, filters="eq(mode,5)"))  # fmt: skip
        found.update(e.spec.metadata.reference_execution.name for e in page.executions)
        token = page.token
        if not token:
            return found


def test_hundreds_of_failures_are_recovered_in_one_batch_although_the_server_is_killed(own_server, tmp_path):
    """600 executions fail of three causes; one cause is fixed. None is recovered twice."""
    own_server.pyflyte("register", "--version", "recover", "recovered.py")
    client = Client(own_server)
    names = [create(client, plan("flat"), inputs(tmp_path, number, CAUSES[number % 3])) for number in range(3 * EACH)]
    for name in names:
        ended(client, name, FAILED)
    fix(tmp_path, "disk")

    planned = json.loads(own_server.aloft("recover", "--phase", "failed", "--since", "1h", "--dry-run", "-o", "json").stdout)
    assert sorted(c["executions"] for c in planned["causes"]) == [EACH] * 3, planned["causes"]
    assert all((e["reused"], e["runs"]) == (1, 1) for e in planned["executions"])

    # The canary has all three causes, of which two are not fixed: the job pauses, and the other executions wait.
    paused = own_server.aloft("recover", "--phase", "failed", "--canary", "3", check=False)
    assert paused.returncode == 3 and "2 of 3 in the canary failed" in paused.stdout, paused.stdout
    assert sum(recoveries(client).values()) == 3

    begun = own_server.aloft("recover", "--error", "disk is broken", "--canary", "5", "--rate", "100/s", "--detach", "-o", "json")
    name = json.loads(begun.stdout)["name"]
    for succeeded in (20, 90):  # the server is killed twice, somewhere in the job
        until(own_server, name, lambda j: int(j["job"]["counts"].get("succeeded", 0)) >= succeeded)
        own_server.kill()
        own_server.start()
    done = until(own_server, name, lambda j: j["job"]["phase"] == "ENDED")["job"]["counts"]
    # The canary of the first job has recovered one execution.
    assert (int(done.get("succeeded", 0)), int(done.get("failed", 0)), int(done.get("skipped", 0))) == (EACH - 1, 0, 1)

    twice = {of: n for of, n in recoveries(client).items() if n > 1}
    assert not twice and sum(recoveries(client).values()) == EACH + 2
    seen = marks(tmp_path)
    for number in range(3 * EACH):
        assert seen[str(number), "first"] == 1, number
        if number % 3 == 0:
            assert seen[str(number), "brittle"] == 2, number
    assert sum(seen[str(n), "brittle"] - 1 for n in range(3 * EACH) if n % 3) == 2

    again = own_server.aloft("recover", "--error", "disk is broken")  # all executions of this cause are recovered
    assert f"0 failed, {EACH} skipped" in again.stdout, again.stdout


def test_the_example_recovers(own_server, tmp_path):
    own_server.pyflyte("register", "--version", "recover", "recovered.py")
    client = Client(own_server)
    ended(client, create(client, plan("flat"), inputs(tmp_path, 1, "disk")), FAILED)
    fix(tmp_path, "disk")
    done = subprocess.run([sys.executable, str(HERE.parent / "examples" / "recover.py"), f"http://{own_server.address}", "disk is broken"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "'succeeded': 1" in done.stdout, done.stdout + done.stderr
