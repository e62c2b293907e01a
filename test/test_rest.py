"""Programs without gRPC: Flyte's REST paths in JSON and in binary protobuf, on the same port."""

import json
import urllib.error

import pytest
from flyteidl.admin import execution_pb2, project_pb2


def test_projects_are_read_as_json(server):
    with server.get("/api/v1/projects") as answer:
        assert answer.headers.get_content_type() == "application/json"
        projects = json.load(answer)["projects"]
    assert "flytesnacks" in [p["id"] for p in projects]
    assert [d["id"] for d in projects[0]["domains"]] == ["development", "staging", "production"]


def test_projects_are_read_as_protobuf(server):
    with server.get("/api/v1/projects", Accept="application/octet-stream") as answer:
        assert answer.headers.get_content_type() == "application/octet-stream"
        projects = project_pb2.Projects.FromString(answer.read())
    assert "flytesnacks" in [p.id for p in projects.projects]


def test_a_run_is_read_as_protobuf_and_as_json(server):
    name = server.run("basics.py", "add", "--a", "1", "--b", "2")
    server.ended(name)
    path = f"/api/v1/executions/flytesnacks/development/{name}"
    with server.get(path, Accept="application/octet-stream") as answer:
        assert execution_pb2.Execution.FromString(answer.read()).closure.phase == 4
    with server.get(path) as answer:
        assert json.load(answer)["closure"]["phase"] == "SUCCEEDED"
    with server.get(f"/api/v1/data/executions/flytesnacks/development/{name}") as answer:
        assert json.load(answer)["full_outputs"]["literals"]["o0"]["scalar"]["primitive"]["integer"] == "3"


def test_what_is_missing_is_not_found(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/api/v1/executions/flytesnacks/development/nosuchexecution")
    assert caught.value.code == 404
    assert "nosuchexecution" in json.load(caught.value)["message"]
