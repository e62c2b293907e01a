"""A program with FlyteRemote: execute, wait, sync, list, terminate, and values as Python has them."""

import datetime
import time

import pandas as pd
import pytest
from flytekit.exceptions.user import FlyteInvalidInputException
from flytekit.types.file import FlyteFile

from pipelines import basics


@pytest.fixture(scope="module")
def registered(server):
    server.pyflyte("register", "--version", "r1", "basics.py")
    return server.remote()


def run(remote, name: str, **inputs):
    return remote.execute(remote.fetch_workflow(name=name, version="r1"), inputs=inputs, wait=True)


def test_nodes_come_with_their_inputs_and_outputs(registered):
    execution = run(registered, "basics.chain", x=3)
    registered.sync_execution(execution, sync_nodes=True)
    nodes = execution.node_executions
    assert sorted(nodes) == ["end-node", "n0", "n1", "start-node"] or sorted(nodes) == ["n0", "n1", "start-node"]
    assert nodes["n0"].inputs.get("a", int) == 3 and nodes["n0"].inputs.get("b", int) == 4
    assert nodes["n0"].outputs.get("o0", int) == 7
    assert nodes["n1"].outputs.get("o0", int) == 14
    assert [t.closure.phase for t in nodes["n1"].task_executions] == [3]
    assert execution.closure.duration > datetime.timedelta(0)


def test_sub_workflows_show_their_nodes(registered):
    execution = run(registered, "basics.nested", x=5)
    assert execution.outputs.get("o0", int) == 20 and execution.outputs.get("o1", int) == 12
    registered.sync_execution(execution, sync_nodes=True)
    inside = execution.node_executions["n0"]
    assert inside.metadata.is_parent_node
    children = inside.underlying_node_executions or inside.subworkflow_node_executions
    ids = set(children) if isinstance(children, dict) else {c.id.node_id for c in children}
    assert {"n0-0-n0", "n0-0-n1"} <= ids


def test_outputs_are_reached_into(registered):
    execution = run(registered, "basics.attributes", depth=6)
    assert execution.outputs.get("o0", int) == 7
    assert execution.outputs.get("o1", str) == "b"
    assert execution.outputs.get("o2", int) == 9


def test_files_folders_and_frames_come_down(registered, tmp_path):
    execution = run(registered, "basics.files", text="good morning")
    file = execution.outputs.get("o0", FlyteFile)
    with open(file) as stream:
        assert stream.read() == "good morning"
    frame = execution.outputs.get("o2", pd.DataFrame)
    assert list(frame["n"]) == [1, 2, 3] and list(frame["s"]) == ["x", "y", "z"]
    assert execution.outputs.get("o3", str) == "good morning ['one.txt', 'two.txt'] 6 ['x', 'y', 'z']"
    registered.download(execution, str(tmp_path / "down"), recursive=False)


def test_the_traceback_of_a_task_reaches_the_client(registered):
    execution = run(registered, "basics.failing", reason="no bananas")
    assert execution.closure.phase == 6
    error = execution.error
    assert "ValueError: cannot go on: no bananas" in error.message or "cannot go on: no bananas" in error.message
    assert "basics.py" in error.message
    assert error.kind == 1  # the user's
    registered.sync_execution(execution, sync_nodes=True)
    assert "n1" not in execution.node_executions


@pytest.mark.parametrize(
    ("inputs", "says"),
    [({}, "x"), ({"x": 1, "nonsense": 2}, "nonsense")],
)
def test_wrong_inputs_are_refused_when_the_execution_is_created(registered, inputs, says):
    from flytekit.models import execution as execution_models
    from flytekit.models import literals

    plan = registered.fetch_launch_plan(name="basics.chain", version="r1")
    values = {k: literals.Literal(literals.Scalar(literals.Primitive(integer=v))) for k, v in inputs.items()}
    with pytest.raises(FlyteInvalidInputException, match=says):
        registered.client.create_execution(
            "flytesnacks", "development", "",
            execution_models.ExecutionSpec(plan.id, execution_models.ExecutionMetadata(execution_models.ExecutionMetadata.ExecutionMode.MANUAL, "me", 0), disable_all=True),
            literals.LiteralMap(values),
        )  # fmt: skip


def test_all_mistakes_are_named_at_once(registered):
    from flytekit.models import execution as execution_models
    from flytekit.models import literals

    plan = registered.fetch_launch_plan(name="basics.chain", version="r1")
    text = literals.Literal(literals.Scalar(literals.Primitive(string_value="four")))
    with pytest.raises(FlyteInvalidInputException) as caught:
        registered.client.create_execution(
            "flytesnacks", "development", "",
            execution_models.ExecutionSpec(plan.id, execution_models.ExecutionMetadata(execution_models.ExecutionMetadata.ExecutionMode.MANUAL, "me", 0), disable_all=True),
            literals.LiteralMap({"y": text, "other": text}),
        )  # fmt: skip
    message = str(caught.value)
    assert "other" in message and "y" in message and "x" in message


def test_a_local_workflow_is_executed_by_object(server):
    remote = server.remote()
    execution = remote.execute(basics.chain, inputs={"x": 1}, version="by-object", wait=False)
    assert execution.id.name
    remote.terminate(execution, "its code is not in the image")


def test_a_running_execution_is_terminated(registered):
    workflow = registered.fetch_workflow(name="basics.sleepy", version="r1")
    execution = registered.execute(workflow, inputs={"seconds": 600.0})
    deadline = time.monotonic() + 60
    while not any(n.closure.phase == 2 for n in _nodes(registered, execution)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    registered.terminate(execution, "changed my mind")
    execution = registered.wait(execution)
    assert execution.closure.phase == 7
    assert execution.closure.abort_metadata.cause == "changed my mind"
    phases = {n.id.node_id: n.closure.phase for n in _nodes(registered, execution)}
    assert phases["n0"] == 6


def _nodes(remote, execution):
    return remote.client.list_node_executions(execution.id, limit=100)[0]


def test_recent_executions_are_listed(registered):
    execution = run(registered, "basics.chain", x=8)
    assert execution.id.name in [e.id.name for e in registered.recent_executions(limit=20)]


def test_a_task_knows_who_it_is(registered):
    execution = run(registered, "basics.who_am_i")
    assert execution.outputs.get("o0", str) == f"flytesnacks development {execution.id.name} basics.ids"


def test_the_servers_secrets_do_not_reach_a_task(tmp_path):
    from conftest import Server

    server = Server(tmp_path / "data", ALOFT_TEST_SECRET="hidden").start()
    try:
        done = server.pyflyte("run", "--remote", "--wait", "basics.py", "look_at", "--name", "ALOFT_TEST_SECRET")
        from conftest import execution_name

        remote = server.remote()
        execution = remote.wait(remote.fetch_execution(name=execution_name(done.stdout)))
        assert execution.outputs.get("o0", str) == "unset"
    finally:
        server.end()
