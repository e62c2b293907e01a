"""The tables of README.md and the tests that they name are the same. Needs no server."""

import ast
import pathlib
import re

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
README = (HERE / "README.md").read_text()
TEST = re.compile(r"`([\w./-]+)::(\w+)`")


def rows(heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, without their heads."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {number for number, line in enumerate(lines) if number + 1 < len(lines) and lines[number + 1].startswith("|---")}
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for number, line in enumerate(lines) if number not in heads and not line.startswith("|---")]


def there(place: str, name: str) -> bool:
    """Whether a test exists: in a Python file, or in the folder of a Go package."""
    path = ROOT / place
    if place.endswith(".py"):
        return path.is_file() and any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body)
    return any(re.search(rf"^func {name}\(", file.read_text(), re.MULTILINE) for file in path.glob("*_test.go"))


def test_each_test_that_the_tables_name_is_there():
    named = TEST.findall(README)
    assert len(named) > 100
    assert [f"{place}::{name}" for place, name in named if not there(place, name)] == []
    assert README.count("::") == len(named), "a name of a test is not in the form `place::name`"


def test_each_line_has_a_test_or_a_reason():
    for row in rows("Found") + rows("Held"):
        assert len(row) == 4, f"{row[0]} has not four cells"
        assert TEST.search(row[3]) or re.search(r"\*\*left\*\*: .{20}", row[3]), f"{row[0]} has neither a test nor a reason"


def test_no_line_is_missing():
    found = [row[0] for row in rows("Found")]
    assert found == [f"F{n}" for n in range(1, 18)] + [f"F18.{n}" for n in range(1, 14)] + [f"F19.{n}" for n in range(1, 10)]
    held = [row[0] for row in rows("Held")]
    assert held == [f"H{n}" for n in range(1, 1 + len(held))]


def test_each_test_here_is_in_the_tables():
    named = set(TEST.findall(README))
    own = [(f"test/hostile/{path.name}", node.name) for path in HERE.glob("test_*.py") if path != pathlib.Path(__file__) for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert sorted(set(own) - named) == []


def test_reasons_to_skip_are_listed():
    listed = {row[0] for row in rows("Skipped without") if not TEST.search(row[0])}
    used = set()
    for path in HERE.glob("test_*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in ("pytest.skip", "pytest.mark.skipif", "pytest.mark.skip", "pytest.importorskip"):
                reasons = [k.value for k in call.keywords if k.arg == "reason"] or call.args[:1]
                used |= {reason.value if isinstance(reason, ast.Constant) else ast.unparse(reason) for reason in reasons}
    assert used == listed
