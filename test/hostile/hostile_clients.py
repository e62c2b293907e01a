"""Many hostile clients at once, as a process of their own on one core: attacks 2, 12 and 13.

    python hostile_clients.py PORT CLIENTS

They go on until stdin ends. What was answered, and what was answered wrongly, goes to stdout as one JSON object.
"""

import gzip
import http.client
import itertools
import json
import os
import socket
import sys
import threading

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


def post(port: int, path: str, headers: dict, body: bytes) -> tuple[int, bytes]:
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        c.request("POST", path, body, headers)
        answer = c.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""  # refused while it was still being sent
    finally:
        c.close()


def stop_in_the_middle(port: int) -> None:
    """Send 57 of 64 MB and then nothing, until the server has had enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        try:
            s.sendall(f"POST {CREATE} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/proto\r\nContent-Length: {64 * MIB}\r\n\r\n".encode())
            for _ in range(57):
                s.sendall(bytes(MIB))
            s.recv(4096)
        except OSError:
            pass


def main(port: int, clients: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    over, wrong, answered = threading.Event(), [], dict.fromkeys(ATTACKS, 0)
    kinds = itertools.cycle([*ATTACKS, None, None])

    def attack(kind: str | None) -> None:
        while not over.is_set():
            if kind is None:
                stop_in_the_middle(port)
                continue
            path, headers, body, right = ATTACKS[kind]
            status, text = post(port, path, headers, body)
            if status and status not in right:
                wrong.append(f"{kind}: {status} {text[:300]}")
                return
            answered[kind] += 1

    threads = [threading.Thread(target=attack, args=(next(kinds),), daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:  # each gets an answer to what it has sent
        thread.join(120)
    json.dump({"answered": answered, "wrong": wrong}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
