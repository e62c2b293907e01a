"""Attacks that failed, and that have no test closer to the code that they attack. One server for nearly all of them."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pytest
from flyteidl.admin import common_pb2, execution_pb2, task_pb2
from flyteidl.core import identifier_pb2, interface_pb2, tasks_pb2
from flyteidl.service import dataproxy_pb2, dataproxy_pb2_grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from test_crash import Client, create, execution_id, ident, register_sleeps, wait_for  # noqa: E402

from conftest import BINARY, Server  # noqa: E402

SUCCEEDED, FAILED = 4, 6


def register_shell(client: Client, name: str, script: str) -> identifier_pb2.Identifier:
    """A task that is a script, and a workflow that runs it."""
    task = ident(identifier_pb2.TASK, name)
    container = tasks_pb2.Container(command=["/bin/sh", "-c", script], image="none")
    template = tasks_pb2.TaskTemplate(id=task, type="raw-container", metadata=tasks_pb2.TaskMetadata(), interface=interface_pb2.TypedInterface(), container=container)
    client.call("CreateTask", task_pb2.TaskCreateRequest(id=task, spec=task_pb2.TaskSpec(template=template)), may_exist=True)
    return task


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("held") / "data").start()
    yield s
    s.end()


@pytest.fixture(scope="module")
def client(held):
    return Client(held)


def well(server: Server, client: Client) -> None:
    """The server runs an ordinary task, and finds nothing wrong with itself."""
    name = create(client, register_shell(client, "ordinary", "true"))
    assert wait_for(client, name, 60).closure.phase == SUCCEEDED
    assert int(json.loads(server.aloft("doctor", "-o", "json").stdout)["counts"].get("stuck", 0)) == 0


FIGHTS = {
    "removes its own folder": 'rm -rf "$PWD" "$(dirname {{.outputPrefix}})"; true',
    "closes its own folder": 'chmod 000 "$PWD" "$(dirname {{.outputPrefix}})"; true',
    "replaces its run folder by a link": 'rm -rf {{.outputPrefix}}; ln -s /etc {{.outputPrefix}}; true',
    "kills its supervisor": "kill -9 $PPID; sleep 0.5; : >{{.outputPrefix}}/outputs.pb",
    "kills its own group": "kill -9 0",
    "writes a lot": "head -c 200000000 /dev/zero",
    "forges messages": """exec {python} -c '
import glob, os, socket
for path in glob.glob("{data}/worker/sock*"):
    for forged in (b"", b"\\0" * 100000, bytes([255]) * 1000, b"POST / HTTP/1.1\\r\\n\\r\\n"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        try:
            s.sendall(forged)
        except OSError:
            pass
        s.close()
'""",
}
# A task that kills itself has failed; the other attacks have failed if the folders are as they were.
ENDS_WELL = {"kills its supervisor", "writes a lot", "forges messages"}


def test_what_a_task_does_to_its_own_place_is_its_own_affair(held, client):
    begun = {}
    for number, (what, script) in enumerate(FIGHTS.items()):
        script = script.replace("{python}", sys.executable).replace("{data}", str(held.data))
        begun[what] = create(client, register_shell(client, f"fights{number}", script))
    ended = {what: wait_for(client, name, 120).closure for what, name in begun.items()}
    wrong = {what: closure for what, closure in ended.items() if closure.phase not in (SUCCEEDED, FAILED) or what in ENDS_WELL and closure.phase != SUCCEEDED}
    assert wrong == {}
    assert ended["kills its own group"].phase == FAILED
    well(held, client)


def test_places_elsewhere_are_never_read(held):
    """Foreign locations are given to tasks as they are; the server itself opens none, at the request of none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        secret = f"http://127.0.0.1:{listener.getsockname()[1]}/secret"
        stub = dataproxy_pb2_grpc.DataProxyServiceStub(grpc.insecure_channel(held.address))
        places = ["file:///etc/passwd", "/etc/passwd", secret, "../../etc/passwd", "aloft://blob/../signing.key", "aloft://blob/%2e%2e/signing.key", "aloft://elsewhere/x", f"{held.data}/signing.key"]
        given = {}
        for place in places:
            for call, request in [
                (stub.CreateDownloadLocation, dataproxy_pb2.CreateDownloadLocationRequest(native_url=place)),
                (stub.CreateDownloadLink, dataproxy_pb2.CreateDownloadLinkRequest(artifact_type=dataproxy_pb2.ARTIFACT_TYPE_DECK, node_execution_id=identifier_pb2.NodeExecutionIdentifier(node_id=place, execution_id=execution_id("none")))),
                (stub.GetData, dataproxy_pb2.GetDataRequest(flyte_url=place)),
            ]:
                try:
                    answer = call(request, timeout=30)
                except grpc.RpcError as e:
                    assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED), e
                    continue
                # A link may be made of a legal name; there is no object behind it.
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(answer.signed_url, timeout=30)
                if refused.value.code not in (403, 404):
                    given[place] = refused.value.code
        assert given == {}
        with pytest.raises(TimeoutError):
            listener.accept()


def test_sql_in_filters_orders_and_tokens_is_text(held, client):
    well(held, client)
    for field, text in [
        ("filters", "eq(name,x' OR '1'='1)"),
        ("filters", "eq(name' OR 1=1 --,x)"),
        ("filters", "value_in(name,a;b');DROP TABLE executions;--)"),
        ("filters", "contains(name,%' UNION SELECT 1 --)"),
        ("token", "1; DROP TABLE executions"),
        ("token", "0 UNION SELECT * FROM executions"),
        ("sort_by", "name; DROP TABLE executions"),
        ("sort_by", "(SELECT 1)"),
    ]:
        request = common_pb2.ResourceListRequest(id=common_pb2.NamedEntityIdentifier(project="flytesnacks", domain="development"), limit=10)
        if field == "sort_by":
            request.sort_by.key = text
        else:
            setattr(request, field, text)
        try:
            assert not client.stub.ListExecutions(request, timeout=30).executions, text
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.INVALID_ARGUMENT, f"{text}: {e}"
    well(held, client)


def test_markup_in_a_run_is_shown_as_text(held, client):
    """The page has no script, and its policy would let none run."""
    marker = "<script>alert(1)</script>"
    name = create(client, register_shell(client, "markup", f"echo '{marker}' >&2; exit 3"))
    assert wait_for(client, name, 60).closure.phase == FAILED
    with held.get(f"/console/projects/flytesnacks/domains/development/executions/{name}", Accept="text/html") as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "&lt;script&gt;" in page and "<script" not in page
    assert policy.startswith("default-src 'none'") and "script-src" not in policy


def test_no_request_forges_a_line_of_the_log(held, client):
    forged = "time=2026-01-01T00:00:00Z level=ERROR msg=forged"
    name = create(client, register_shell(client, "forger", f"printf 'x\\n{forged}\\n' >&2; exit 3"))
    wait_for(client, name, 60)
    for path in ["/api/v1/executions/flytesnacks/development/" + urllib.parse.quote(f"x\n{forged}\n"), "/" + urllib.parse.quote(f"\n{forged}")]:
        with pytest.raises(urllib.error.HTTPError):
            held.get(path)
    with pytest.raises(grpc.RpcError):
        client.stub.TerminateExecution(execution_pb2.ExecutionTerminateRequest(id=execution_id(f"x\n{forged}"), cause=f"x\n{forged}"), timeout=30)
    assert [line for line in held.log.read_text().splitlines() if line.startswith(forged)] == []


def test_headers_without_end_are_refused(held, client):
    connection = http.client.HTTPConnection("127.0.0.1", held.port, timeout=30)
    try:
        connection.request("GET", "/api/v1/projects", headers={"X-Large": "x" * (4 << 20)})
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):  # the answer was sent and the connection closed while we still wrote
        status = 431
    assert status == 431
    well(held, client)


def test_of_fifty_who_create_one_name_one_wins(held, client):
    task = register_shell(client, "one-of-fifty", "true")
    spec = execution_pb2.ExecutionSpec(launch_plan=task, metadata=execution_pb2.ExecutionMetadata())

    def one(number: int) -> int:
        mine = execution_pb2.ExecutionSpec()
        mine.CopyFrom(spec)
        mine.annotations.values["number"] = str(number)
        try:
            client.stub.CreateExecution(execution_pb2.ExecutionCreateRequest(project="flytesnacks", domain="development", name="one-of-fifty", spec=mine), timeout=60)
            return number
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.ALREADY_EXISTS, e
            return -1

    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        winners = [n for n in threads.map(one, range(50)) if n >= 0]
    assert len(winners) == 1
    assert wait_for(client, "one-of-fifty", 60).spec.annotations.values["number"] == str(winners[0])


def test_six_more_servers_on_one_data_folder_are_refused_by_name(held, client):
    command = [BINARY, "serve", "--data-dir", str(held.data), "--listen", "127.0.0.1:0", "--python", sys.executable]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(6)]
    for other in others:
        said, _ = other.communicate(timeout=60)
        assert other.returncode != 0 and str(held.data) in said and "started for 127.0.0.1" in said, said
    well(held, client)


class Frugal(Server):
    """A server without HOME and TMPDIR, with 3 GB of addresses, files of at most 256 MB, and few descriptors."""

    def command(self) -> list[str]:
        return ["env", "-u", "HOME", "-u", "TMPDIR", "prlimit", "--as=3000000000", "--fsize=268435456", "--nofile=256", *super().command()]


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit")
def test_a_server_goes_on_without_what_can_be_made_again(tmp_path):
    """Caches of the data folder may be deleted or damaged; other damaged files are refused with a sentence that names them. The
    same with few resources."""
    server = Frugal(tmp_path / "data").start()
    client = Client(server)
    try:
        well(server, client)
        plan = register_sleeps(client, 3600, 1)
        asleep = create(client, plan)
        server.end()
        for name in ("bundle", "attempts", "worker", "claims"):
            if (server.data / name).is_dir():
                shutil.rmtree(server.data / name)
        server.start()
        well(server, client)
        assert client.call("GetExecution", execution_pb2.WorkflowExecutionGetRequest(id=execution_id(asleep))).closure.phase == 2
        server.end()
        for name in ("signing.key", "aloft.db"):
            path = server.data / name
            whole = path.read_bytes()
            path.write_bytes(os.urandom(len(whole)))
            server.launch()
            assert server.process.wait(60) != 0
            said = server.log.read_text().splitlines()[-1]
            assert str(path) in said, f"with a damaged {name}: {said}"
            path.write_bytes(whole)
        server.start()
        well(server, client)
    finally:
        server.end()
