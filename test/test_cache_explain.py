"""Each kind of change that makes a cached result be computed again is named by `aloft cache explain`."""

import json
import pathlib
import textwrap

import pytest
from flytekit.models.project import Project

# The files of a pipeline. Each test has files of its own, so that the nearest earlier result is that of the same test, too.
WORK = """
    from flytekit import task, workflow

    @task(cache=True, cache_version="1")
    def work(x: int, y: int) -> int:
        return int(x + y)

    @workflow
    def main(x: int = 5, y: int = 1) -> int:
        return work(x=x, y=y)
    """

SAVES = """
    import os
    from flytekit import current_context, task, workflow
    from flytekit.types.file import FlyteFile

    @task(cache=True, cache_version="1")
    def save(x: int) -> FlyteFile:
        path = os.path.join(current_context().working_directory, "saved.txt")
        with open(path, "w") as f:
            f.write(f"saved by {__name__} for {x}")
        return FlyteFile(path)

    @workflow
    def main(x: int = 5) -> FlyteFile:
        return save(x=x)
    """

HASHES = """
    import pandas as pd
    from typing import Annotated
    from flytekit import HashMethod, task, workflow

    @task
    def make(x: int) -> Annotated[pd.DataFrame, HashMethod(lambda frame: f"sum {frame['x'].sum() // 10}")]:
        return pd.DataFrame({"x": [x]})

    @task(cache=True, cache_version="1")
    def count(frame: pd.DataFrame) -> int:
        return len(frame)

    @workflow
    def main(x: int = 5) -> int:
        return count(frame=make(x=x))
    """


class Pipeline:
    """One file with a workflow `main`, changed and run again."""

    def __init__(self, server, folder: pathlib.Path, name: str, text: str):
        self.server, self.folder, self.name = server, folder, name
        self.write(text)

    def write(self, text: str) -> None:
        (self.folder / f"{self.name}.py").write_text(textwrap.dedent(text))

    def change(self, old: str, new: str) -> None:
        path = self.folder / f"{self.name}.py"
        text = path.read_text()
        assert old in text, f"{old!r} is not in the pipeline"
        path.write_text(text.replace(old, new))

    def run(self, *args: str, options: tuple[str, ...] = (), scope: tuple[str, str] = ("flytesnacks", "development")) -> str:
        """The execution's id, once it has succeeded."""
        name = self.server.run(*options, f"{self.name}.py", "main", *args, cwd=self.folder)
        execution = "/".join([*scope, name])
        done = self.server.aloft("status", execution, "--follow")
        assert "SUCCEEDED" in done.stdout
        return execution

    def explain(self, execution: str, node: str = "n0") -> dict:
        answer = json.loads(self.server.aloft("cache", "explain", execution, node, "-o", "json").stdout)
        said = self.server.aloft("cache", "explain", execution, node).stdout
        assert answer["summary"] in said  # the output without -o json
        return answer


@pytest.fixture
def pipeline(server, tmp_path, request):
    """A pipeline whose tasks are named after the test, because tests would share results of tasks with one name."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name).strip("_")

    def make(text: str) -> Pipeline:
        return Pipeline(server, tmp_path, name, text)

    return make


def status(answer: dict) -> str:
    return answer["lookup"].get("status", "CACHE_DISABLED")


def is_miss(answer: dict, *differences: tuple[str, str]) -> None:
    """Computed, for exactly these reasons: component and name of the input."""
    assert status(answer) in ("CACHE_MISS", "CACHE_POPULATED"), answer
    assert answer["summary"].startswith("miss: "), answer
    assert [(d["component"], d.get("name", "")) for d in answer.get("differences", [])] == list(differences), answer


def short(execution: str) -> str:
    return execution.split("/")[-1]


def test_an_unchanged_task_is_a_hit_and_the_first_run_a_miss_without_an_earlier_result(pipeline):
    p = pipeline(WORK)
    first = p.run()
    answer = p.explain(first)
    is_miss(answer)
    assert "never computed before" in answer["summary"] and "nearest" not in answer
    second = p.run()
    answer = p.explain(second, "work")  # by its name in the status, too
    assert status(answer) == "CACHE_HIT" and f"{short(first)}/n0" in answer["summary"]
    assert f"cached from {short(first)}/n0" in p.server.aloft("status", second).stdout


CHANGES = {
    "cache version": ([('cache_version="1"', 'cache_version="2"')], [("CACHE_VERSION", "")], 'cache version was "1" and is "2"'),
    "input added": ([("def work(x: int, y: int)", "def work(x: int, y: int, z: int = 3)")], [("INPUT_ADDED", "z")], 'input "z" is new'),
    "input's type": (
        [("work(x: int", "work(x: float"), ("main(x: int = 5", "main(x: float = 5.0")],
        [("INPUTS", ""), ("INPUT", "x")], "the types of the inputs changed",
    ),
    "output's type": ([("-> int", "-> float"), ("return int(", "return float(")], [("OUTPUTS", "")], "the types of the outputs changed"),
    "task renamed": ([("work(", "job(")], [("TASK", "")], "the task's name was"),
    "ignored inputs": (
        [('cache_version="1"', 'cache_version="1", cache_ignore_input_vars=("y",)')], [("IGNORED", "y")], 'input "y" counted and is ignored now',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES, ids=lambda kind: kind.replace(" ", "-").replace("'", ""))
def test_a_change_of_the_code_is_named(pipeline, kind):
    changes, differences, said = CHANGES[kind]
    p = pipeline(WORK)
    first = p.run()
    for old, new in changes:
        p.change(old, new)
    answer = p.explain(p.run())
    is_miss(answer, *differences)
    assert said in answer["summary"] and f"{short(first)}/n0" in answer["summary"], answer["summary"]
    assert answer["nearest"]["source"]["node_execution_id"]["execution_id"]["name"] == short(first)


def test_the_value_of_one_input_is_named_with_both_values(pipeline):
    p = pipeline(WORK)
    p.run("--x", "5", "--y", "7")
    second = p.run("--x", "6", "--y", "7")
    answer = p.explain(second)
    is_miss(answer, ("INPUT", "x"))
    assert (answer["differences"][0]["before"], answer["differences"][0]["now"]) == ("5", "6")
    assert 'input "x" was 5 and is 6' in answer["summary"]
    assert 'miss: input "x" was 5 and is 6' in p.server.aloft("status", second).stdout


def test_an_input_that_was_removed_is_named(pipeline):
    p = pipeline(WORK)
    p.run()
    p.change("def work(x: int, y: int) -> int:\n    return int(x + y)", "def work(x: int) -> int:\n    return x")
    p.change("work(x=x, y=y)", "work(x=x)")
    answer = p.explain(p.run())
    is_miss(answer, ("INPUT_REMOVED", "y"))


def test_a_task_that_moved_to_another_module_is_named(pipeline):
    p = pipeline(WORK)
    p.run()
    moved = Pipeline(p.server, p.folder, "moved_" + p.name, WORK)
    answer = moved.explain(moved.run())
    is_miss(answer, ("TASK", ""))
    difference = answer["differences"][0]
    assert (difference["before"], difference["now"]) == (f"{p.name}.work", f"moved_{p.name}.work")


def test_another_domain_and_another_project_are_named(pipeline):
    p = pipeline(WORK)
    p.run()
    answer = p.explain(p.run(options=("--domain", "staging"), scope=("flytesnacks", "staging")))
    is_miss(answer, ("DOMAIN", ""))
    p.server.remote().client.register_project(Project("neighbours", "neighbours", ""))
    answer = p.explain(p.run(options=("--project", "neighbours"), scope=("neighbours", "development")))
    is_miss(answer, ("PROJECT", ""))


def test_a_result_that_was_removed_is_named_with_the_reason(pipeline):
    p = pipeline(WORK)
    first = p.run()
    listed = json.loads(p.server.aloft("cache", "ls", "--execution", first, "-o", "json").stdout)
    [result] = [r["id"] for r in listed["results"]]
    assert "removed 1 result" in p.server.aloft("cache", "rm", result, "--reason", "wrong labels").stdout
    assert "removed 0 results" in p.server.aloft("cache", "rm", result).stdout
    answer = p.explain(p.run())
    is_miss(answer, ("GONE", ""))
    assert "wrong labels" in answer["summary"] and f"{short(first)}/n0" in answer["summary"]
    gone = p.server.aloft("cache", "ls", "--task", f"{p.name}.work", "--gone").stdout
    assert "wrong labels" in gone and len(gone.splitlines()) == 3, gone  # the heading, the one that is gone, and the new one


def saved(server, text: str) -> pathlib.Path:
    """The file of the stored object with this content."""
    [path] = [f for f in (server.data / "blob").rglob("*") if f.is_file() and f.read_bytes() == text.encode()]
    return path


@pytest.mark.parametrize("harm", ["deleted", "corrupted"])
def test_a_result_whose_object_is_gone_is_computed_again_and_the_reason_kept(own_server, tmp_path, harm):
    p = Pipeline(own_server, tmp_path, "saves_" + harm, SAVES)
    first = p.run()
    path = saved(own_server, f"saved by saves_{harm} for 5")
    path.chmod(0o600)
    if harm == "deleted":
        path.unlink()
    else:
        path.write_text(f"saved by saves_{harm} for 6")  # with the same length
    answer = p.explain(p.run())
    is_miss(answer, ("GONE", ""))
    assert f"{short(first)}/n0" in answer["summary"], answer
    assert {"deleted": "is missing", "corrupted": "is not what was written"}[harm] in answer["summary"], answer
    assert status(p.explain(p.run())) == "CACHE_HIT"  # repaired


def test_the_value_of_a_hash_method_counts_and_nothing_else(pipeline):
    p = pipeline(HASHES)
    first = p.run("--x", "15")
    answer = p.explain(p.run("--x", "17"), "n1")  # another frame with the same hash
    assert status(answer) == "CACHE_HIT" and f"{short(first)}/n1" in answer["summary"]
    answer = p.explain(p.run("--x", "25"), "n1")
    is_miss(answer, ("INPUT", "frame"))
    assert "hash" in answer["differences"][0]["text"], answer


def test_a_pinned_result_says_so_and_mistakes_have_a_way_out(pipeline):
    p = pipeline(WORK)
    execution = p.run()
    [result] = json.loads(p.server.aloft("cache", "ls", "--execution", execution, "-o", "json").stdout)["results"]
    assert "pinned 1 result" in p.server.aloft("cache", "pin", result["id"]).stdout
    assert "pinned" in p.server.aloft("cache", "ls", "--task", f"{p.name}.work").stdout
    assert "unpinned 1 result" in p.server.aloft("cache", "unpin", result["id"]).stdout
    for args, said in {
        ("cache", "explain", execution, "n7"): "n0",  # the message names the nodes that exist
        ("cache", "explain", "nosuchexecution", "n0"): "nosuchexecution",
        ("cache", "rm", "nosuchresult"): "aloft cache ls",
        ("cache", "pin", "nosuchresult"): "aloft cache ls",
    }.items():
        wrong = p.server.aloft(*args, check=False)
        assert wrong.returncode == 1 and said in wrong.stderr, (args, wrong.stderr)
    assert p.server.aloft("cache", "rm", check=False).returncode == 2
