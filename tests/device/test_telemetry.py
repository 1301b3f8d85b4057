"""What a library would tell its maker stays on the device."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onhand
from onhand.device.telemetry import refuse_telemetry

SRC = Path(onhand.__file__).parent
BUNDLE = Path(__file__).parents[1] / "data" / "tiny-bundle"


def test_a_setting_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who wants to send may."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")

    refuse_telemetry()

    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_without_one_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads it when it starts."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)

    refuse_telemetry()

    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def _careless(tree: ast.Module) -> list[int]:
    """Return the lines of imports within functions that nothing is said before."""
    found: list[int] = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or isinstance(node, ast.If | ast.Module):
            continue
        for before, one in zip([None, *body], body, strict=False):
            is_import = isinstance(one, ast.Import) and one.names[0].name == "onnxruntime"
            said = isinstance(before, ast.Expr) and ast.unparse(before) == "refuse_telemetry()"
            if is_import and not said:
                found.append(one.lineno)
    return found


def test_every_import_of_onnx_runtime_is_asked_to_keep_quiet_first() -> None:
    """No way to open a model forgets it."""
    careless = {
        str(path.relative_to(SRC)): lines
        for path in SRC.rglob("*.py")
        if (lines := _careless(ast.parse(path.read_text(encoding="utf-8"))))
    }

    assert careless == {}


def test_a_model_that_runs_leaves_nothing_in_the_users_home(tmp_path: Path) -> None:
    """Neither an identifier nor a database of events."""
    cleared = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in cleared}

    line = f"run {BUNDLE} --engine onnx --prompt hello --max-tokens 2"

    done = subprocess.run(
        [sys.executable, "-P", "-m", "onhand", *line.split()],
        env={**kept, "HOME": str(tmp_path / "home"), "ONHAND_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [str(path) for path in (tmp_path / "home").rglob("*")] == []
