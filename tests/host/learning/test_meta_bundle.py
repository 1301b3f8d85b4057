"""Bundles whose learning begins from other values, and the command that writes them."""

from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import write_bundle

from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError
from onhand.core.progress import Quiet
from onhand.device.learning.lesson_files import read_lesson, read_start
from onhand.host.learning.meta import Meta
from onhand.host.learning.meta_bundle import meta_bundle, with_start


def test_only_the_start_differs(tmp_path: Path) -> None:
    """Every other file is the same to the byte, and the new bundle is whole."""
    bundle = write_bundle(tmp_path / "old")
    lesson = read_lesson(bundle)
    values = {name: value + 1 for name, value in read_start(bundle, lesson).items()}
    made = with_start(bundle, values, tmp_path / "new")

    again = read_bundle(tmp_path / "new")
    assert again.manifest_sha256 == made.manifest_sha256 != bundle.manifest_sha256
    for name, value in read_start(again, lesson).items():
        np.testing.assert_array_equal(value, values[name])
    differ = {
        name
        for name, entry in bundle.manifest.files.items()
        if entry.sha256 != again.manifest.files[name].sha256
    }
    assert differ == {lesson.start}


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Nothing is left behind."""
    bundle = write_bundle(tmp_path / "old")

    with pytest.raises(InputError, match="is missing"):
        with_start(bundle, {}, tmp_path / "new")
    assert [one.name for one in tmp_path.iterdir()] == ["old"]


def test_a_head_alone_has_nothing_to_find(tmp_path: Path) -> None:
    """The sentence says what to build with, and nothing is written."""
    bundle = write_bundle(tmp_path / "old")
    data = tmp_path / "data"
    for label in ("cup", "lamp", "door"):
        (data / label).mkdir(parents=True)
        name = bundle.manifest.network.inputs[0]
        shape = [1 if size is None else size for size in name.shape]
        np.savez(data / label / "a.npz", **{name.name: np.ones(shape, np.float32)})  # type: ignore[arg-type] # names are the caller's

    with pytest.raises(InputError, match="last-block or lora"):
        meta_bundle(bundle.root, data, tmp_path / "new", Meta(), threads=1, progress=Quiet())
    assert not (tmp_path / "new").exists()
