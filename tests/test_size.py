"""Files and functions stay small enough to read in one go, and are named after one concern."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE, MAX_FUNCTION = 400, 60
DRAWERS = {"common", "helpers", "manager", "misc", "utils"}
FILES = sorted(
    path
    for folder in ("src", "tests", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_or_function_is_too_long(path: Path) -> None:
    """Split by concern before raising a limit."""
    text = path.read_text()
    functions = {
        f"{node.name} (line {node.lineno})": (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert text.count("\n") <= MAX_FILE
    assert {name: n for name, n in functions.items() if n > MAX_FUNCTION} == {}


def test_no_module_is_a_drawer() -> None:
    """A file is named after its one concern."""
    names = {path: {path.stem, *path.relative_to(ROOT).parts} for path in FILES}

    assert [path for path, parts in names.items() if parts & DRAWERS] == []
