"""A network that learned here answers with what it learned, wherever it is opened."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import LABELS, write_bundle
from tests.device.learning.test_learn import NAIVE, write_data

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.device.learning.gate import Bounds
from onhand.device.learning.in_use import versions_of
from onhand.device.learning.learn import learn
from onhand.device.networks.session import open_session


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network that can learn its head."""
    return write_bundle(tmp_path / "things")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes that it knows, and a new one."""
    return write_data(tmp_path / "data", names=("cup", "lamp", "window"))


def test_the_version_in_use_answers(bundle: Bundle, data: Path, home: Path) -> None:
    """With the new class by its name; and the one as it was built where it is asked for."""
    learn(bundle.root, data, settings=NAIVE, home=home)
    example = sorted((data / "window").iterdir())[0]

    with open_session(bundle.root, engine="onnx", home=home) as session:
        assert session.learned.number == 1
        assert session.labels == (*LABELS, "window")
        assert session.classify(example)[0].label == "window"
        learned_hash = session.bundle_sha256
    with open_session(bundle.root, engine="onnx", home=home, version=0) as session:
        assert session.learned.number == 0
        assert session.labels == LABELS
        assert session.classify(example)[0].share == pytest.approx(1 / 3)
        assert session.bundle_sha256 == bundle.manifest_sha256 != learned_hash


def test_after_a_rollback_it_answers_as_before(bundle: Bundle, data: Path, home: Path) -> None:
    """Names of classes stay for versions that have them."""
    learn(bundle.root, data, settings=NAIVE, home=home)
    versions_of(bundle, home).rollback()

    with open_session(bundle.root, engine="onnx", home=home) as session:
        assert session.labels == LABELS
    with open_session(bundle.root, engine="onnx", home=home, version=1) as session:
        assert session.labels == (*LABELS, "window")


def test_the_command_says_which_version_answers(
    bundle: Bundle, data: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And takes the one that it is told."""
    learn(bundle.root, data, settings=NAIVE, home=home)
    example = str(sorted((data / "window").iterdir())[0])

    assert main(["run", str(bundle.root), "--input", example, "--engine", "onnx"]) == 0
    shown = capsys.readouterr()
    assert "window" in shown.out
    assert "version 1 learned here answers" in shown.err
    for built in ("base", "0"):
        words = ["--engine", "onnx", "--version", built, "--top", "3"]
        assert main(["run", str(bundle.root), "--input", example, *words]) == 0
        assert "cup 33.3%, lamp 33.3%, door 33.3%" in capsys.readouterr().out


def test_a_version_is_measured(
    bundle: Bundle, data: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its number, which the command that measures again has too; else the bundle as built."""
    learn(bundle.root, data, settings=NAIVE, home=home)
    words = ["bench", str(bundle.root), "--engine", "onnx", "--runs", "1", "--json"]

    assert main([*words, "--version", "1"]) == 0
    found = capsys.readouterr()
    assert "--version 1" in found.out
    assert "as it was built" not in found.err
    assert main([*words, "--version", "7"]) == 2
    assert "no version 7" in capsys.readouterr().err
    assert main([*words, "--version", "x"]) == 2
    assert "--version is 'x'" in capsys.readouterr().err
    assert main(["bench", str(bundle.root), "--on", "ssh://x", "--version", "1"]) == 2
    assert "of this device" in capsys.readouterr().err


def test_a_refused_version_leaves_no_name_behind(
    bundle: Bundle, data: Path, home: Path, tmp_path: Path
) -> None:
    """Its classes have numbers where somebody opens it; the next training has its own names."""
    strict = replace(NAIVE, bounds=Bounds(least_gain=100))
    refused = learn(bundle.root, data, settings=strict, home=home)
    other = write_data(tmp_path / "other", names=("cup", "lamp", "roof"))
    made = learn(bundle.root, other, settings=NAIVE, home=home)

    assert (refused.is_accepted, refused.added_classes) == (False, ("window",))
    assert (made.is_accepted, made.added_classes) == (True, ("roof",))
    with open_session(bundle.root, engine="onnx", home=home) as session:
        assert session.labels == (*LABELS, "roof")
    added = versions_of(bundle, home).folder / "classes.json"
    added.unlink()
    with open_session(bundle.root, engine="onnx", home=home, version=1) as session:
        assert session.labels == (*LABELS, "new class 1")


def test_classes_of_a_version_that_is_not_in_use_are_learned_anew(
    bundle: Bundle, data: Path, home: Path
) -> None:
    """They keep their place: a version that has them may come back."""
    learn(bundle.root, data, settings=replace(NAIVE, use=False), home=home)
    made = learn(bundle.root, data, settings=NAIVE, home=home)

    assert (made.is_used, made.added_classes) == (True, ("window",))
    with open_session(bundle.root, engine="onnx", home=home) as session:
        assert session.labels == (*LABELS, "window")


def test_a_version_that_is_none_is_refused(bundle: Bundle, home: Path) -> None:
    """By its number."""
    with pytest.raises(InputError, match="7"):
        open_session(bundle.root, home=home, version=7)


def test_the_scores_are_those_that_were_taught(bundle: Bundle, data: Path, home: Path) -> None:
    """What judged the version is what answers."""
    made = learn(bundle.root, data, settings=NAIVE, home=home)
    right = []
    with open_session(bundle.root, engine="onnx", home=home) as session:
        for path in sorted(data.rglob("*.npz")):
            right.append(session.classify(path)[0].label == path.parent.name)

    assert made.figures["new_accuracy"] == 1.0
    assert np.mean(right) == 1.0
