"""Power goes off under the server, its worker and its tasks: no acknowledged execution is lost, no finished node runs again.

ALOFT_TEST_KILLS=200 kills the server 200 times; the seed is printed and can be given by ALOFT_TEST_SEED.
"""

import collections
import json
import os
import pathlib
import random
import signal
import statistics
import threading
import time
import uuid

import grpc
import pytest
from conftest import Server
from flyteidl.admin import execution_pb2, launch_plan_pb2, node_execution_pb2, task_execution_pb2, task_pb2, workflow_pb2
from flyteidl.core import execution_pb2 as core_execution
from flyteidl.core import identifier_pb2, interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl.core import workflow_pb2 as core_workflow
from flyteidl.service import admin_pb2_grpc
from google.protobuf.duration_pb2 import Duration

KILLS = int(os.environ.get("ALOFT_TEST_KILLS", "40"))
PART_KILLS = KILLS // 4
SEED = int(os.environ.get("ALOFT_TEST_SEED", str(random.randrange(1 << 30))))
IN_FLIGHT = 50
DONE = (4, 6, 7, 8)
SUCCEEDED = 4
NODE_SUCCEEDED = core_execution.NodeExecution.SUCCEEDED
MODULE = "counted"
FIRST, SECOND = f"{MODULE}.first", f"{MODULE}.second"


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
    """Returns once the server has acknowledged the execution. The client chooses its name, so repeating the call is harmless."""
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


def task_of(folder: pathlib.Path) -> int:
    """The process of the last task that left its mark."""
    return int((folder / "marks").read_text().splitlines()[-1].split()[3])


def until_gone(pid: int, zombie: bool = False, seconds: float = 30) -> None:
    """zombie: a zombie counts as gone, because there is no process to reap it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if zombie and state == "Z":
            return
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.02)


def marks(folder: pathlib.Path) -> collections.Counter:
    path = folder / "marks"
    lines = path.read_text().splitlines() if path.exists() else []
    return collections.Counter(tuple(line.split()[:2]) for line in lines)


class Load:
    """Keeps executions in flight: three quarters are chains of sleeps that the engine runs, the others are Python tasks."""

    def __init__(self, server: Server, folder: pathlib.Path, plans: dict[str, identifier_pb2.Identifier]):
        self.server, self.folder, self.plans = server, folder, plans
        self.created: dict[str, int | None] = {}  # the x of a Python run by the name of its execution
        self.unfinished: set[str] = set()
        self.lock, self.stopped, self.errors = threading.Lock(), threading.Event(), []
        self.threads = [threading.Thread(target=self.run, args=(target, random.Random(SEED + i))) for i, target in enumerate((self.create, self.create, self.look))]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for t in self.threads:
            t.join()
        assert not self.errors, self.errors

    def run(self, target, chance):
        client = Client(self.server)
        try:
            while not self.stopped.is_set():
                target(client, chance)
        except BaseException as e:
            self.errors.append(e)

    def create(self, client, chance):
        if self.in_flight() >= IN_FLIGHT:
            time.sleep(0.01)
            return
        x, python = chance.randrange(1000), chance.random() < 0.25
        if python:
            inputs = {"x": literal(x), "folder": literal(str(self.folder)), "seconds": literal(chance.uniform(0, 0.8))}
            name = create(client, self.plans["python"], inputs)
        else:
            name = create(client, self.plans["sleeps"])
        with self.lock:
            self.created[name] = x if python else None
            self.unfinished.add(name)

    def look(self, client, chance):
        with self.lock:
            some = chance.sample(sorted(self.unfinished), min(10, len(self.unfinished)))
        for name in some:
            if client.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name))).closure.phase in DONE:
                with self.lock:
                    self.unfinished.discard(name)
        time.sleep(0.01)

    def in_flight(self) -> int:
        with self.lock:
            return len(self.unfinished)


SLEEPS = 5  # nodes in a chain


@pytest.fixture
def load(own_server, tmp_path):
    own_server.pyflyte("register", "--version", "crash", "counted.py")
    plans = {"sleeps": register_sleeps(Client(own_server), 0.3, SLEEPS), "python": ident(identifier_pb2.LAUNCH_PLAN, f"{MODULE}.counted")}
    return Load(own_server, tmp_path, plans)


def counts(server: Server) -> dict[str, str]:
    """The server's counts of its executions; a count of 0 is missing."""
    return json.loads(server.aloft("doctor", "-o", "json", check=False).stdout)["counts"]  # the command fails if a service is away


def no_run_is_stuck(server: Server) -> None:
    assert int(counts(server).get("stuck", 0)) == 0


def ends_as_if_undisturbed(load: Load, most_attempts: int = 1) -> None:
    """Every acknowledged execution has succeeded, with every node once; no task began more often than it has attempts."""
    client, replaced = Client(load.server), 0
    for name in load.created:
        execution = wait_for(client, name)
        assert execution.closure.phase == SUCCEEDED, f"{name}: {execution.closure}"
    no_run_is_stuck(load.server)
    begun = marks(load.folder)
    for name, x in load.created.items():
        nodes = client.call("ListNodeExecutions", node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=execution_id(name), limit=100)).node_executions
        nodes = {n.id.node_id: n for n in nodes if n.id.node_id not in ("start-node", "end-node")}
        assert sorted(nodes) == [f"n{i}" for i in range(SLEEPS if x is None else 2)], name
        assert all(n.closure.phase == NODE_SUCCEEDED for n in nodes.values()), f"{name}: {nodes}"
        if x is None:
            continue
        data = client.call("GetExecutionData", execution_pb2.WorkflowExecutionGetDataRequest(id=execution_id(name)))
        assert data.full_outputs.literals["o0"].scalar.primitive.integer == 10 * (x + 1), name
        for task in (FIRST, SECOND):
            began, attempts = begun[(name, task)], attempts_of(client, name, task)
            assert began == 1, f"{name} {task} began {began} times in {attempts} attempts"
            assert attempts <= most_attempts, f"{name} {task} has {attempts} attempts"
            replaced += attempts - 1
    python = sum(x is not None for x in load.created.values())
    assert python and python < len(load.created), "both kinds were in flight"
    print(f"{len(load.created)} executions ended as if undisturbed, {python} of them in Python; {replaced} lost attempts")


def test_kill_9_of_the_server_loses_nothing_and_repeats_nothing(load):
    """Killing the server ends no task: every task has one attempt that began once, before or after any number of servers."""
    server, chance, in_flight, ready = load.server, random.Random(SEED), [], []
    print(f"seed {SEED}, {KILLS} kills")
    with load:
        for kill in range(KILLS):
            time.sleep(chance.uniform(0.2, 2))
            in_flight.append(load.in_flight())
            server.kill()
            if chance.random() < 0.1:  # kill the next server, too, while it starts
                server.launch()
                time.sleep(chance.uniform(0, 0.2))
                server.kill()
            begin = time.monotonic()
            server.start()
            ready.append(time.monotonic() - begin)
            no_run_is_stuck(server)
    print(f"in flight at a kill: {min(in_flight)} to {max(in_flight)}, median {statistics.median(in_flight)}; ready again after {statistics.median(ready):.3f} s, at most {max(ready):.3f} s")
    assert statistics.median(in_flight) >= 0.8 * IN_FLIGHT
    ends_as_if_undisturbed(load)


def attempts_of(client: Client, name: str, task: str) -> int:
    nodes = client.call("ListNodeExecutions", node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=execution_id(name), limit=100))
    count = 0
    for node in nodes.node_executions:
        tasks = client.call("ListTaskExecutions", task_execution_pb2.TaskExecutionListRequest(node_execution_id=node.id, limit=100))
        count += sum(t.id.task_id.name == task for t in tasks.task_executions)
    return count


def processes(data: pathlib.Path, what: bytes) -> dict[int, int]:
    """Processes of this data folder whose command line contains what, each with its parent."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line, stat = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
            except OSError:
                continue
            if what in line and str(data).encode() in line:
                found[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def supervisors(data: pathlib.Path) -> list[int]:
    return list(processes(data, b"\0worker\0"))


def warm_workers(data: pathlib.Path) -> list[int]:
    """The supervisor's children, whose children are the tasks."""
    return [pid for pid, parent in processes(data, b"/worker/zygote-").items() if parent in supervisors(data)]


def kill_9(pids: list[int]) -> None:
    assert pids, "there is nobody to kill"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def counted(own_server, tmp_path):
    """A started Python execution and its client."""
    own_server.pyflyte("register", "--version", "crash", "counted.py")
    client = Client(own_server)
    plan = ident(identifier_pb2.LAUNCH_PLAN, f"{MODULE}.counted")

    def begin(seconds: float) -> str:
        name = create(client, plan, {"x": literal(1), "folder": literal(str(tmp_path)), "seconds": literal(float(seconds))})
        deadline = time.monotonic() + 60
        while not marks(tmp_path)[(name, FIRST)]:
            assert time.monotonic() < deadline, own_server.log.read_text()
            time.sleep(0.02)
        return name

    return own_server, client, begin


def ends_after(counted, name: str, folder: pathlib.Path, attempts: int = 1) -> None:
    """The run succeeds, and its first task took this many attempts, each of which began once."""
    server, client, _ = counted
    execution = wait_for(client, name, 60)
    assert execution.closure.phase == SUCCEEDED, execution.closure
    assert marks(folder)[(name, FIRST)] == attempts
    assert attempts_of(client, name, FIRST) == attempts
    assert marks(folder)[(name, SECOND)] == attempts_of(client, name, SECOND) == 1
    no_run_is_stuck(server)


def test_a_running_task_is_adopted_by_the_next_server(counted, tmp_path):
    server, _, begin = counted
    name = begin(3)
    server.kill()
    server.start()
    ends_after(counted, name, tmp_path)


def test_a_task_that_ends_while_there_is_no_server_has_ended(counted, tmp_path):
    server, _, begin = counted
    name, task = begin(0.5), task_of(tmp_path)
    server.kill()
    until_gone(task)
    server.start()
    ends_after(counted, name, tmp_path)


def test_kill_9_of_the_supervisor_ends_no_run(counted, tmp_path):
    server, _, begin = counted
    name = begin(2)
    kill_9(supervisors(server.data))
    ends_after(counted, name, tmp_path)


def test_kill_9_of_supervisor_and_server_together_ends_no_run(counted, tmp_path):
    server, _, begin = counted
    name = begin(2)
    kill_9(supervisors(server.data))
    server.kill()
    server.start()
    ends_after(counted, name, tmp_path)


def test_a_task_that_ends_while_there_is_neither_supervisor_nor_server_has_ended(counted, tmp_path):
    server, _, begin = counted
    name, task = begin(0.5), task_of(tmp_path)
    kill_9(supervisors(server.data))
    server.kill()
    until_gone(task)
    server.start()
    ends_after(counted, name, tmp_path)


def test_kill_9_of_the_warm_worker_ends_no_run(counted, tmp_path):
    server, _, begin = counted
    name = begin(2)
    kill_9(warm_workers(server.data))
    ends_after(counted, name, tmp_path)


def test_a_supervisor_that_hangs_for_a_while_delays_and_ends_nothing(counted, tmp_path):
    """The server is killed and ready again meanwhile."""
    server, client, begin = counted
    name, hanging = begin(0.5), supervisors(server.data)
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    until_gone(task_of(tmp_path), zombie=True)
    server.kill()
    server.start()
    assert client.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name))).closure.phase not in DONE
    for pid in hanging:
        os.kill(pid, signal.SIGCONT)
    ends_after(counted, name, tmp_path)


def test_kill_9_of_a_task_process_costs_one_attempt(counted, tmp_path):
    """SIGKILL from outside is a failure of the system: the attempt is replaced."""
    _, _, begin = counted
    name = begin(3)
    os.kill(task_of(tmp_path), signal.SIGKILL)
    ends_after(counted, name, tmp_path, attempts=2)


def test_kill_9_of_everything_at_once_costs_one_attempt(counted, tmp_path):
    server, _, begin = counted
    name = begin(3)
    kill_9([*supervisors(server.data), *warm_workers(server.data), task_of(tmp_path), server.process.pid])
    server.kill()
    server.start()
    ends_after(counted, name, tmp_path, attempts=2)


def test_random_kills_of_all_parts_under_load_lose_nothing(load):
    """A task that is between its claim and its fork when the supervisor dies is a lost attempt; it began once all the same."""
    server, chance, killed = load.server, random.Random(SEED), collections.Counter()
    print(f"seed {SEED}, {PART_KILLS} kills")
    with load:
        while killed.total() < PART_KILLS:
            begun = marks(load.folder).total()
            while marks(load.folder).total() < begun + 2:  # tasks run again
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1))
            part = chance.choice(("supervisor", "warm worker", "supervisor and server"))
            pids = warm_workers(server.data) if part == "warm worker" else supervisors(server.data)
            if not pids:
                continue  # the supervisor is just replacing this process
            kill_9(pids)
            killed[part] += 1
            if part == "supervisor and server":
                server.kill()
                server.start()
            no_run_is_stuck(server)
    print(dict(killed))
    ends_as_if_undisturbed(load, most_attempts=4)  # the first, and three that replace lost ones: the budget


def test_the_server_is_ready_at_once_with_ten_thousand_finished_executions(own_server):
    """How long it takes is printed; that it does not depend on what has finished is shown by the engine's tests."""
    client = Client(own_server)
    plan = register_sleeps(client, 0, 1)

    def create_some():
        mine = Client(own_server)
        for _ in range(625):
            create(mine, plan)

    threads = [threading.Thread(target=create_some) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    deadline = time.monotonic() + 300
    while int(counts(own_server).get("running", 0)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert int(counts(own_server)["executions"]) == 10_000
    own_server.kill()
    begin = time.monotonic()
    own_server.start()
    print(f"ready after {time.monotonic() - begin:.3f} s")
