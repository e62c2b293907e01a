"""A person at a terminal: aloft get, status, logs, terminate, doctor."""

import json
import threading

from conftest import execution_name


def test_status_logs_and_get_show_a_run(server):
    name = execution_name(server.pyflyte("run", "--remote", "--wait", "basics.py", "nested", "--x", "21").stdout)
    status = server.aloft("status", name).stdout
    assert "SUCCEEDED" in status.splitlines()[0] and "basics.nested" in status
    assert "├─ doubled_twice" in status or "├─ basics.doubled_twice" in status
    assert "double" in status
    tree = json.loads(server.aloft("status", name, "-o", "json").stdout)
    assert {"n0-0-n0", "n0-0-n1"} <= {n["id"] for n in tree["nodes"]}
    logs = server.aloft("logs", name).stdout
    assert "n0-0-n0 | doubling 21" in logs and "n0-0-n1 | doubling 42" in logs
    assert server.aloft("logs", name, "n0-0-n0").stdout == "doubling 21\n"
    assert name in server.aloft("get", "executions").stdout
    assert "basics.nested" in server.aloft("get", "workflows").stdout
    assert "basics.double" in server.aloft("get", "tasks").stdout
    assert "basics.nested" in server.aloft("get", "launch-plans").stdout
    assert "o0 = 84" in server.aloft("get", "execution", name).stdout


def test_status_follow_tells_of_a_failure_with_its_exit_code(server):
    name = execution_name(server.pyflyte("run", "--remote", "basics.py", "failing", "--reason", "rain").stdout)
    done = server.aloft("status", name, "--follow", check=False)
    assert done.returncode == 3
    assert "cannot go on: rain" in done.stdout


def test_logs_are_followed_live(server):
    name = execution_name(server.pyflyte("run", "--remote", "basics.py", "chain", "--x", "2").stdout)
    lines = []
    reader = threading.Thread(target=lambda: lines.append(server.aloft("logs", name, "--follow").stdout))
    reader.start()
    reader.join(60)
    assert "doubling 6" in lines[0]


def test_terminate_says_what_it_does(server):
    name = execution_name(server.pyflyte("run", "--remote", "basics.py", "sleepy", "--seconds", "600").stdout)
    assert "terminating" in server.aloft("terminate", name, "--cause", "enough").stdout
    done = server.aloft("status", name, "--follow", check=False)
    assert done.returncode == 3 and "ABORTED" in done.stdout
    again = server.aloft("terminate", name, check=False)
    assert again.returncode == 1 and again.stderr


def test_mistakes_are_answered_with_a_way_out(server):
    missing = server.aloft("status", "nosuchexecution", check=False)
    assert missing.returncode == 1 and "nosuchexecution" in missing.stderr
    wrong = server.aloft("get", "executions", "--phase", "sleeping", check=False)
    assert wrong.returncode == 2 and "succeeded" in wrong.stderr


def test_doctor_finds_nothing_to_do(server):
    done = server.aloft("doctor")
    assert "TO DO" not in done.stdout and "no security boundary" in done.stdout
