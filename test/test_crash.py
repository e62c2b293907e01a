"""Power goes off under the server, its worker and its tasks: nothing acknowledged is lost, nothing finished runs again.

ALOFT_TEST_KILLS=200 kills the server 200 times; the seed is printed and can be given by ALOFT_TEST_SEED.
"""

import collections
import os
import pathlib
import random
import signal
import threading
import time
import uuid

import grpc
import pytest
from conftest import Server
from flyteidl.admin import common_pb2, execution_pb2, launch_plan_pb2, node_execution_pb2, task_execution_pb2, task_pb2, workflow_pb2
from flyteidl.core import execution_pb2 as core_execution
from flyteidl.core import identifier_pb2, interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl.core import workflow_pb2 as core_workflow
from flyteidl.service import admin_pb2_grpc
from google.protobuf.duration_pb2 import Duration

KILLS = int(os.environ.get("ALOFT_TEST_KILLS", "40"))
SEED = int(os.environ.get("ALOFT_TEST_SEED", str(random.randrange(1 << 30))))
IN_FLIGHT = 50
DONE = (4, 6, 7, 8)
SUCCEEDED = 4


class Client:
    """Repeats calls that a dead server did not answer, as a careful client does."""

    def __init__(self, server: Server):
        self.server = server
        self.stub = admin_pb2_grpc.AdminServiceStub(grpc.insecure_channel(server.address, options=[("grpc.min_reconnect_backoff_ms", 50), ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]))

    def call(self, method: str, request, may_exist: bool = False):
        deadline = time.monotonic() + 120
        while True:
            try:
                return getattr(self.stub, method)(request, timeout=30)
            except grpc.RpcError as e:
                if e.code() == grpc.StatusCode.ALREADY_EXISTS and may_exist:
                    return None
                if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                assert time.monotonic() < deadline, f"{method}: {e}"
                time.sleep(0.05)


def ident(kind: int, name: str) -> identifier_pb2.Identifier:
    return identifier_pb2.Identifier(resource_type=kind, project="flytesnacks", domain="development", name=name, version="crash")


def register_sleeps(client: Client, seconds: float, nodes: int) -> identifier_pb2.Identifier:
    """A chain of nodes that the engine itself runs, each for a while."""
    task = ident(identifier_pb2.TASK, "crash.sleep")
    variables = interface_pb2.VariableMap(variables={"duration": interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.DURATION))})
    template = tasks_pb2.TaskTemplate(id=task, type="core-sleep", metadata=tasks_pb2.TaskMetadata(), interface=interface_pb2.TypedInterface(inputs=variables))
    client.call("CreateTask", task_pb2.TaskCreateRequest(id=task, spec=task_pb2.TaskSpec(template=template)), may_exist=True)
    workflow = ident(identifier_pb2.WORKFLOW, f"crash.sleeps{nodes}")
    duration = Duration()
    duration.FromMilliseconds(int(seconds * 1000))
    bound = [literals_pb2.Binding(var="duration", binding=literals_pb2.BindingData(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(duration=duration))))]
    graph = [
        core_workflow.Node(id=f"n{i}", metadata=core_workflow.NodeMetadata(name=f"n{i}"), inputs=bound, upstream_node_ids=[f"n{i - 1}"] if i else [], task_node=core_workflow.TaskNode(reference_id=task))
        for i in range(nodes)
    ]
    spec = workflow_pb2.WorkflowSpec(template=core_workflow.WorkflowTemplate(id=workflow, nodes=graph, interface=interface_pb2.TypedInterface(), metadata=core_workflow.WorkflowMetadata()))
    client.call("CreateWorkflow", workflow_pb2.WorkflowCreateRequest(id=workflow, spec=spec), may_exist=True)
    plan = ident(identifier_pb2.LAUNCH_PLAN, workflow.name)
    client.call("CreateLaunchPlan", launch_plan_pb2.LaunchPlanCreateRequest(id=plan, spec=launch_plan_pb2.LaunchPlanSpec(workflow_id=workflow)), may_exist=True)
    return plan


def create(client: Client, plan: identifier_pb2.Identifier, inputs: dict | None = None) -> str:
    """Returns once the server has acknowledged the execution; a name of ours makes repeating harmless."""
    name = "k" + uuid.uuid4().hex[:18]
    spec = execution_pb2.ExecutionSpec(launch_plan=plan, metadata=execution_pb2.ExecutionMetadata())
    client.call("CreateExecution", execution_pb2.ExecutionCreateRequest(project="flytesnacks", domain="development", name=name, spec=spec, inputs=literals_pb2.LiteralMap(literals=inputs or {})), may_exist=True)
    return name


def execution_id(name: str) -> identifier_pb2.WorkflowExecutionIdentifier:
    return identifier_pb2.WorkflowExecutionIdentifier(project="flytesnacks", domain="development", name=name)


def wait_for(client: Client, name: str, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while True:
        execution = client.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name)))
        if execution.closure.phase in DONE:
            return execution
        assert time.monotonic() < deadline, f"execution {name} is stuck in phase {core_execution.WorkflowExecution.Phase.Name(execution.closure.phase)}"
        time.sleep(0.05)


def literal(value) -> literals_pb2.Literal:
    kind = {int: "integer", float: "float_value", str: "string_value"}[type(value)]
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(**{kind: value})))


def marks(folder: pathlib.Path) -> collections.Counter:
    path = folder / "marks"
    lines = path.read_text().splitlines() if path.exists() else []
    return collections.Counter(tuple(line.split()[:2]) for line in lines)


def test_kill_9_of_the_server_loses_nothing_and_repeats_nothing(own_server, tmp_path):
    """Executions of the engine's own sleeps and of Python tasks are created all the time while the server is killed."""
    server, chance = own_server, random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    server.pyflyte("register", "--version", "crash", "counted.py")
    client = Client(server)
    sleeps = register_sleeps(client, 0.1, 5)
    python = ident(identifier_pb2.LAUNCH_PLAN, "counted.counted")
    created: dict[str, int | None] = {}
    unfinished: set[str] = set()
    lock, stop, errors = threading.Lock(), threading.Event(), []

    def keep_creating():
        mine = Client(server)
        own = random.Random(SEED + 1)
        while not stop.is_set():
            try:
                with lock:
                    waiting = sorted(unfinished)
                for name in own.sample(waiting, min(8, len(waiting))):
                    e = mine.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name)))
                    if e.closure.phase in DONE:
                        with lock:
                            unfinished.discard(name)
                if len(waiting) >= IN_FLIGHT:
                    time.sleep(0.02)
                    continue
                if own.random() < 0.25:
                    x = own.randrange(1000)
                    name = create(mine, python, {"x": literal(x), "folder": literal(str(tmp_path)), "seconds": literal(0.2)})
                else:
                    x, name = None, create(mine, sleeps)
                with lock:
                    created[name] = x
                    unfinished.add(name)
            except Exception as e:
                errors.append(e)
                return

    creator = threading.Thread(target=keep_creating)
    creator.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 2))
            server.kill()
            server.start()
    finally:
        stop.set()
        creator.join()
    assert not errors, errors
    assert len(created) > KILLS / 2
    for name, x in created.items():
        execution = wait_for(client, name)
        assert execution.closure.phase == SUCCEEDED, f"{name}: {execution.closure}"
        if x is not None:
            data = client.call("GetExecutionData", execution_pb2.WorkflowExecutionGetDataRequest(id=execution_id(name)))
            assert data.full_outputs.literals["o0"].scalar.primitive.integer == 10 * (x + 1)
    counts = marks(tmp_path)
    python_runs = [name for name, x in created.items() if x is not None]
    assert python_runs, "no Python task was in flight"
    for name in python_runs:
        for task in ("counted.first", "counted.second"):
            began = counts[(name, task)]
            attempts = attempts_of(client, name, task)
            assert began == 1 or began <= attempts, f"{name} {task}: began {began} times in {attempts} attempts"
            assert began >= 1
    repeated = [key for key, n in counts.items() if n > 1]
    print(f"{len(created)} executions, {len(python_runs)} of them in Python; {len(repeated)} tasks began more than once")
    assert not repeated, f"killing the server ends no task, so none begins twice: {repeated}"
    info = server.aloft("doctor", "-o", "json", check=False)
    assert '"stuck"' not in info.stdout or '"stuck": "0"' in info.stdout


def attempts_of(client: Client, name: str, task: str) -> int:
    nodes = client.call("ListNodeExecutions", node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=execution_id(name), limit=100))
    count = 0
    for node in nodes.node_executions:
        tasks = client.call("ListTaskExecutions", task_execution_pb2.TaskExecutionListRequest(node_execution_id=node.id, limit=100))
        count += sum(t.id.task_id.name == task for t in tasks.task_executions)
    return count


def processes(data: pathlib.Path, what: bytes) -> list[int]:
    """Processes of this data folder whose command line contains what."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if what in line and str(data).encode() in line:
                found.append(int(entry.name))
    return found


@pytest.fixture
def counted(own_server, tmp_path):
    """A started Python execution and its client."""
    own_server.pyflyte("register", "--version", "crash", "counted.py")
    client = Client(own_server)
    plan = ident(identifier_pb2.LAUNCH_PLAN, "counted.counted")

    def begin(seconds: float) -> str:
        name = create(client, plan, {"x": literal(1), "folder": literal(str(tmp_path)), "seconds": literal(seconds)})
        deadline = time.monotonic() + 60
        while not marks(tmp_path)[(name, "counted.first")]:
            assert time.monotonic() < deadline, own_server.log.read_text()
            time.sleep(0.02)
        return name

    return own_server, client, begin


def test_a_running_task_is_adopted_by_the_next_server(counted, tmp_path):
    server, client, begin = counted
    name = begin(3)
    server.kill()
    server.start()
    assert wait_for(client, name).closure.phase == SUCCEEDED
    assert marks(tmp_path)[(name, "counted.first")] == 1


def test_kill_9_of_the_supervisor_ends_no_run(counted, tmp_path):
    server, client, begin = counted
    name = begin(2)
    supervisors = processes(server.data, b"worker")
    assert supervisors
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    execution = wait_for(client, name)
    assert execution.closure.phase == SUCCEEDED
    assert marks(tmp_path)[(name, "counted.first")] == 1, "the task outlives its supervisor and is found again"


def test_kill_9_of_a_task_process_costs_one_attempt(counted, tmp_path):
    server, client, begin = counted
    name = begin(3)
    pid = next(int(line.split()[3]) for line in (tmp_path / "marks").read_text().splitlines() if line.startswith(name))
    os.kill(pid, signal.SIGKILL)
    execution = wait_for(client, name)
    assert execution.closure.phase == SUCCEEDED, "SIGKILL from outside is a failure of the system: the attempt is replaced"
    assert marks(tmp_path)[(name, "counted.first")] == 2
    assert attempts_of(client, name, "counted.first") == 2


def test_the_server_is_ready_at_once_with_ten_thousand_finished_executions(own_server):
    client = Client(own_server)
    plan = register_sleeps(client, 0, 1)
    threads = [threading.Thread(target=lambda: [create(Client(own_server), plan) for _ in range(625)]) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    deadline = time.monotonic() + 120
    while client.call("ListExecutions", common_pb2.ResourceListRequest(id=common_pb2.NamedEntityIdentifier(project="flytesnacks", domain="development"), limit=1, filters="value_in(phase,UNDEFINED;QUEUED;RUNNING)")).executions:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    own_server.kill()
    begin = time.monotonic()
    own_server.start()
    print(f"ready after {time.monotonic() - begin:.3f} s")
