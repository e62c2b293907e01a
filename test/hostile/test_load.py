"""Attacks 2, 12 and 13: many hostile clients at once, and what that costs the others.

The short form (CI) asserts memory and that the others' calls succeed, and no time. The long form measures as well:

    ALOFT_HOSTILE_SECONDS=300 ALOFT_HOSTILE_CLIENTS=64 pytest test/hostile/test_load.py -s

and fails if the others' GetExecution takes more than 100 ms at the 99th percentile. To give the server one core, run it in
a cpu group of its own (ALOFT_TEST_BINARY may be a script that does).
"""

import gzip
import http.client
import itertools
import os
import socket
import statistics
import sys
import threading
import time

import pytest

import pathlib

from conftest import Server

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from test_crash import Client, create, execution_id, execution_pb2, register_sleeps, wait_for  # noqa: E402

SECONDS = float(os.environ.get("ALOFT_HOSTILE_SECONDS", "12"))
CLIENTS = int(os.environ.get("ALOFT_HOSTILE_CLIENTS", "24"))
LONG = "ALOFT_HOSTILE_SECONDS" in os.environ
MIB = 1 << 20
CREATE = "/flyteidl.service.AdminService/CreateExecution"
LIST = "/flyteidl.service.AdminService/ListExecutions"


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def literals(n: int) -> bytes:
    """An execution whose input is a collection of so many empty literals."""
    collection = field(2, b"\x0a\x00" * n)
    return field(5, field(1, field(1, b"x") + field(2, collection)))


def frame(message: bytes, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


PROTO, JSON = {"Content-Type": "application/proto"}, {"Content-Type": "application/json"}
GZIP = {**PROTO, "Content-Encoding": "gzip"}
WEB = {"Content-Type": "application/grpc-web+proto", "Grpc-Encoding": "gzip"}
EMPTY = gzip.compress(literals(15_000_000), 9)
BOMB = gzip.compress(field(3, b"n" * (60 * MIB)), 9)
OBJECTS = b'{"spec": {"x": [' + b"{}," * (19 * MIB) + b"{}]}}"

# What is sent, and the statuses that are right.
ATTACKS = {
    "15 million empty literals in 29 KB": (CREATE, GZIP, EMPTY, {429}),
    "the same over gRPC-Web": (CREATE, WEB, frame(EMPTY, True), {200}),  # the status is in the trailers
    "60 MB in 58 KB": (CREATE, GZIP, BOMB, {429}),
    "20 million objects": ("/api/v1/executions", JSON, OBJECTS, {429, 504}),
    "the same over Connect": (CREATE, JSON, OBJECTS, {429, 504}),
    "60 MB of text": (CREATE, PROTO, field(3, b"n" * (60 * MIB)), {400, 429, 504}),
    "500,000 tags": (CREATE, PROTO, field(1, b"flytesnacks") + field(2, b"development") + field(4, field(19, b"t") * 500_000), {400, 429, 504}),
    "100,000 rows": (LIST, JSON, b'{"id": {"project": "flytesnacks", "domain": "development"}, "limit": 100000}', {200, 429}),
    "a filter without a hit": (LIST, JSON, b'{"id": {"project": "flytesnacks", "domain": "development"}, "limit": 100, "filters": "contains(abort_cause,x)"}', {200, 429}),
}


def post(server: Server, path: str, headers: dict, body: bytes) -> tuple[int, bytes]:
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        c.request("POST", path, body, headers)
        answer = c.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""  # refused while it was still being sent
    finally:
        c.close()


def stop_in_the_middle(server: Server) -> None:
    """Send 57 of 64 MB and then nothing, until the server has had enough."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        try:
            s.sendall(f"POST {CREATE} HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/proto\r\nContent-Length: {64 * MIB}\r\n\r\n".encode())
            for _ in range(57):
                s.sendall(bytes(MIB))
            s.recv(4096)
        except OSError:
            pass


def peak(server: Server) -> int:
    """What the server has had of memory at most, in MiB."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_clients_stop_nobody_and_fill_nothing(own_server: Server):
    """Attacks 2, 12, 13: on the release before, one of these requests alone took 7 GB."""
    client = Client(own_server)
    plan = register_sleeps(client, 0.2, 3)
    runs = [create(client, plan) for _ in range(5)]
    over, wrong, answered = threading.Event(), [], dict.fromkeys(ATTACKS, 0)
    kinds = itertools.cycle([*ATTACKS, None, None])

    def attack(kind: str | None) -> None:
        while not over.is_set():
            if kind is None:
                stop_in_the_middle(own_server)
                continue
            path, headers, body, right = ATTACKS[kind]
            status, text = post(own_server, path, headers, body)
            if status and status not in right:
                wrong.append(f"{kind}: {status} {text[:300]}")
                return
            answered[kind] += 1

    hostile = [threading.Thread(target=attack, args=(next(kinds),), daemon=True) for _ in range(CLIENTS)]
    for thread in hostile:
        thread.start()
    took, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        for name in runs[-5:]:
            began = time.monotonic()
            client.stub.GetExecution(execution_pb2.WorkflowExecutionGetRequest(id=execution_id(name)), timeout=60)
            took.append(time.monotonic() - began)
            time.sleep(0.01)
        runs.append(create(client, plan))
    over.set()
    for name in runs:
        wait_for(client, name)
    for thread in hostile:  # each gets an answer to what it has sent
        thread.join(120)
    assert own_server.process.poll() is None, f"the server has died:\n{own_server.log.read_text()[-2000:]}"
    memory = peak(own_server)
    p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
    print(f"\nserver at most {memory} MiB; {len(took)} GetExecution: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms; {len(runs)} runs ended; answered {answered}")
    assert not wrong, wrong
    assert memory <= 1024, f"the server had {memory} MiB"
    assert not LONG or p99 <= 0.1, f"GetExecution took {p99 * 1000:.0f} ms at the 99th percentile"
