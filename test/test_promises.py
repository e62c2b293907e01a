"""The promises to users: finished work is not done again, and a run stays on the versions with which it began."""

import pathlib
import time

from conftest import PIPELINES, Server

HIT, POPULATED = 2, 3


class Author:
    """A user who changes a pipeline between two runs of it."""

    def __init__(self, server: Server, folder: pathlib.Path):
        self.server, self.folder = server, folder

    def run(self, c: str, b1: str = "") -> tuple[object, list[str], dict[str, int]]:
        """Run the present pipeline. Returns the execution, the tasks that began (in order), and each node's cache status."""
        text = (PIPELINES / "abcd_template.py.txt").read_text().replace("@C@", c).replace("@B1@", b1)
        (self.folder / "flow.py").write_text(text)
        name = self.server.run("flow.py", "abcd", "--x", "1", "--folder", str(self.folder), cwd=self.folder)
        execution = self.server.ended(name)
        marks = self.folder / "marks"
        lines = [line.split() for line in marks.read_text().splitlines()] if marks.exists() else []
        said = {}
        for node in execution.node_executions.values():
            if task := node.closure.task_node_metadata:
                said[node.metadata.spec_node_id] = task.cache_status
        return execution, [task for run, task in lines if run == name], said


def test_finished_work_is_not_done_again_when_the_pipeline_changes(server, tmp_path):
    author = Author(server, tmp_path)
    # C is broken, and fails again in its retry.
    execution, began, _ = author.run(c="return broken(x)")
    assert execution.closure.phase == 6 and execution.error.code.startswith("RetriesExhausted|"), execution.error
    assert began == ["a", "b", "c", "c"]
    # C is mended: A and B are not done again.
    execution, began, said = author.run(c="return x + 2")
    assert execution.closure.phase == 4 and execution.outputs.get("o0", int) == 25
    assert began == ["c", "d"]
    assert (said["n0"], said["n1"], said["n2"], said["n3"]) == (HIT, HIT, POPULATED, POPULATED)
    # B1 is added between B and C: A and B are still not done again, B1 and the nodes after it are.
    execution, began, said = author.run(c="return x + 2", b1="ready = b1(x=ready, folder=folder)")
    assert execution.closure.phase == 4 and execution.outputs.get("o0", int) == 125
    assert began == ["b1", "c", "d"]
    assert (said["n0"], said["n1"]) == (HIT, HIT)
    # Back to the graph before: no task runs.
    execution, began, _ = author.run(c="return x + 2")
    assert execution.closure.phase == 4 and execution.outputs.get("o0", int) == 25
    assert began == []


def test_what_is_registered_and_activated_during_a_run_changes_nothing_in_it(server, tmp_path):
    """P6. The run waits in its first task; a version with other code under each name is registered and activated meanwhile."""
    remote = server.remote()

    def register(version: str, says: str):
        folder = tmp_path / version
        folder.mkdir()
        text = (PIPELINES / "waiting_template.py.txt").read_text().replace("@SAYS@", says)
        (folder / "waiting.py").write_text(text)
        server.pyflyte("register", "--version", version, "--activate-launchplans", "waiting.py", cwd=folder)
        return remote.fetch_launch_plan(name="waiting.waiting", version=version)

    old = register("one", "old")
    before = remote.execute(old, inputs={"folder": str(tmp_path)})
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline, "the first task does not begin"
        time.sleep(0.01)
    new = register("two", "new")
    assert remote.fetch_launch_plan(name="waiting.waiting").id.version == "two", "the new version is the active one"
    (tmp_path / "go").touch()
    after = remote.execute(new, inputs={"folder": str(tmp_path)})
    ended = server.ended(before.id.name)
    assert ended.outputs.get("o0", str) == "old old"
    assert server.ended(after.id.name).outputs.get("o0", str) == "new new"
    assert ended.spec.launch_plan.version == "one"
    assert {n.task_executions[0].id.task_id.version for n in ended.node_executions.values() if n.task_executions} == {"one"}
