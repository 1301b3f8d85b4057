"""`onhand learn` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.device.learning.bundles import write_bundle
from tests.device.learning.test_learn import write_data

import onhand
from onhand.cli.main import main
from onhand.device.learning.learn import learn
from onhand.device.learning.settings import LearnSettings


@pytest.fixture
def taught(tmp_path: Path) -> list[str]:
    """The words of a command that teaches a small bundle."""
    write_bundle(tmp_path / "things")
    data = write_data(tmp_path / "data")
    words = ["learn", str(tmp_path / "things"), "--data", str(data), "--method", "naive"]
    return [*words, "--epochs", "8", "--batch", "4", "--heldout", "0.2"]


def test_it_says_before_and_after(taught: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And which version is in use now."""
    assert main(taught) == 0
    shown = capsys.readouterr()

    assert "6 new examples, held out" in shown.out
    assert "100.0%" in shown.out
    assert "version 1 passed its gate and is in use" in shown.out
    assert "24 examples in 48 steps by naive" in shown.out
    assert "learning ..." in shown.err


def test_the_loss_says_what_is_in_it(taught: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Steps that remember add the loss of that: a last one may look no better than the first."""
    assert main(taught) == 0
    naive = capsys.readouterr().out
    assert main([*taught[:4], "--method", "replay", *taught[6:]]) == 0
    replay = capsys.readouterr().out

    assert "in the last" in naive
    assert "remembered" not in naive
    assert "in the last, where remembered examples add theirs" in " ".join(replay.split())


def test_json_is_one_object(taught: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With plain numbers and booleans."""
    assert main([*taught, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)

    assert (table["version"], table["is_used"], table["ended"]) == (1, True, "done")
    assert table["figures"]["new_accuracy"] == 1.0


def test_a_refused_version_is_told_with_its_reasons(
    taught: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no error: the bundle is used as it was."""
    assert main([*taught, "--rate", "1e-30"]) == 0
    shown = capsys.readouterr().out

    assert "version 1 was refused by its gate and is not used:" in shown
    assert "must fall" in shown


def test_a_ceiling_that_lets_no_step_begin_is_an_error(
    taught: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    """Nothing was learned, so there is no version of it; with more the same command goes on."""
    assert main([*taught, "--max-memory", "1MiB"]) == 6
    told = capsys.readouterr().err
    assert main(taught) == 0

    assert "nothing was learned: the process holds" in told
    assert "its ceiling is 1.0 MiB" in told
    assert [
        one.number for one in onhand.open_versions(Path(taught[1]), home=home).list_versions()
    ] == [1]


def test_a_dry_run_does_nothing(
    taught: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    """It says what would be done."""
    assert main([*taught, "--dry-run"]) == 0
    shown = capsys.readouterr().out

    assert "24 examples would be taught, 6 judge" in shown
    assert "in 48 steps" in shown
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--heldout", "none.jsonl"], "is neither a share"),
        (["--method", "replai"], "did you mean 'replay'"),
        (["--cpu-share", "2"], "cpu_share is 2.0"),
        (["--data", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    taught: list[str], words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And exit code 2."""
    assert main([*taught, *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_a_process_that_ended_early_is_gone_on_with(
    taught: list[str], home: Path, tmp_path: Path, name: str, code: int
) -> None:
    """By Ctrl-C or without a word: the same command ends with the very same version."""
    slow = [sys.executable, "-m", "onhand", *taught, "--cpu-share", "0.001"]
    with subprocess.Popen(slow, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        # Its beginning, and its first step; then it rests for some seconds.
        while len(list((home / "state").glob("*/learned/training/*/st*.bin"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        _, told = process.communicate(timeout=60)

    assert process.returncode == code
    assert ("the same command goes on from there" in told) is (name == "SIGINT")
    bundle, data = Path(taught[1]), Path(taught[3])
    settings = LearnSettings(method="naive", epochs=8, batch=4, heldout=0.2)
    resumed = learn(bundle, data, settings=settings, home=home)
    learn(bundle, data, settings=settings, home=tmp_path / "other")
    assert resumed.resumed_at > 0
    versions = [onhand.open_versions(bundle, home=one) for one in (home, tmp_path / "other")]
    first, second = (one.find(1).sha256 for one in versions)
    assert first == second


def test_python_teaches_as_the_command_does(tmp_path: Path) -> None:
    """In one call."""
    write_bundle(tmp_path / "things")
    made = onhand.learn(
        tmp_path / "things", write_data(tmp_path / "data"), method="naive", home=tmp_path / "home"
    )

    assert made.version == 1
