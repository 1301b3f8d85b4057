"""Networks from SavedModel folders; what needs TensorFlow is skipped where it is not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.graphs import computed, ops

from onhand.core.errors import InputError, SourceError
from onhand.host.networks.sources.child import convert_in_child
from onhand.host.networks.sources.tensorflow import TensorflowSource

HERE = Path(__file__).parent
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def test_what_is_no_folder_of_a_model(tmp_path: Path) -> None:
    """A file, and a folder without a graph."""
    source = TensorflowSource()

    assert "no folder" in str(source.why_not(__file__))
    assert "no saved_model.pb" in str(source.why_not(str(tmp_path)))
    with pytest.raises(SourceError, match="no folder"):
        source.load(str(tmp_path / "missing"), task="features")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorFlow is missing, what to install and what to do without."""
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"onhand\[host,tensorflow\].*\.tflite"):
        TensorflowSource().load(str(tmp_path), task="features")


def test_a_converter_that_fails_is_quoted(tmp_path: Path) -> None:
    """The last words of a process that ended badly."""
    with pytest.raises(SourceError, match="No module named"):
        convert_in_child("onhand.nothing", tmp_path, tmp_path / "out", environment={})


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TENSORFLOW, reason="needs tensorflow")
def test_a_folder_is_read(tmp_path: Path) -> None:
    """It computes what TensorFlow computes, with the batch open."""
    subprocess.run(
        [sys.executable, str(HERE / "tensorflow_models.py"), str(tmp_path)],
        check=True,
        capture_output=True,
    )

    model = TensorflowSource().load(str(tmp_path / "net"), task="features")

    told = np.load(tmp_path / "net.npz")
    found = computed(model.graph, {model.graph.inputs[0].name: told["x"]})[0]
    np.testing.assert_allclose(found, told["y"], atol=1e-5)
    assert ops(model.graph).count("Conv") == 1
    assert "Mul" not in ops(model.graph)
    assert (model.name, model.family) == ("net", "tensorflow")
    before = model.sha256
    (tmp_path / "net" / "assets" / "words.txt").write_text("more")
    assert TensorflowSource().load(str(tmp_path / "net"), task="features").sha256 != before


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TENSORFLOW, reason="needs tensorflow")
def test_a_damaged_folder_is_said(tmp_path: Path) -> None:
    """What TensorFlow says of it, in one line."""
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")

    with pytest.raises(SourceError, match="TensorFlow cannot convert it"):
        TensorflowSource().load(str(tmp_path), task="features")
