"""Attack 1: a page that a user opens in a real browser tries to read from the server, and to run something on it. The page is
elsewhere (another host name), next door (another port of this machine), or here by a name of its own (DNS rebinding)."""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

PAGE = pathlib.Path(__file__).with_name("foreign_page.html").read_bytes()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium: make chromium")


class Elsewhere:
    """The server of the attacking page. It relays all other paths to the server under attack, as if its name had been rebound to
    the address of that server: for the browser both are one origin."""

    def __init__(self, attacked: int):
        self.reports = queue.Queue()
        reports = self.reports

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.startswith("/page.html"):
                    self.reply(200, {"Content-Type": "text/html"}, PAGE)
                else:
                    self.relay()

            def do_POST(self):
                if self.path == "/report":
                    reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                    self.reply(200, {}, b"")
                else:
                    self.relay()

            do_PUT = do_DELETE = do_OPTIONS = do_HEAD = do_POST

            def relay(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                connection = http.client.HTTPConnection("127.0.0.1", attacked, timeout=10)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self.reply(answer.status, dict(answer.getheaders()), answer.read())

            def reply(self, status, headers, body):
                self.send_response(status)
                for key, value in headers.items():
                    if key.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def elsewhere(server):
    e = Elsewhere(server.port)
    yield e
    e.server.shutdown()


@contextlib.contextmanager
def browser(address: str):
    """A browser that has just opened a page; what it yields lists the titles of its tabs."""
    assert CHROMIUM, "there is no chromium: make chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--remote-debugging-port=0",
            "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1", address,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

        def titles() -> list[str]:
            try:
                port = int((pathlib.Path(profile) / "DevToolsActivePort").read_text().split()[0])
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    return [tab["title"] for tab in json.load(answer) if tab["type"] == "page"]
            except (OSError, ValueError, IndexError):
                return []

        try:
            yield titles
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def attack(server, elsewhere, page_host: str, target: str, mark: str) -> dict[str, str | None]:
    """What a page could read that tries all requests; the caller looks up what the page could do."""
    query = urllib.parse.urlencode({"target": target, "mark": mark})
    with browser(f"http://{page_host}:{elsewhere.port}/page.html?{query}"):
        results = elsewhere.reports.get(timeout=120)
    assert len(results) > 40, f"the page has not tried all: {results}"
    return results


def done_by(server, mark: str) -> list[str]:
    """What a page has registered, by the names it gives."""
    with server.get("/api/v1/projects?limit=1000") as answer:
        found = [p["id"] for p in json.load(answer)["projects"]]
    with server.get("/api/v1/tasks/flytesnacks/development?limit=1000") as answer:
        found += [t["id"]["name"] for t in json.load(answer)["tasks"]]
    return [name for name in found if name.startswith(mark)]


@pytest.mark.parametrize(
    ("page_host", "target"),
    [
        ("evil.example", "http://localhost:{server}"),
        ("localhost", "http://localhost:{server}"),  # another port of this machine is another origin, though the same site
        ("evil.example", "http://127.0.0.1:{server}"),
        ("evil.example", "http://rebound.example:{server}"),  # a name that resolves to this machine
    ],
)
def test_a_page_elsewhere_reads_nothing_and_does_nothing(server, elsewhere, page_host, target):
    """attack 1: two lines in any page registered a task with a command and ran it, and read the outputs."""
    target = target.format(server=server.port)
    mark = f"p{abs(hash((page_host, target))) % 10**9}"
    results = attack(server, elsewhere, page_host, target, mark)
    assert {name: text for name, text in results.items() if text is not None} == {}
    assert done_by(server, mark) == []


def test_a_page_that_gives_this_machine_its_own_name_gets_nothing(server, elsewhere):
    """attack 1: Host was never checked, so a page whose name came to resolve to this machine was a page of the server's."""
    target = f"http://evil.example:{elsewhere.port}"
    results = attack(server, elsewhere, "evil.example", target, "rebound")
    read = {name: text for name, text in results.items() if text is not None}
    # For the browser it is one origin, so the page can read the answers, which must be refusals.
    served = {name: text for name, text in read.items() if not str(text).startswith(("421 ", "403 ")) or "not known as a name" not in str(text)}
    assert {name: text for name, text in served.items() if name.startswith(("fetch", "Connect ", "XML"))} == {}
    assert {name: text for name, text in read.items() if "flytesnacks" in str(text)} == {}
    assert done_by(server, "rebound") == []


def test_a_link_from_elsewhere_opens_a_run(server, elsewhere):
    """attack 1, the other side: a link to a run in a chat goes on working."""
    name = server.run("basics.py", "add", "--a", "1", "--b", "2")
    link = f"http://localhost:{server.port}/console/projects/flytesnacks/domains/development/executions/{name}"
    query = urllib.parse.urlencode({"target": "", "mark": "", "link": link})
    with browser(f"http://evil.example:{elsewhere.port}/page.html?{query}") as titles:
        deadline = time.monotonic() + 60
        while f"{name} · aloft" not in titles():
            assert time.monotonic() < deadline, f"the tabs show {titles()}"
            time.sleep(0.1)


def test_programs_are_let_in_as_before(server):
    """attack 1, the other side: programs send none of the headers by which a page is known."""
    address = f"http://localhost:{server.port}"
    for path, body, kind in [
        ("/api/v1/projects", b'{"project": {"id": "by-rest", "name": "x"}}', "application/json"),
        ("/flyteidl.service.AdminService/RegisterProject", b'{"project": {"id": "by-connect", "name": "x"}}', "application/json"),
    ]:
        request = urllib.request.Request(address + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
    remote = server.remote()
    assert {"by-rest", "by-connect"} <= {p.id for p in remote.client.list_projects_paginated(limit=1000)[0]}
    with pytest.raises(urllib.error.HTTPError) as refused:  # as curl sends -d without a type
        urllib.request.urlopen(urllib.request.Request(address + "/api/v1/projects", b"{}", {"Content-Type": "application/x-www-form-urlencoded"}), timeout=30)
    assert refused.value.code == 415 and "application/json" in json.load(refused.value)["message"]
