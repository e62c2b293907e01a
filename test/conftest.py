"""A real server for each test that asks for one, and the real client beside it."""

import datetime
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

HERE = pathlib.Path(__file__).parent
PIPELINES = HERE / "pipelines"
BINARY = os.environ.get("ALOFT_TEST_BINARY", str(HERE.parent / "bin" / "aloft"))
EXECUTION = re.compile(r"/console/projects/([\w-]+)/domains/([\w-]+)/executions/([a-z0-9-]+)")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pytest_sessionfinish(session):
    """In CI, a hostile test that is skipped for another than a listed reason fails the run."""
    listed = (HERE / "hostile" / "README.md").read_text().split("## Skipped without")[1]
    for report in session.config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if os.environ.get("CI") and "hostile/" in report.nodeid and f"| {reason} |" not in listed:
            print(f"\n{report.nodeid} was skipped, for a reason that is not listed: {reason}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Server:
    """One `aloft serve` on a data folder; it can be killed, started again and moved."""

    def __init__(self, data: pathlib.Path, python: str = sys.executable, **environment: str):
        self.data, self.python, self.port, self.process, self.environment = data, python, free_port(), None, environment
        self.log = data.parent / f"{data.name}.log"

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def command(self) -> list[str]:
        return [BINARY, "serve", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}", "--python", self.python]

    def launch(self) -> None:
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env={**os.environ, **self.environment}, start_new_session=True)

    def start(self) -> "Server":
        self.launch()
        self.wait_until_ready()
        return self

    def wait_until_ready(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthcheck", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
                assert time.monotonic() < end, f"the server is not ready:\n{self.log.read_text()}"
                time.sleep(0.005)

    def wait_for_log(self, text: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert time.monotonic() < end, f"the log does not say {text!r}:\n{self.log.read_text()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server process alone, as if its power went off."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server does not end when it is asked to:\n{self.log.read_text()}")

    def end(self) -> None:
        """Stop the server and the supervisor of its tasks."""
        try:
            self.stop()
        finally:
            worker_ends(self.data)

    def client_environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("FLYTE", "ALOFT"))}
        return {**env, "FLYTE_PLATFORM_URL": self.address, "FLYTE_PLATFORM_INSECURE": "true", "NO_COLOR": "1", "COLUMNS": "400"}

    def pyflyte(self, *args: str, cwd: pathlib.Path = PIPELINES, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess:
        command = [str(pathlib.Path(sys.executable).parent / "pyflyte"), *args]
        done = subprocess.run(command, cwd=cwd, env=self.client_environment(), capture_output=True, text=True, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{' '.join(args)}:\n{done.stdout}\n{done.stderr}\nserver:\n{self.log.read_text()[-4000:]}"
        return done

    def run(self, *args: str, cwd: pathlib.Path = PIPELINES) -> str:
        """`pyflyte run --remote`; the execution's name."""
        return execution_name(self.pyflyte("run", "--remote", *args, cwd=cwd).stdout)

    def ended(self, name: str):
        """An execution with its nodes, once it has ended."""
        remote = self.remote()
        return remote.wait(remote.fetch_execution(name=name), timeout=120, poll_interval=datetime.timedelta(milliseconds=200))

    def outputs(self, name: str):
        return self.ended(name).outputs

    def get(self, path: str, **headers: str):
        """Any page or REST path of the server."""
        return urllib.request.urlopen(urllib.request.Request(f"http://{self.address}{path}", headers=headers), timeout=30)

    def aloft(self, *args: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess:
        done = subprocess.run([BINARY, *args, "--server", self.address], capture_output=True, text=True, timeout=timeout)
        if check:
            assert done.returncode == 0, f"aloft {' '.join(args)}:\n{done.stdout}\n{done.stderr}"
        return done

    def remote(self, project: str = "flytesnacks", domain: str = "development"):
        from flytekit.configuration import Config, PlatformConfig
        from flytekit.remote import FlyteRemote

        return FlyteRemote(Config(platform=PlatformConfig(endpoint=self.address, insecure=True)), default_project=project, default_domain=domain)


def worker_ends(data: pathlib.Path) -> None:
    """Kill all processes that still run for this data folder: the supervisor and its tasks."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(data).encode() in line or str(data).encode() in environ:
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    pass


def execution_name(output: str) -> str:
    """The name of the execution whose address pyflyte printed."""
    found = EXECUTION.search(output.replace("\n", ""))
    assert found, f"no address of an execution in:\n{output}"
    return found.group(3)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server, shared by all tests that do not kill, move or fill it."""
    s = Server(tmp_path_factory.mktemp("shared") / "data").start()
    yield s
    try:
        leaves_nothing_behind(s)
    finally:
        s.end()


def leaves_nothing_behind(s: Server) -> None:
    """After all tests: the server has logged no error of its own, no execution is stuck, no attempt's folder is left."""
    deadline = time.monotonic() + 30
    while left := [f.name for f in (s.data / "attempts").glob("*")]:
        assert time.monotonic() < deadline, f"left of attempts: {left}"
        time.sleep(0.05)
    errors = [line for line in s.log.read_text().splitlines() if "level=ERROR" in line or "level=WARN" in line]
    assert not errors, "\n".join(errors)
    counts = json.loads(s.aloft("doctor", "-o", "json").stdout)["counts"]
    assert int(counts.get("stuck", 0)) == 0, counts


@pytest.fixture
def own_server(tmp_path):
    """A server for a test that kills, moves or fills it."""
    s = Server(tmp_path / "data").start()
    yield s
    s.end()


@pytest.fixture(scope="session")
def remote(server):
    return server.remote()
