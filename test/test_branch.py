"""Conditionals run as they do in Python, whatever they compare and wherever they stand."""

import datetime

import branches
import pytest


@pytest.fixture(scope="module")
def run_of(server):
    """All workflows of branches.py, running side by side; the execution of one when it has ended."""
    server.pyflyte("register", "--version", "b1", "branches.py")
    remote = server.remote()
    names = [*branches.expected, "branches.refused", "branches.fails"]
    started = {name: remote.execute(remote.fetch_launch_plan(name=name, version="b1"), inputs={}) for name in names}
    return lambda name: remote.wait(started[name], timeout=120, poll_interval=datetime.timedelta(milliseconds=100))


def outputs(execution, name):
    types = getattr(branches, name.split(".")[1]).python_interface.outputs
    values = tuple(execution.outputs.get(k, t) for k, t in types.items())
    return values if len(values) > 1 else values[0]


@pytest.mark.parametrize("name", branches.expected)
def test_a_conditional_takes_the_arm_that_it_takes_in_python(run_of, name):
    assert tuple_of(getattr(branches, name.split(".")[1])()) == tuple_of(branches.expected[name])
    execution = run_of(name)
    assert execution.closure.phase == 4, execution.error
    assert outputs(execution, name) == branches.expected[name]


def tuple_of(value):
    return tuple(value) if isinstance(value, tuple) else (value,)


def test_a_branch_shows_the_arm_that_ran(run_of):
    nodes = run_of("branches.elifs").node_executions
    assert set(nodes) == {"start-node", "end-node", "n0", "n1"}
    arms = nodes["n1"].subworkflow_node_executions
    assert {k: v.closure.phase for k, v in arms.items()} == {"n1-0-n1-n1": 3}
    assert arms["n1-0-n1-n1"].metadata.spec_node_id == "n1-n1"
    assert arms["n1-0-n1-n1"].inputs == {"x": 6} and nodes["n1"].outputs.get("o0", str) == "number 6"


def test_an_else_that_fails_ends_the_run_with_its_message(run_of):
    with pytest.raises(ValueError, match="three is too many"):
        branches.refused()
    execution = run_of("branches.refused")
    assert execution.closure.phase == 6
    assert execution.error.code == "UserProvidedError" and execution.error.message == "three is too many" and execution.error.kind == 1


def test_the_failure_of_an_arm_is_that_of_the_run(run_of):
    execution = run_of("branches.fails")
    assert execution.closure.phase == 6 and "I do not take 3" in execution.error.message
