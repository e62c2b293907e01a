"""What aloft exists for, as its users live it."""

import time

from conftest import PIPELINES


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
