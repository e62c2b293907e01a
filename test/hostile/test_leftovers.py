"""Attack 5: pipes, links and the like that a task leaves in the place of a file keep no execution from ending."""

import datetime
import pathlib

from conftest import Server

HERE = pathlib.Path(__file__).parent

# The kind of file, its place, the exit code of the task, and the code of the failure.
LEFT = [
    ("pipe", "outputs.pb", 0, "OutputsUnreadable"),
    ("pipe", "error.pb", 0, "ErrorFileBadFormat"),
    ("pipe", "stderr", 3, "Error"),
    ("pipe", "stdout", 3, "Error"),
    ("pipe", "futures.pb", 0, "OutputsNotFound"),
    ("pipe", "deck.html", 3, "Error"),
    ("socket", "outputs.pb", 0, "OutputsUnreadable"),
    ("loop", "error.pb", 0, "ErrorFileBadFormat"),
    ("zero", "outputs.pb", 0, "OutputsUnreadable"),
    ("passwd", "outputs.pb", 0, "OutputsUnreadable"),
    ("folder", "outputs.pb", 0, "OutputsUnreadable"),
    ("monster", "error.pb", 0, "ErrorFileBadFormat"),
    ("monster", "stderr", 3, "Error"),
]


def test_whatever_a_task_leaves_it_ends_and_so_does_the_server(own_server: Server):
    """Attack 5: thirteen at once, more than there are places for tasks; on the release before, the pipes took them all."""
    own_server.pyflyte("register", "left.py", "--version", "1", cwd=HERE)
    remote = own_server.remote()
    leaves, ones = (remote.fetch_workflow(name=f"left.{name}", version="1") for name in ("leaves", "ones"))
    begun = [(remote.execute(leaves, {"what": what, "name": name, "code": code}), what, name, want) for what, name, code, want in LEFT]
    other = remote.execute(ones, {})
    wait = {"timeout": datetime.timedelta(seconds=90), "poll_interval": datetime.timedelta(milliseconds=200), "sync_nodes": False}
    assert remote.wait(other, **wait).outputs["o0"] == 1
    wrong = []
    for execution, what, name, want in begun:
        error = remote.wait(execution, **wait).error
        if want not in (error.code, error.message) and f"|{want}" not in error.code or error.kind != 1:
            wrong.append(f"a {what} as {name}: {error}")
    assert not wrong, "\n".join(wrong)
    for execution, what, name, _ in begun:
        if name in ("stdout", "stderr") and what == "pipe":
            own_server.aloft("logs", execution.id.name)
    own_server.stop()  # which fails if it takes more than 20 s
