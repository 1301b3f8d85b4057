"""`onhand bench --on` and `onhand probe --on`, over a real SSH connection on loopback."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from tests.host.target.conftest import Board
from tests.host.target.test_link import soon
from tests.network_bundles import classifier, pack

from onhand.cli.main import main
from onhand.core.bundle import read_manifest
from onhand.core.errors import InputError
from onhand.core.profile import read_profile
from onhand.device.bench import NAMES
from onhand.device.networks.bench import NAMES as NETWORK_NAMES
from onhand.device.probe import current_profile
from onhand.host.target.measuring import figures_from_output

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


@pytest.mark.slow
def test_a_bundle_is_measured_on_a_board(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures come back with the board's name and how they were taken; nothing stays there."""
    code = main(["bench", str(TINY), *board.words, "--runs", "1", "--json"])
    out, err = capsys.readouterr()

    assert code == 0, err
    figures = json.loads(out)
    assert set(figures) == set(NAMES)
    name, here = read_manifest(TINY)[0].name, current_profile()
    for figure in figures.values():
        assert figure["how"].startswith(f"onhand bench {name} --on {board.url} ")
        assert figure["how"].endswith(f" on {here.name} ({here.system}, {here.machine})")
    assert "--threads 1 " in figures["load_s"]["how"], board.limited_by
    assert not any((board.home / ".cache").iterdir())
    assert board.running() == []


@pytest.mark.slow
def test_a_network_is_measured_on_a_board(
    board: Board, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the options of networks; those of language models are refused, by the board."""
    bundle = pack(tmp_path / "net", {"fp32": classifier(np.random.default_rng(0))})
    words = ["bench", str(bundle.root), *board.words, "--keep", "--runs", "1", "--json"]

    code = main([*words, "--engine", "onnx"])
    out, err = capsys.readouterr()

    assert code == 0, err
    assert set(json.loads(out)) == set(NETWORK_NAMES)
    assert main([*words, "--kv", "int8"]) == 2
    assert "measuring: --kv is for language models; leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupt_ends_what_runs_on_the_board(board: Board) -> None:
    """Ctrl-C in the middle of the measuring: nothing runs on there, nothing stays there."""
    asked = subprocess.Popen(
        [sys.executable, "-m", "onhand", "bench", str(TINY), *board.words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.stderr is not None
    until_running(asked.stderr)

    asked.send_signal(signal.SIGINT)
    out, err = asked.communicate(timeout=60)

    assert asked.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == "onhand bench: interrupted"
    assert soon(lambda: board.running() == [])
    assert not any((board.home / ".cache").iterdir())


def until_running(lines: IO[str]) -> None:
    """Read progress until the measuring has begun on the board."""
    for line in lines:
        if line.startswith("on the board: starting"):
            return
    pytest.fail("it never began")


@pytest.mark.slow
def test_what_is_kept_is_not_copied_again(
    board: Board, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With --keep the files stay, and the board's own errors come back with their exit code."""
    words = ["bench", str(TINY), *board.words, "--variant", "none", "--keep"]
    codes = [main(words)]
    first = capsys.readouterr().err
    codes.append(main(words))
    second = capsys.readouterr().err

    assert codes == [2, 2]
    assert "copying" in first
    assert "copying" not in second
    assert "measuring: " in second
    assert "no variant 'none'; it has" in second
    assert list((board.home / ".cache/onhand-on-target/files").iterdir())


@pytest.mark.slow
def test_a_profile_is_brought_back(board: Board, tmp_path: Path) -> None:
    """What `--device` of a build takes: the board's, with one processor as it is limited."""
    saved = tmp_path / "board.toml"

    assert main(["probe", *board.words, "-o", str(saved), "--json"]) == 0

    profile = read_profile(saved)
    assert profile.usable_threads == 1, board.limited_by
    assert len(profile.read_bandwidth) == 1


def test_options_of_boards_need_a_board(capsys: pytest.CaptureFixture[str]) -> None:
    """They would have no effect otherwise."""
    assert main(["bench", str(TINY), "--keep"]) == 2
    assert "--keep is for a board, and --on names none; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", "not JSON"),
        ("[]", "no JSON object of figures"),
        ("{}", "no JSON object of figures"),
        ('{"load_s": {"value": 1}}', "not a measurement"),
        ('{"load_s": {"value": NaN}}', "not JSON"),
    ],
)
def test_attack_figures_that_are_none_are_refused(output: str, told: str) -> None:
    """A board's answer comes from outside."""
    with pytest.raises(InputError, match=f"what it measured cannot be read: .*{told}"):
        figures_from_output(output, where="ssh://board")
