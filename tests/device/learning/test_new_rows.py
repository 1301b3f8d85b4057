"""New classes begin at zero, or at the mean direction of their examples."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.learning.bundles import write_bundle
from tests.device.learning.test_learn import NAIVE, write_data

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Teachable
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.learn import learn
from onhand.device.learning.new_rows import begin_classes
from onhand.device.learning.text_feeds import TextSource

ONE_STEP = replace(NAIVE, steps=1, rate=1e-6)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network that can learn its head."""
    return write_bundle(tmp_path / "things")


def test_imprinted_rows_know_a_class_before_it_is_trained(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """A step that moves nothing leaves it as it began; zeros leave all classes alike."""
    data = write_data(tmp_path / "data", 40, names=("cup", "lamp", "door", "window"))
    imprinted = replace(ONE_STEP, new_rows="imprinted")

    made = learn(bundle.root, data, settings=imprinted, home=home)
    plain = learn(bundle.root, data, settings=ONE_STEP, home=tmp_path / "other")

    assert any("mean direction" in note for note in made.notes)
    assert not any("mean direction" in note for note in plain.notes)
    assert made.figures["new_accuracy_before"] > plain.figures["new_accuracy_before"]


def test_what_cannot_be_imprinted_is_said(bundle: Bundle) -> None:
    """A lesson without a frozen trunk, or of texts."""
    teachable: Teachable = open_lesson(bundle, threads=1)

    with pytest.raises(InputError, match=r"--new-rows imprinted: .*take zeros"):
        begin_classes(
            teachable, teachable.start(), TextSource(), TextSource(), width=5, kind="imprinted"
        )
    values, said = begin_classes(
        teachable, teachable.start(), TextSource(), TextSource(), width=5, kind="zeros"
    )
    assert {len(value) for value in values.values()} == {5}
    assert said == ""
    assert isinstance(teachable.lesson, Lesson)


def test_an_unknown_way_is_refused(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line."""
    assert main(["learn", str(bundle.root), "--data", "x", "--new-rows", "ones"]) == 2
    assert "new-rows" in capsys.readouterr().err
