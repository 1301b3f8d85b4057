"""`onhand bench --on` and `onhand probe --on`, over a real SSH connection on loopback."""

import json
import shutil
from pathlib import Path

import pytest

from onhand.cli.main import main
from onhand.core.bundle import read_manifest
from onhand.core.profile import read_profile
from onhand.device.bench import NAMES
from tests.host.target.conftest import Board

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


def test_a_bundle_is_measured_on_a_board(
    board: Board, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    """The figures come back with the board's name and how they were taken; nothing stays there."""
    code = main(["bench", str(TINY), *board.words, "--runs", "1", "--json"])
    out, err = capsys.readouterr()

    assert code == 0, err
    figures = json.loads(out)
    assert set(figures) == set(NAMES)
    name = read_manifest(TINY)[0].name
    for figure in figures.values():
        assert figure["how"].startswith(f"onhand bench {name} --on {board.url} ")
        assert "; on " in figure["how"] or "  # on " in figure["how"]
    assert "--threads 1 " in figures["load_s"]["how"], board.limited_by
    assert not any((board.home / ".cache").iterdir())
    assert board.running() == []
