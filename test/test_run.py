"""An author at a terminal: pyflyte run and pyflyte register."""

import json
import pathlib
import re
import shutil
import textwrap
import time

from conftest import PIPELINES, execution_name


def versions(server, name: str) -> list[str]:
    from flytekit.models.common import NamedEntityIdentifier

    workflows, _ = server.remote().client.list_workflows_paginated(NamedEntityIdentifier("flytesnacks", "development", name), limit=100)
    return [w.id.version for w in workflows]


def test_a_workflow_runs_by_file_and_says_where(server):
    done = server.pyflyte("run", "--remote", "basics.py", "chain", "--x", "3")
    name = execution_name(done.stdout)
    page = f"/console/projects/flytesnacks/domains/development/executions/{name}"
    assert f"http://{server.address}{page}" in done.stdout.replace("\n", "")
    assert server.outputs(name).get("o0", int) == 14
    with server.get(page) as answer:
        assert answer.status == 200 and answer.headers.get_content_type() == "text/html"
        assert name in answer.read().decode()


def test_a_workflow_runs_by_module(server):
    """A module of a package that imports another module of the package."""
    name = server.run("shop/flow.py", "checkout", "--article", "umbrella")
    execution = server.ended(name)
    assert execution.spec.launch_plan.name == "shop.flow.checkout"
    assert execution.outputs.get("o0", float) == 9.6


def test_wait_returns_soon_after_the_end(server):
    """flytekit sleeps 30 s between two calls: its first call must get the end of the execution."""
    begin = time.monotonic()
    done = server.pyflyte("run", "--remote", "--wait", "basics.py", "sleepy", "--seconds", "3")
    took = time.monotonic() - begin
    execution = server.remote().fetch_execution(name=execution_name(done.stdout))
    assert execution.closure.phase == 4
    assert took < 25, f"one look is enough; the client came back after {took:.0f} s"


def test_a_single_task_runs(server):
    assert server.outputs(server.run("basics.py", "add", "--a", "20", "--b", "22")).get("o0", int) == 42


def test_every_simple_type_goes_in_and_out(server):
    name = server.run(
        "basics.py", "all_types", "--i", "7", "--f", "2.5", "--s", "text", "--b", "--d", "2026-01-02T03:04:05", "--t", "90s",
        "--c", "green", "--l", "[1, 2]", "--m", '{"k": 0.5}', "--z", json.dumps({"depth": 3, "inner": {"names": ["n"], "weight": 1.0}}),
    )  # fmt: skip
    value = server.outputs(name).get("o0", str)
    assert value.startswith("7 2.5 text True 2026-01-02T03:04:05")
    assert value.endswith("90.0 green [1, 2] {'k': 0.5} None 3 ['n'] None")


def test_a_file_of_the_authors_is_uploaded(server, tmp_path):
    path = tmp_path / "hello.txt"
    path.write_text("hello")
    for _ in range(2):  # the second time it is there already
        assert server.outputs(server.run("basics.py", "shout", "--file", str(path))).get("o0", str) == "HELLO"


def test_environment_variables_are_given_to_a_run(server):
    name = server.run("--envvars", "GREETING=good morning", "basics.py", "look_at", "--name", "GREETING")
    assert server.outputs(name).get("o0", str) == "good morning"


def test_files_go_where_the_user_wants_them(server):
    name = server.run("--raw-output-data-prefix", "memory://bucket/files/", "basics.py", "files", "--text", "x")
    node = server.ended(name).node_executions["n0"]  # the next node fails: no other process sees the memory of this one
    for output in ("o0", "o1"):
        assert node.outputs.literals[output].scalar.blob.uri.startswith("memory://bucket/files/")


def test_unchanged_code_is_registered_once(server):
    for _ in range(2):
        server.run("importable.py", "ninefold", "--x", "1")
    assert len([v for v in versions(server, "importable.ninefold") if v != "by-object"]) == 1


def test_a_package_is_registered_and_executed_by_name(server):
    for _ in range(2):  # the second time it is there already
        server.pyflyte("register", "--version", "v1", "shop")
    remote = server.remote()
    execution = remote.execute(remote.fetch_workflow(name="shop.flow.checkout", version="v1"), inputs={"article": "lamp"}, wait=True)
    assert execution.outputs.get("o0", float) == 4.8
    execution = remote.execute(remote.fetch_launch_plan(name="shop.flow.cheap", version="v1"), inputs={}, wait=True)
    assert execution.outputs.get("o0", float) == 3.3
    execution = remote.execute(remote.fetch_task(name="shop.prices.price", version="v1"), inputs={"article": "lamp"}, wait=True)
    assert execution.outputs.get("o0", float) == 4.0
    name = server.run("remote-launchplan", "shop.flow.cheap:v1", "--rate", "0.5")
    assert server.outputs(name).get("o0", float) == 4.5


def test_a_package_gets_its_version_from_its_code(server, tmp_path):
    shutil.copytree(PIPELINES / "shop", tmp_path / "shop")
    computed = []
    for change in ("", "", "\nCURRENCY = 'EUR'\n"):
        with open(tmp_path / "shop" / "prices.py", "a") as file:
            file.write(change)
        said = server.pyflyte("register", "shop", cwd=tmp_path).stdout
        computed.append(re.search(r"Computed version is ([\w-]+)", said).group(1))
    assert computed[0] == computed[1] != computed[2]
    assert set(computed) < set(versions(server, "shop.flow.checkout"))


def test_another_content_under_a_version_is_refused_with_the_difference(server, tmp_path):
    shutil.copytree(PIPELINES / "shop", tmp_path / "shop")
    server.pyflyte("register", "--version", "v2", "shop", cwd=tmp_path)
    flow, prices = tmp_path / "shop" / "flow.py", tmp_path / "shop" / "prices.py"
    flow.write_text(flow.read_text().replace("net: float, rate: float)", "net: float, rate: float, factor: int = 2)"))
    prices.write_text(prices.read_text().replace("article: str", "article: str, factor: int = 2"))
    done = server.pyflyte("register", "--version", "v2", "shop", cwd=tmp_path, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "different structure" in said and "factor" in said


def test_two_versions_run_at_once_although_both_want_the_same_folder(server, tmp_path):
    names = []
    for version in ("one", "two"):
        folder = tmp_path / version
        folder.mkdir()
        text = (PIPELINES / "version_template.py.txt").read_text()
        (folder / "flow.py").write_text(text.replace("@VERSION@", version))
        (folder / "other.py").write_text(f'VERSION = " {version}"\n')
        (tmp_path / "meeting").mkdir(exist_ok=True)
        names.append(server.run("--copy-all", "--destination-dir", "/tmp", "flow.py", "versions", "--folder", str(tmp_path / "meeting"), cwd=folder))
    assert [server.outputs(name).get("o0", str) for name in names] == ["one one", "two two"]


def test_a_bundled_file_is_private_to_each_attempt(server, tmp_path):
    result = server.outputs(server.run("--copy-all", "bundled/flow.py", "both", "--folder", str(tmp_path)))
    assert result.get("o0", str) == "as it was bundled -> left"
    assert result.get("o1", str) == "as it was bundled -> right"
    assert (PIPELINES / "bundled" / "words.txt").read_text().strip() == "as it was bundled"


def test_a_task_above_its_memory_limit_is_told_apart(server):
    execution = server.ended(server.run("basics.py", "hoarding", "--mebibytes", "2000"))
    assert execution.closure.phase == 6
    assert execution.error.code == "RetriesExhausted|OOMKilled"
    assert "memory" in execution.error.message and "400" in execution.error.message
    assert execution.error.kind == 1  # the user's: the limit is what the task states
    assert server.outputs(server.run("basics.py", "hoarding", "--mebibytes", "20")).get("o0", int) == 20


def test_the_servers_environment_does_not_reach_a_task(own_server):
    server = own_server
    server.stop()
    server.environment["ALOFT_TEST_SECRET"] = server.environment["AWS_SECRET_ACCESS_KEY"] = "hidden"
    server.start()
    names = [server.run("basics.py", "look_at", "--name", name) for name in ("ALOFT_TEST_SECRET", "AWS_SECRET_ACCESS_KEY", "FLYTE_INTERNAL_EXECUTION_ID")]
    assert [server.outputs(name).get("o0", str) for name in names] == ["unset", "unset", names[2]]


def test_the_pipeline_of_the_readme_runs(server, tmp_path):
    readme = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
    code = readme[readme.index("    from flytekit"):readme.index("With Go")]
    (tmp_path / "pipeline.py").write_text(textwrap.dedent(code))
    name = server.run("pipeline.py", "main", "--n", "3", cwd=tmp_path)
    assert server.outputs(name).get("o0") == 81
