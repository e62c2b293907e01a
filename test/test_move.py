"""The data folder is moved and the port changes: nothing that was stored knows where it was."""

import shutil

from conftest import execution_name, free_port, worker_ends
from flytekit.types.file import FlyteFile


def test_old_runs_open_and_equal_code_has_an_equal_version_after_a_move(own_server, tmp_path):
    server = own_server
    old = execution_name(server.pyflyte("run", "--remote", "--wait", "basics.py", "files", "--text", "kept").stdout)
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

    new = execution_name(server.pyflyte("run", "--remote", "--wait", "basics.py", "files", "--text", "again").stdout)
    assert {w.id.version for w in _workflows(remote)} == versions, "equal code, equal version"
    assert remote.sync_execution(remote.fetch_execution(name=new)).outputs.get("o3", str).startswith("again ")
    logs = server.aloft("logs", old)
    assert logs.returncode == 0


def _workflows(remote):
    from flytekit.models.common import NamedEntityIdentifier

    return remote.client.list_workflows_paginated(NamedEntityIdentifier("flytesnacks", "development", "basics.files"), limit=100)[0]
