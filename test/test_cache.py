"""Results that are used again, with the real client: the tasks themselves count how often they are computed."""

import pathlib

from flyteidl.core.catalog_pb2 import CatalogCacheStatus

HIT, MISS, POPULATED = CatalogCacheStatus.CACHE_HIT, CatalogCacheStatus.CACHE_MISS, CatalogCacheStatus.CACHE_POPULATED


def ran(log: pathlib.Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def node(server, name: str, node_id: str):
    """A node of an execution that has succeeded."""
    execution = server.ended(name)
    assert execution.closure.phase == 4, execution.error
    return execution.node_executions[node_id]


def status(server, name: str, node_id: str) -> int:
    return node(server, name, node_id).closure.task_node_metadata.cache_status


def attempts(server, name: str, node_id: str) -> int:
    return len(node(server, name, node_id).task_executions or [])


def test_a_result_is_used_again_across_executions_workflows_and_versions(server, tmp_path):
    log = tmp_path / "log"
    first = server.run("cached.py", "one", "--x", "21", "--log", str(log))
    assert server.outputs(first)["o0"] == 42
    assert sorted(ran(log)) == ["double 21", "remember 21"]
    assert {status(server, first, n) for n in ("n0", "n1")} == {POPULATED}

    # A second time, and from another workflow under another version: no task runs, not even one without outputs.
    again = server.run("cached.py", "one", "--x", "21", "--log", str(log))
    assert server.outputs(again)["o0"] == 42
    assert {status(server, again, n) for n in ("n0", "n1")} == {HIT}
    assert attempts(server, again, "n1") == 0
    source = node(server, again, "n1").closure.task_node_metadata.catalog_key.source_task_execution
    assert source.node_execution_id.execution_id.name == first
    assert len(ran(log)) == 2

    elsewhere = server.run("cached.py", "other", "--y", "21", "--log", str(log))
    outputs = server.outputs(elsewhere)
    assert (outputs["o0"], outputs["o1"]) == (42, 42)
    assert status(server, elsewhere, "n0") == HIT
    # with_overrides(cache_version="2") is another result.
    assert status(server, elsewhere, "n1") == POPULATED
    assert sorted(ran(log)) == ["double 21", "double 21", "remember 21"]


def test_another_input_is_another_result(server, tmp_path):
    log = tmp_path / "log"
    for x in ("5", "6", "5"):
        server.outputs(server.run("cached.py", "one", "--x", x, "--log", str(log)))
    assert sorted(ran(log)) == ["double 5", "double 6", "remember 5", "remember 6"]


def test_overwriting_computes_again_and_replaces(server, tmp_path):
    log = tmp_path / "log"
    first = server.run("cached.py", "one", "--x", "1", "--log", str(log))
    server.outputs(first)
    second = server.run("--overwrite-cache", "cached.py", "one", "--x", "1", "--log", str(log))
    server.outputs(second)
    assert len(ran(log)) == 4
    assert status(server, second, "n1") == POPULATED
    third = server.run("cached.py", "one", "--x", "1", "--log", str(log))
    assert server.outputs(third)["o0"] == 2
    assert len(ran(log)) == 4
    source = node(server, third, "n1").closure.task_node_metadata.catalog_key.source_task_execution
    assert source.node_execution_id.execution_id.name == second


def test_of_two_that_want_a_serialized_result_one_computes_it(server, tmp_path):
    log = tmp_path / "log"
    names = [server.run("cached.py", "waiting", "--x", "7", "--log", str(log)) for _ in range(2)]
    pathlib.Path(str(log) + ".go").touch()
    assert [server.outputs(name)["o0"] for name in names] == [21, 21]
    assert ran(log) == ["slow 7"]
    assert sorted(attempts(server, name, "n0") for name in names) == [0, 1]
    assert sorted(status(server, name, "n0") for name in names) == sorted([HIT, POPULATED])


def test_ignored_inputs_and_contents_with_a_hash_do_not_count(server, tmp_path):
    log = tmp_path / "log"
    for why in ("because", "just so"):
        assert server.outputs(server.run("cached.py", "ignored", "--x", "3", "--why", why, "--log", str(log)))["o0"] == 3
    assert ran(log) == ["ignoring 3 because"]
    log.unlink()
    for salt in ("a", "b"):
        assert server.outputs(server.run("cached.py", "by_hash", "--x", "3", "--salt", salt, "--log", str(log)))["o0"] == "3-a"
    assert ran(log) == ["hashed"]


def test_a_result_whose_file_is_gone_or_another_is_computed_again(own_server, tmp_path):
    server, log = own_server, tmp_path / "log"

    def text() -> tuple[str, str]:
        name = server.run("cached.py", "filed", "--text", "the content", "--log", str(log))
        with open(server.outputs(name)["o0"]) as f:
            return name, f.read()

    def file() -> pathlib.Path:
        found = [p for p in (server.data / "blob").rglob("out.txt") if p.read_bytes() and p.stat().st_size]
        return max(found, key=lambda p: p.stat().st_mtime_ns)

    assert text()[1] == "the content"
    assert status(server, text()[0], "n0") == HIT
    assert len(ran(log)) == 1

    file().unlink()
    name, content = text()
    assert content == "the content"
    assert status(server, name, "n0") == POPULATED
    assert len(ran(log)) == 2

    corrupted = file()
    corrupted.chmod(0o644)
    corrupted.write_text("THE CONTENT")  # of the same size
    name, content = text()
    assert content == "the content"
    assert status(server, name, "n0") == POPULATED
    assert len(ran(log)) == 3
    assert status(server, text()[0], "n0") == HIT
    assert len(ran(log)) == 3
