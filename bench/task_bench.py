"""Times trivial Python tasks: on a server, from its own records, and in the prototype of a warm worker, side by side.

usage: task_bench.py --addr 127.0.0.1:30080 --version V --runs 40

The server's figure is node created (ready: its inputs are there) to node succeeded (outputs committed), one execution at
a time. The prototype's is request sent to "done" of the same task through flytekit's own entry point (level 1: flytekit is
imported, the user's module is not), with nothing stored. Rounds of both alternate, so that a crowded machine slows both.
"""
import argparse, json, os, shutil, socket, statistics as st, subprocess, sys, tempfile, time, uuid
import grpc
from flyteidl.admin import common_pb2, execution_pb2, node_execution_pb2
from flyteidl.core import execution_pb2 as E, identifier_pb2 as I, literals_pb2 as L
from flyteidl.service import admin_pb2_grpc

ap = argparse.ArgumentParser()
ap.add_argument("--addr", required=True); ap.add_argument("--version", required=True)
ap.add_argument("--project", default="flytesnacks"); ap.add_argument("--domain", default="development")
ap.add_argument("--runs", type=int, default=40); ap.add_argument("--fans", type=int, default=3)
a = ap.parse_args()
HERE = os.path.dirname(os.path.abspath(__file__))
s = admin_pb2_grpc.AdminServiceStub(grpc.insecure_channel(a.addr))
DONE = (E.WorkflowExecution.SUCCEEDED, E.WorkflowExecution.FAILED, E.WorkflowExecution.ABORTED, E.WorkflowExecution.TIMED_OUT)


def run(name, poll=0.005):
    lp = I.Identifier(resource_type=I.LAUNCH_PLAN, project=a.project, domain=a.domain, name=name, version=a.version)
    spec = execution_pb2.ExecutionSpec(launch_plan=lp, metadata=execution_pb2.ExecutionMetadata(mode=execution_pb2.ExecutionMetadata.MANUAL))
    t = time.time()
    eid = s.CreateExecution(execution_pb2.ExecutionCreateRequest(
        project=a.project, domain=a.domain, name="t" + uuid.uuid4().hex[:18], spec=spec, inputs=L.LiteralMap())).id
    while True:
        e = s.GetExecution(execution_pb2.WorkflowExecutionGetRequest(id=eid))
        if e.closure.phase in DONE:
            break
        time.sleep(poll)
    wall = time.time() - t
    assert e.closure.phase == E.WorkflowExecution.SUCCEEDED, str(e.closure)[:2000]
    return eid, wall, e.closure.duration.ToTimedelta().total_seconds()


def seconds(ts):
    return ts.seconds + ts.nanos / 1e9


def server_round(n):
    out = []
    for _ in range(n):
        eid, wall, _ = run("trivial.one")
        nodes = s.ListNodeExecutions(node_execution_pb2.NodeExecutionListRequest(workflow_execution_id=eid, limit=10)).node_executions
        c = next(x.closure for x in nodes if x.id.node_id == "n0")
        # The last update of the record is the commit of its outputs.
        out.append((seconds(c.updated_at) - seconds(c.created_at), wall))
    return out


class Prototype:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="aloft-bench-")
        shutil.copy(os.path.join(HERE, "trivial", "trivial.py"), self.dir)
        with open(self.dir + "/inputs.pb", "wb") as f:
            f.write(L.LiteralMap(literals={"x": L.Literal(scalar=L.Scalar(primitive=L.Primitive(integer=1)))}).SerializeToString())
        self.path, self.n = self.dir + "/s", 0
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "zygote_prototype.py"), self.path], stdout=subprocess.PIPE)
        assert b"ready" in self.process.stdout.readline()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)
        self.file = self.sock.makefile("rb")

    def send(self):
        self.n += 1
        d = f"{self.dir}/{self.n}"
        os.mkdir(d)
        argv = ["pyflyte-execute", "--inputs", self.dir + "/inputs.pb", "--output-prefix", d, "--raw-output-data-prefix", d + "/raw",
                "--checkpoint-path", d + "/cp", "--prev-checkpoint", '""', "--resolver", "flytekit.core.python_auto_container.default_task_resolver",
                "--", "task-module", "trivial", "task-name", "add1"]
        self.sock.sendall(json.dumps({"id": self.n, "argv": argv, "env": {"PYTHONPATH": self.dir, "PATH": os.environ["PATH"], "HOME": self.dir},
                                      "cwd": self.dir, "stdout": d + "/stdout", "stderr": d + "/stderr"}).encode() + b"\n")
        return self.n

    def read(self):
        return json.loads(self.file.readline())

    def round(self, n):
        out = []
        for _ in range(n):
            t, want, took = time.perf_counter(), self.send(), None
            while True:
                m = self.read()
                if "done" in m and m["id"] == want:
                    took = time.perf_counter() - t
                    assert os.path.exists(f"{self.dir}/{want}/outputs.pb"), open(f"{self.dir}/{want}/stderr").read()
                if "exit" in m and m["id"] == want:
                    break
            out.append(took)
        return out

    def throughput(self, n, flight):
        t, sent, ended = time.perf_counter(), 0, 0
        while ended < n:
            while sent < n and sent - ended < flight:
                self.send()
                sent += 1
            ended += "exit" in self.read()
        return n / (time.perf_counter() - t)

    def close(self):
        self.sock.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir)


def med(x):
    return round(1000 * st.median(x), 1)


p = Prototype()
server_round(3), p.round(3)  # warm both
ours, walls, theirs = [], [], []
rounds = 4
for _ in range(rounds):
    theirs += p.round(a.runs // rounds)
    r = server_round(a.runs // rounds)
    ours += [x for x, _ in r]
    walls += [x for _, x in r]
load = os.getloadavg()[0]
fans, flights = [], []
for _ in range(a.fans):
    flights.append(p.throughput(100, 4))
    fans.append(200 / run("trivial.fan", poll=0.25)[2])  # by its record: asking often would cost what is measured
p.close()
print("RESULT " + json.dumps({
    "task_ms": med(ours), "task_min_ms": round(1000 * min(ours), 1), "task_p90_ms": round(1000 * sorted(ours)[int(len(ours) * 0.9)], 1),
    "execution_ms": med(walls), "prototype_ms": med(theirs), "prototype_min_ms": round(1000 * min(theirs), 1),
    "tasks_per_s": round(st.median(fans), 1), "prototype_tasks_per_s": round(st.median(flights), 1), "load1": load}), flush=True)
