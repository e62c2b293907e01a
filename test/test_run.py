"""An author at a terminal: pyflyte run and pyflyte register."""

import json
import shutil
import time

from conftest import PIPELINES, execution_name


def outputs(server, name: str):
    execution = server.remote().fetch_execution(name=name)
    server.remote().wait(execution)
    return execution.outputs


def test_a_workflow_runs_by_file_and_says_where(server):
    done = server.pyflyte("run", "--remote", "basics.py", "chain", "--x", "3")
    name = execution_name(done.stdout)
    assert f"http://{server.address}/console/projects/flytesnacks/domains/development/executions/{name}" in done.stdout.replace("\n", "")
    assert outputs(server, name).get("o0", int) == 14


def test_a_workflow_runs_by_module(server):
    done = server.pyflyte("run", "--remote", "shop.flow", "checkout", "--article", "umbrella")
    assert outputs(server, execution_name(done.stdout)).get("o0", float) == 9.6


def test_wait_returns_soon_after_the_end(server):
    """flytekit sleeps 30 s between its looks: it must not have to look twice."""
    begin = time.monotonic()
    done = server.pyflyte("run", "--remote", "--wait", "basics.py", "sleepy", "--seconds", "3")
    took = time.monotonic() - begin
    execution = server.remote().fetch_execution(name=execution_name(done.stdout))
    assert execution.closure.phase == 4
    assert took < 25, f"one look is enough; the client came back after {took:.0f} s"


def test_a_single_task_runs(server):
    done = server.pyflyte("run", "--remote", "basics.py", "add", "--a", "20", "--b", "22")
    assert outputs(server, execution_name(done.stdout)).get("o0", int) == 42


def test_every_simple_type_goes_in_and_out(server):
    done = server.pyflyte(
        "run", "--remote", "basics.py", "all_types", "--i", "7", "--f", "2.5", "--s", "text", "--b", "--d", "2026-01-02T03:04:05", "--t", "90s",
        "--c", "green", "--l", "[1, 2]", "--m", '{"k": 0.5}', "--z", json.dumps({"depth": 3, "inner": {"names": ["n"], "weight": 1.0}}),
    )  # fmt: skip
    value = outputs(server, execution_name(done.stdout)).get("o0", str)
    assert value.startswith("7 2.5 text True 2026-01-02T03:04:05")
    assert value.endswith("90.0 green [1, 2] {'k': 0.5} None 3 ['n'] None")


def test_a_file_of_the_authors_is_uploaded(server, tmp_path):
    path = tmp_path / "hello.txt"
    path.write_text("hello")
    for _ in range(2):  # the second time it is there already
        done = server.pyflyte("run", "--remote", "basics.py", "shout", "--file", str(path))
        assert outputs(server, execution_name(done.stdout)).get("o0", str) == "HELLO"


def test_unchanged_code_is_registered_once(server):
    for _ in range(2):
        server.pyflyte("run", "--remote", "basics.py", "chain", "--x", "1")
    remote = server.remote()
    names = [t.id.version for t in remote.client.list_workflows_paginated(_named("basics.chain"), limit=100)[0]]
    assert len(names) == len(set(names)) == 1


def _named(name: str):
    from flytekit.models.common import NamedEntityIdentifier

    return NamedEntityIdentifier("flytesnacks", "development", name)


def test_a_package_is_registered_with_a_version_and_executed_by_name(server):
    server.pyflyte("register", "--version", "v1", "shop")
    again = server.pyflyte("register", "--version", "v1", "shop")
    assert "v1" in again.stdout
    remote = server.remote()
    workflow = remote.fetch_workflow(name="shop.flow.checkout", version="v1")
    execution = remote.execute(workflow, inputs={"article": "lamp"}, wait=True)
    assert execution.outputs.get("o0", float) == 4.8
    plan = remote.fetch_launch_plan(name="shop.flow.cheap", version="v1")
    execution = remote.execute(plan, inputs={}, wait=True)
    assert execution.outputs.get("o0", float) == 3.3


def test_another_content_under_a_version_is_refused_with_the_difference(server, tmp_path):
    shutil.copytree(PIPELINES / "shop", tmp_path / "shop")
    server.pyflyte("register", "--version", "v2", "shop", cwd=tmp_path)
    flow = tmp_path / "shop" / "flow.py"
    flow.write_text(flow.read_text().replace("rate: float = 0.2", "rate: float = 0.3"))
    prices = tmp_path / "shop" / "prices.py"
    prices.write_text(prices.read_text().replace("article: str", "article: str, factor: int = 2"))
    done = server.pyflyte("register", "--version", "v2", "shop", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "different structure" in done.stdout + done.stderr


def test_two_versions_run_at_once_although_both_want_the_same_folder(server, tmp_path):
    names = []
    for version in ("one", "two"):
        folder = tmp_path / version
        folder.mkdir()
        text = (PIPELINES / "version_template.py.txt").read_text()
        (folder / "flow.py").write_text(text.replace("@VERSION@", version))
        (folder / "other.py").write_text(f'VERSION = " {version}"\n')
        done = server.pyflyte("run", "--remote", "--copy-all", "--destination-dir", "/tmp", "flow.py", "versions", cwd=folder)
        names.append(execution_name(done.stdout))
    assert [outputs(server, name).get("o0", str) for name in names] == ["one one", "two two"]


def test_a_bundled_file_is_private_to_each_attempt(server):
    done = server.pyflyte("run", "--remote", "--copy-all", "bundled/flow.py", "both")
    result = outputs(server, execution_name(done.stdout))
    assert result.get("o0", str) == "as it was bundled -> left"
    assert result.get("o1", str) == "as it was bundled -> right"
