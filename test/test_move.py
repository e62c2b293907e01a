"""The data folder is moved and the port changes: nothing that was stored knows where it was."""

import shutil

import pandas as pd
from conftest import free_port, worker_ends
from flytekit.types.file import FlyteFile


def test_old_runs_open_and_equal_code_has_an_equal_version_after_a_move(own_server, tmp_path):
    server = own_server
    old = server.run("basics.py", "files", "--text", "kept")
    server.ended(old)
    versions = {w.id.version for w in _workflows(server.remote())}
    server.stop()
    worker_ends(server.data)
    shutil.move(server.data, tmp_path / "elsewhere")
    server.data, server.port = tmp_path / "elsewhere", free_port()
    server.start()

    remote = server.remote()
    execution = remote.sync_execution(remote.fetch_execution(name=old), sync_nodes=True)
    with open(execution.outputs.get("o0", FlyteFile)) as stream:
        assert stream.read() == "kept"
    assert execution.outputs.get("o3", str).startswith("kept ")

    frame = execution.node_executions["n0"].outputs.get("o2", pd.DataFrame)
    assert list(frame["n"]) == [1, 2, 3]
    assert "kept" in server.aloft("logs", old).stdout

    new = server.run("basics.py", "files", "--text", "again")
    assert {w.id.version for w in _workflows(server.remote())} == versions, "equal code, equal version"
    assert server.outputs(new).get("o3", str).startswith("again ")


def _workflows(remote):
    from flytekit.models.common import NamedEntityIdentifier

    return remote.client.list_workflows_paginated(NamedEntityIdentifier("flytesnacks", "development", "basics.files"), limit=100)[0]
