"""The committed tiny bundle is what the code makes today, byte by byte."""

from pathlib import Path

import numpy as np
import pytest
from tests.host.tiny_bundle import PLACE, make_tiny_bundle

from onhand.core.bundle import read_bundle
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.opening import open as open_bundle

ANSWERS = [306, 15, 15, 136, 15, 15, 15, 15, 175, 43, 46, 192, 252, 84, 309, 46]


def test_making_it_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """A change of the format shows here; if it is meant, run scripts/make_tiny_bundle."""
    make_tiny_bundle(tmp_path / "again")

    names = sorted(path.name for path in PLACE.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (PLACE / name).read_bytes(), name


def test_it_is_small() -> None:
    """It is committed."""
    assert sum(path.stat().st_size for path in PLACE.iterdir()) < 100_000


@pytest.mark.parametrize("engine", [OnnxEngine(), ReferenceEngine()], ids=["onnx", "reference"])
def test_its_answers_have_not_changed(engine: Engine) -> None:
    """The likeliest tokens after a fixed prompt, as the first version gave them."""
    loaded = engine.open(read_bundle(PLACE), variant="int4", threads=1)

    logits = loaded.score(loaded.session(), np.arange(260, 276))

    assert logits.argmax(axis=1).tolist() == ANSWERS


def test_it_speaks() -> None:
    """Through the front door, in every variant."""
    for variant in ("int4", "int8"):
        with open_bundle(PLACE, variant=variant, threads=1) as session:
            assert session.engine_name == "onnx"
