"""Every kind of value and of task goes through a run as flytekit means it; a kind that this release cannot run is refused."""

import datetime

import kinds
import later
import pytest
from conftest import PIPELINES
from flytekit.configuration import ImageConfig
from flytekit.exceptions.user import FlyteInvalidInputException


@pytest.fixture(scope="module")
def run_of(server):
    """All workflows of kinds.py, running side by side; the execution of one when it has ended."""
    server.pyflyte("register", "--version", "k1", "kinds.py")
    remote = server.remote()
    names = [*kinds.expected, "kinds.after_all", "kinds.tidied", "kinds.gone"]
    started = {name: remote.execute(remote.fetch_launch_plan(name=name, version="k1"), inputs={}) for name in names}
    return lambda name: remote.wait(started[name], timeout=120, poll_interval=datetime.timedelta(milliseconds=100))


@pytest.mark.parametrize("name", kinds.expected)
def test_values_come_out_as_flytekit_means_them(run_of, name):
    execution = run_of(name)
    assert execution.closure.phase == 4, execution.error
    types = getattr(kinds, name.split(".")[1]).python_interface.outputs
    assert {k: execution.outputs.get(k, t) for k, t in types.items()} == kinds.expected[name]


def test_each_attempt_is_shown(run_of):
    attempts = run_of("kinds.retried").node_executions["n0"].task_executions
    assert sorted((a.id.retry_attempt, a.closure.phase) for a in attempts) == [(0, 5), (1, 5), (2, 3)]


def test_the_rest_goes_on_after_a_failure_if_the_workflow_says_so(run_of):
    execution = run_of("kinds.after_all")
    assert execution.closure.phase == 6 and "the left one" in execution.error.message
    nodes = execution.node_executions
    assert nodes["n0"].closure.phase == 5 and nodes["n2"].closure.phase == 3
    assert nodes["n2"].outputs.get("o0", int) == 7


def test_a_failure_node_runs_and_the_error_stays(server, run_of):
    execution = run_of("kinds.tidied")
    assert execution.closure.phase == 6 and "untidy" in execution.error.message
    assert f"tidied 3 after {execution.id.name}" in server.aloft("logs", execution.id.name).stdout


def test_a_process_that_just_goes_is_told_from_a_task_that_fails(run_of):
    execution = run_of("kinds.gone")
    assert execution.closure.phase == 6
    assert "code 7" in execution.error.message and "almost there" in execution.error.message
    assert execution.error.kind == 1


@pytest.mark.parametrize("name", ["mapped", "gated", "launched"])
def test_what_is_not_built_yet_is_refused_at_registration(server, name):
    with pytest.raises(FlyteInvalidInputException) as caught:
        ship(server.remote(), name)
    assert "not supported yet" in caught.value.__cause__.details()


def test_a_dynamic_task_is_refused_when_it_runs(server):
    """Until it runs, the task looks like any other."""
    remote = server.remote()
    execution = remote.execute(ship(remote, "grown"), inputs={}, wait=True)
    assert execution.closure.phase == 6
    assert "not supported yet" in execution.error.message


def ship(remote, name: str):
    return remote.register_script(
        getattr(later, name), version="l1", source_path=str(PIPELINES), module_name="later", image_config=ImageConfig.auto_default_image()
    )
