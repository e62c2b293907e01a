"""Values, files and names as they pass between a client, the server and a task."""


import pytest

from conftest import Server


def test_attributes_of_a_dataclass_reach_tasks_as_what_they_are(server):
    outputs = server.outputs(server.run("values.py", "attributes"))
    assert [outputs.get(f"o{i}") for i in range(6)] == [
        "datetime.datetime(2024, 2, 29, 1, 2, 3, 4)", "datetime.date(2024, 2, 29)", "datetime.timedelta(days=1, seconds=2)",
        "datetime.datetime(2024, 1, 1, 0, 0)", "datetime.timedelta(seconds=10800)", "(7, 't')",
    ]


def test_empty_files_folders_with_one_file_and_locations_as_strings_reach_tasks(server, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "_SUCCESS").touch()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "text.txt").write_text("handed on")
    remote = server.remote()
    _, location = remote.upload_file(tmp_path / "text.txt", "flytesnacks", "development")
    name = server.run("values.py", "uploaded", "--f", str(tmp_path / "empty.txt"), "--d", str(tmp_path / "folder"), "--s", location)
    assert server.outputs(name).get("o0") == repr(("", ["_SUCCESS"], b"handed on"))


def test_a_file_whose_name_flytekit_unescapes_is_found(server):
    assert server.outputs(server.run("values.py", "unescaped")).get("o0") == "found"


def test_an_output_that_goes_with_its_attempt_fails_its_own_node(server):
    execution = server.ended(server.run("values.py", "goes"))
    assert "passing.txt is in a folder of the attempt, which is removed with it" in execution.error.message, execution.error.message
    assert [n.id.node_id for n in execution.node_executions.values() if n.error] == ["n0"] or execution.error.message.startswith("task values.passing"), execution.error.message


@pytest.fixture(scope="module")
def deep_server(tmp_path_factory):
    """A server whose data folder has a long path with an escape in it."""
    at = tmp_path_factory.mktemp("deep") / ("a%41 long name " * 6).strip()
    at.mkdir()
    s = Server(at / "data").start()
    yield s
    s.end()


def test_tasks_make_sockets_and_return_files_in_a_data_folder_with_a_long_name(deep_server):
    assert deep_server.outputs(deep_server.run("values.py", "sockets")).get("o0") == "dict_keys(['tmp'])"
    assert deep_server.outputs(deep_server.run("values.py", "unescaped")).get("o0") == "found"


def test_an_eager_workflow_finds_its_own_server(server):
    assert server.outputs(server.run("values.py", "driven", "--x", "3")).get("o0") == 5


@pytest.mark.parametrize("kind, ways_out", [("module", ["which has no module not_installed_anywhere", "-m pip install"]), ("file", ["data/not_shipped.csv is not in the task's folder", "--copy all"])])
def test_an_error_of_where_a_task_ran_says_the_way_out(server, kind, ways_out):
    message = server.ended(server.run("values.py", "lacks", "--kind", kind)).error.message
    for text in ways_out:
        assert text in message


def test_code_with_links_that_lead_anywhere_runs(server, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "abs").symlink_to("/etc/hostname")
    (tmp_path / "outside").write_text("beside")
    (project / "out").symlink_to("../outside")
    (project / "linked.py").write_text("from flytekit import task\n@task\ndef t() -> list[str]:\n    import os\n    return sorted(os.readlink(n) for n in ('abs', 'out'))\n")
    name = server.run("--copy", "all", "linked.py", "t", cwd=project)
    assert server.outputs(name).get("o0") == ["../outside", "/etc/hostname"]


def test_a_project_that_is_not_there_is_said_in_two_lines(server):
    done = server.pyflyte("run", "--remote", "-p", "typo", "values.py", "unescaped", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "project [typo]" in text.replace("\n", " "), text
    assert "Traceback" not in text and len(text.splitlines()) < 20, text


def test_a_secret_that_no_variable_gives_is_named_before_anything_runs(server, tmp_path):
    (tmp_path / "secretive.py").write_text(
        "from flytekit import task, Secret, current_context\n"
        "@task(secret_requests=[Secret(group='db', key='password')])\ndef t() -> str:\n    return current_context().secrets.get('db', 'password')\n"
    )
    done = server.pyflyte("run", "--remote", "secretive.py", "t", cwd=tmp_path, check=False)
    text = (done.stdout + done.stderr).replace("\n", " ")
    assert done.returncode != 0 and "db/password" in text and "_FSEC_DB_PASSWORD" in text, text
    name = server.run("--env", "_FSEC_DB_PASSWORD=open sesame", "secretive.py", "t", cwd=tmp_path)
    assert server.outputs(name).get("o0") == "open sesame"
