"""A person at a terminal: aloft get, status, logs, terminate, doctor, demo."""

import json
import os
import re
import subprocess
import sys

from conftest import BINARY


def test_status_logs_and_get_show_a_run(server):
    name = server.run("basics.py", "nested", "--x", "21")
    server.ended(name)
    status = server.aloft("status", name).stdout
    assert "SUCCEEDED" in status.splitlines()[0] and "basics.nested" in status
    assert "├─ doubled_twice" in status or "├─ basics.doubled_twice" in status
    assert "double" in status
    tree = json.loads(server.aloft("status", name, "-o", "json").stdout)
    assert {"n0-0-n0", "n0-0-n1"} <= {n["id"] for n in tree["nodes"]}
    starts = {a["mode"] for n in tree["nodes"] for a in n.get("attempts", ())}
    assert starts and starts <= {"warm", "cold"}
    assert re.search(r"attempt 1  SUCCEEDED  .*  (warm|cold) start", server.aloft("status", name, "--verbose").stdout)
    logs = server.aloft("logs", name).stdout
    assert "n0-0-n0 | doubling 21" in logs and "n0-0-n1 | doubling 42" in logs
    assert server.aloft("logs", name, "n0-0-n0").stdout == "doubling 21\n"
    assert server.aloft("logs", name, "n0-0-n0", "--raw").stdout == "\ndoubling 21\n"  # flytekit begins every task with an empty line
    assert name in server.aloft("get", "executions").stdout
    assert "basics.nested" in server.aloft("get", "workflows").stdout
    assert "basics.double" in server.aloft("get", "tasks").stdout
    assert "basics.nested" in server.aloft("get", "launch-plans").stdout
    assert "o0 = 84" in server.aloft("get", "execution", name).stdout


def test_status_follow_tells_of_a_failure_with_its_exit_code(server):
    name = server.run("basics.py", "failing", "--reason", "rain")
    done = server.aloft("status", name, "--follow", check=False)
    assert done.returncode == 3
    assert "cannot go on: rain" in done.stdout


def test_logs_are_followed_live(server, tmp_path):
    name = server.run("basics.py", "talking", "--folder", str(tmp_path))
    with subprocess.Popen([BINARY, "logs", name, "--follow", "--server", server.address], stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout.readline() == "n0 | so far so good\n"
        (tmp_path / "heard").touch()  # only now does the task go on
        assert logs.stdout.read() == "n0 | goodbye\n"
    assert logs.returncode == 0


def test_terminate_says_what_it_does(server, tmp_path):
    name = server.run("basics.py", "staying", "--folder", str(tmp_path))
    assert "terminating" in server.aloft("terminate", name, "--cause", "enough").stdout
    done = server.aloft("status", name, "--follow", check=False)
    assert done.returncode == 3 and "ABORTED" in done.stdout
    again = server.aloft("terminate", name, check=False)
    assert again.returncode == 1 and again.stderr


def test_mistakes_are_answered_with_a_way_out(server):
    name = server.run("basics.py", "nested", "--x", "21")
    server.ended(name)
    assert server.aloft("logs", name, "n0-0-n0", "--attempt", "1").stdout == "doubling 21\n"
    for node in (["n0-0-n0"], []):
        fourth = server.aloft("logs", name, *node, "--attempt", "4", check=False)
        assert fourth.returncode == 1 and "attempt 4" in fourth.stderr and "had up to 1" in fourth.stderr
    missing = server.aloft("status", "nosuchexecution", check=False)
    assert missing.returncode == 1 and "nosuchexecution" in missing.stderr
    wrong = server.aloft("get", "executions", "--phase", "sleeping", check=False)
    assert wrong.returncode == 2 and "succeeded" in wrong.stderr


def test_doctor_finds_nothing_to_do(server):
    done = server.aloft("doctor")
    assert "TO DO" not in done.stdout and "no security boundary" in done.stdout


def test_the_demo_ends_with_the_score(tmp_path):
    """Without a terminal, `aloft demo` ends its server at once."""
    command = [BINARY, "demo", "--python", sys.executable, "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path, stdin=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if not k.startswith("FLYTE")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'best = {"name":"[a-z ]+","accuracy":0\.9\d+', done.stdout.split("The best model:")[1]), done.stdout
