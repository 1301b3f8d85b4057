"""Exporting: what is passed on, what is shown, what is refused."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.cli.conftest import FakeHost

from onhand.cli.main import main
from onhand.core.errors import InputError

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Exported:
    """See `ExportResult`."""

    largest_error: float = 0.0
    has_tokenizer: bool = True
    path: Path = Path("m.gguf")
    format: str = "gguf"
    variant: str = "int4"
    size_bytes: int = 2**20
    largest_error_steps: float = 0.004

    @property
    def tensors(self) -> dict[str, int]:
        """Type -> number."""
        return {"Q4_1": 15, "F32": 5}

    def to_json(self) -> dict[str, object]:
        """See `ExportResult`."""
        return {"format": self.format, "tensors": self.tensors}


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Replaces the export, which needs packages that a device lacks."""
    made = FakeHost(outcome=Exported())
    module = SimpleNamespace(export_bundle=made("export"))
    monkeypatch.setitem(sys.modules, "onhand.host.export.bundle_export", module)
    return made


def test_everything_is_passed_on(exporting: FakeHost, capsys: Capture) -> None:
    """The result is one object."""
    assert (
        main(["export", "bundle", "--to", "gguf", "-o", "m.gguf", "--variant", "int4", "--json"])
        == 0
    )

    ((_, arguments, options),) = exporting.calls
    assert options.pop("progress") is not None
    assert arguments == (Path("bundle"), Path("m.gguf"))
    assert options == {"to": "gguf", "variant": "int4"}
    assert json.loads(capsys.readouterr().out) == Exported().to_json()


def test_people_see_what_was_written(exporting: FakeHost, capsys: Capture) -> None:
    """Types, and that nothing was lost."""
    assert main(["export", "bundle", "--to", "gguf", "-o", "m.gguf"]) == 0

    shown = capsys.readouterr().out
    assert "m.gguf (gguf, 1.0 MiB)" in shown
    assert "15 x Q4_1, 5 x F32" in shown
    assert "none: every weight is the bundle's" in shown
    assert "included" in shown


def test_people_see_what_was_lost(exporting: FakeHost, capsys: Capture) -> None:
    """In steps of the weight, and that there is no tokenizer."""
    exporting.outcome = Exported(largest_error=1e-4, has_tokenizer=False)

    assert main(["export", "bundle", "--to", "gguf", "-o", "m.gguf"]) == 0

    shown = capsys.readouterr().out
    assert "at most 0.004 of its step" in shown
    assert "token ids only" in shown


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--to ggml -o m", "'ggml' is not one of 'gguf', 'genai'"),
        ("-o m", "missing option '--to'"),
        ("--to gguf", "missing option '-o'"),
    ],
)
def test_a_wrong_command_line(
    exporting: FakeHost, line: str, sentence: str, capsys: Capture
) -> None:
    """Nothing is started."""
    assert main(["export", "bundle", *line.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert exporting.calls == []


def test_what_the_other_format_cannot_hold_is_one_sentence(
    exporting: FakeHost, capsys: Capture
) -> None:
    """The host's own."""
    exporting.outcome = InputError("embed is stored with 3 bits")

    assert main(["export", "bundle", "--to", "gguf", "-o", "m.gguf", "--json"]) == 2
    assert capsys.readouterr() == ("", "onhand export: embed is stored with 3 bits\n")


def test_a_missing_package_is_named(exporting: FakeHost, capsys: Capture) -> None:
    """With what installs it."""
    exporting.outcome = ModuleNotFoundError("No module named 'gguf'", name="gguf")

    assert main(["export", "bundle", "--to", "gguf", "-o", "m.gguf"]) == 2
    assert capsys.readouterr().err == (
        'onhand export: exporting needs gguf, which is not installed: pip install "onhand[host]"\n'
    )
