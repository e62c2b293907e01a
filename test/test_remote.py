"""A program with FlyteRemote: execute, wait, sync, list, terminate, and values as Python has them."""

import datetime
import subprocess
import sys
import time
import urllib.request

import basics
import importable
import pandas as pd
import pytest
from conftest import PIPELINES
from flytekit.exceptions.user import FlyteInvalidInputException
from flytekit.models import execution as execution_models
from flytekit.models import literals
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile


@pytest.fixture(scope="module")
def registered(server):
    server.pyflyte("register", "--version", "r1", "basics.py")
    return server.remote()


def start(remote, name: str, **inputs):
    return remote.execute(remote.fetch_workflow(name=name, version="r1"), inputs=inputs)


def run(remote, name: str, **inputs):
    return remote.execute(remote.fetch_workflow(name=name, version="r1"), inputs=inputs, wait=True)


def nodes_of(remote, execution) -> dict[str, int]:
    return {n.id.node_id: n.closure.phase for n in remote.client.list_node_executions(execution.id, limit=100)[0]}


def wait_until_running(remote, execution, node: str = "n0") -> None:
    deadline = time.monotonic() + 60
    while nodes_of(remote, execution).get(node) != 2:
        assert time.monotonic() < deadline, f"{node} does not run"
        time.sleep(0.02)


def test_nodes_come_with_their_inputs_and_outputs(registered):
    execution = run(registered, "basics.chain", x=3)
    assert execution.inputs.get("x", int) == 3 and execution.inputs.get("y", int) == 4
    registered.sync_execution(execution, sync_nodes=True)
    nodes = execution.node_executions
    assert {"n0", "n1", "start-node"} <= set(nodes) <= {"n0", "n1", "start-node", "end-node"}
    assert nodes["n0"].inputs.get("a", int) == 3 and nodes["n0"].inputs.get("b", int) == 4
    assert nodes["n0"].outputs.get("o0", int) == 7
    assert nodes["n1"].outputs.get("o0", int) == 14
    assert [t.closure.phase for t in nodes["n1"].task_executions] == [3]
    assert execution.closure.duration > datetime.timedelta(0)


def test_sub_workflows_show_their_nodes(registered):
    execution = run(registered, "basics.nested", x=5)
    assert execution.outputs.get("o0", int) == 20 and execution.outputs.get("o1", int) == 12
    inside = execution.node_executions["n0"]
    assert inside.metadata.is_parent_node
    children = inside.subworkflow_node_executions
    assert {"n0-0-n0", "n0-0-n1"} <= set(children)
    assert children["n0-0-n1"].inputs.get("x", int) == 10 and children["n0-0-n1"].outputs.get("o0", int) == 20


def test_sub_workflows_in_sub_workflows_show_their_nodes(registered):
    execution = run(registered, "basics.nested_twice", x=5)
    assert execution.outputs.get("o0", int) == 32
    outer = execution.node_executions["n0"].subworkflow_node_executions
    inner = outer["n0-0-n0"].subworkflow_node_executions
    assert inner["n0-0-n0-0-n1"].outputs.get("o0", int) == 20


def test_outputs_are_reached_into(registered):
    execution = run(registered, "basics.attributes", depth=6)
    assert execution.outputs.get("o0", int) == 7
    assert execution.outputs.get("o1", str) == "b"
    assert execution.outputs.get("o2", int) == 9


def test_files_folders_and_frames_come_down(registered, tmp_path):
    execution = run(registered, "basics.files", text="good morning")
    with open(execution.outputs.get("o0", FlyteFile)) as stream:
        assert stream.read() == "good morning"
    frame = execution.outputs.get("o2", pd.DataFrame)
    assert list(frame["n"]) == [1, 2, 3] and list(frame["s"]) == ["x", "y", "z"]
    assert execution.outputs.get("o3", str) == "good morning ['one.txt', 'two.txt'] 6 ['x', 'y', 'z']"
    registered.download(execution.outputs, str(tmp_path / "down"))
    downloaded = {p.name: p.read_bytes() for p in (tmp_path / "down").rglob("*") if p.is_file()}
    assert b"good morning" in downloaded.values() and {b"one", b"two"} <= set(downloaded.values())


def test_frames_and_files_go_up(registered, tmp_path):
    """Outputs of an execution are inputs of the next one, and so are files on the author's disk."""
    first = run(registered, "basics.files", text="a")
    task = registered.fetch_task(name="basics.read_files", version="r1")
    local = tmp_path / "local"
    local.mkdir()
    for name in ("three", "four"):
        (local / f"{name}.txt").write_text(name)
    values = {"file": first.outputs.get("o0", FlyteFile), "folder": FlyteDirectory(str(local)), "frame": pd.DataFrame({"n": [40, 2], "s": ["p", "q"]})}
    execution = registered.execute(task, inputs=values, wait=True)
    assert execution.outputs.get("o0", str) == "a ['four.txt', 'three.txt'] 42 ['p', 'q']"


def test_the_traceback_of_a_task_reaches_the_client(registered):
    execution = run(registered, "basics.failing", reason="no bananas")
    assert execution.closure.phase == 6
    error = execution.error
    assert "ValueError: cannot go on: no bananas" in error.message
    assert "basics.py" in error.message and 'raise ValueError(f"cannot go on: {reason}")' in error.message
    assert error.kind == 1  # the user's
    assert "n1" not in execution.node_executions
    assert [t.error.message for t in execution.node_executions["n0"].task_executions] == [error.message]


def create(remote, name: str, values: dict) -> None:
    """Create an execution without flytekit's own checks of the inputs."""
    plan = remote.fetch_launch_plan(name=name, version="r1")
    metadata = execution_models.ExecutionMetadata(execution_models.ExecutionMetadata.ExecutionMode.MANUAL, "me", 0)
    remote.client.create_execution("flytesnacks", "development", "", execution_models.ExecutionSpec(plan.id, metadata, disable_all=True), literals.LiteralMap(values))


def primitive(**value) -> literals.Literal:
    return literals.Literal(literals.Scalar(literals.Primitive(**value)))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, ["x"]),
        ({"x": primitive(integer=1), "nonsense": primitive(integer=2)}, ["nonsense"]),
        ({"x": primitive(string_value="four")}, ["x", "string"]),
        ({"y": primitive(string_value="four"), "other": primitive(integer=2)}, ["x", "y", "other"]),
    ],
    ids=["missing", "unknown", "of another type", "all mistakes at once"],
)
def test_wrong_inputs_are_refused_when_the_execution_is_created(registered, inputs, says):
    before = {e.id.name for e in registered.recent_executions(limit=100)}
    with pytest.raises(FlyteInvalidInputException) as caught:
        create(registered, "basics.chain", inputs)
    message = caught.value.__cause__.details()
    for name in says:
        assert f"{name}" in message
    assert {e.id.name for e in registered.recent_executions(limit=100)} == before


def test_a_workflow_is_executed_by_object(server):
    """The code of the task is in its environment, so no code is shipped."""
    execution = server.remote().execute(importable.ninefold, inputs={"x": 5}, version="by-object", wait=True)
    assert execution.outputs.get("o0", int) == 45


def test_a_workflow_is_executed_by_object_with_its_code(server):
    remote = server.remote()
    from flytekit.configuration import ImageConfig

    remote.register_script(basics.chain, version="shipped", source_path=str(PIPELINES), module_name="basics", image_config=ImageConfig.auto_default_image())
    execution = remote.execute(basics.chain, inputs={"x": 1}, version="shipped", wait=True)
    assert execution.outputs.get("o0", int) == 10


def test_a_workflow_whose_code_is_nowhere_says_so(server):
    execution = server.remote().execute(basics.chain, inputs={"x": 1}, version="not shipped", wait=True)
    assert execution.closure.phase == 6
    assert "No module named 'basics'" in execution.error.message


def test_a_running_execution_is_terminated(registered, tmp_path):
    execution = start(registered, "basics.staying", folder=str(tmp_path))
    wait_until_running(registered, execution)
    registered.terminate(execution, "changed my mind")
    execution = registered.wait(execution)
    assert execution.closure.phase == 7
    assert "changed my mind" in execution.closure.abort_metadata.cause
    assert nodes_of(registered, execution)["n0"] == 6


def test_recent_executions_are_listed(registered):
    execution = run(registered, "basics.chain", x=8)
    recent = registered.recent_executions(limit=20)
    assert execution.id.name in [e.id.name for e in recent]
    created = [e.closure.created_at for e in recent]
    assert created == sorted(created, reverse=True)


def test_a_task_knows_who_it_is(registered):
    execution = run(registered, "basics.who_am_i")
    assert execution.outputs.get("o0", str) == f"flytesnacks development {execution.id.name} basics.ids"


def test_a_deck_opens_as_a_page(registered):
    execution = run(registered, "basics.drawing", title="Sunset")
    link = registered.client.get_download_artifact_signed_url("n0", "flytesnacks", "development", execution.id.name)
    with urllib.request.urlopen(link.signed_url[0], timeout=30) as answer:
        assert answer.headers.get_content_type() == "text/html"
        assert "<h1>Sunset</h1>" in answer.read().decode()
    assert "<h1>Sunset</h1>" in registered.get(f"flyte://v1/flytesnacks/development/{execution.id.name}/n0/d").decode()


def test_values_have_locations_of_their_own(registered):
    execution = run(registered, "basics.chain", x=3)
    location = f"flyte://v1/flytesnacks/development/{execution.id.name}"
    assert registered.get(f"{location}/n0/i").get("a", int) == 3
    assert registered.get(f"{location}/n0/o").get("o0", int) == 7
    assert registered.get(f"{location}/n1/0/o").get("o0", int) == 14
    assert registered.get(f"{location}/n1/o/o0").scalar.primitive.integer == 14
    assert registered.get(f"{location}/n7/o") is None


def test_who_follows_many_executions_is_answered_at_once(registered, tmp_path):
    executions = [start(registered, "basics.staying", folder=str(tmp_path)) for _ in range(4)]
    try:
        begin = time.monotonic()
        for _ in range(3):
            for execution in executions:
                registered.sync_execution(execution)
                assert not execution.is_done
        took = time.monotonic() - begin
        assert took < 20, f"12 looks took {took:.0f} s: some were held"
    finally:
        (tmp_path / "leave").touch()
    for execution in executions:
        assert registered.wait(execution, poll_interval=datetime.timedelta(milliseconds=100)).closure.phase == 4


# Counts flytekit's calls, in a process of its own, because gRPC shares one connection between all clients in a process.
FOLLOW_ONE = """
import sys
from flytekit.configuration import Config, PlatformConfig
from flytekit.remote import FlyteRemote

remote = FlyteRemote(Config(platform=PlatformConfig(endpoint=sys.argv[1], insecure=True)), default_project="flytesnacks", default_domain="development")
looks, look = [], remote.client.get_execution
remote.client.get_execution = lambda id: looks.append(id) or look(id)
for seconds in (0.0, 2.0):
    del looks[:]
    execution = remote.execute(remote.fetch_workflow(name="basics.sleepy", version="r1"), inputs={"seconds": seconds}, wait=True)
    print(execution.outputs.get("o0", str), len(looks))
"""


def test_who_follows_one_execution_looks_once(server, registered):
    done = subprocess.run([sys.executable, "-c", FOLLOW_ONE, server.address], capture_output=True, text=True, timeout=120, env=server.client_environment())
    assert done.stdout.splitlines() == ["rested 2", "rested 2"], f"one look after the create, one that is held:\n{done.stdout}{done.stderr}"
