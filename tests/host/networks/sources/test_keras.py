"""Networks from Keras files compute what Keras predicts."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.networks.graphs import computed, ops

from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.sources.keras import KerasSource
from onhand.host.networks.sources.keras_config import check_config
from onhand.host.networks.sources.tflite import TfliteSource

ROOT = Path(__file__).parents[4]
NAMES = ("activations", "embedding", "nested", "one-place", "pictures", "sounds")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, made where Keras runs on torch."""
    folder = tmp_path_factory.mktemp("keras")
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    script = ROOT / "tests" / "host" / "networks" / "sources" / "keras_models.py"
    subprocess.run(
        [sys.executable, str(script), str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return folder


def check_predictions(graph: Graph, told: Path) -> None:
    """A graph computes what Keras predicted."""
    arrays = np.load(told)
    feeds = {value.name: arrays[f"in{i}"] for i, value in enumerate(graph.inputs)}
    for i, found in enumerate(computed(graph, feeds)):
        # Sums run in another order, and weights are folded.
        np.testing.assert_allclose(found, arrays[f"out{i}"], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_layers_compute_what_keras_predicts(name: str, models: Path) -> None:
    """All that are known, with the batch open."""
    graph = read_onnx(models / f"{name}.onnx")

    check_predictions(graph, models / f"{name}.npz")
    assert graph.inputs[0].shape[0] == "batch"


@pytest.mark.slow
def test_nothing_turns_between_layers(models: Path) -> None:
    """Once on the way in, and never again before the dense layer."""
    for name, n in (("pictures", 1), ("one-place", 1)):
        assert ops(read_onnx(models / f"{name}.onnx")).count("Transpose") == n
    assert ops(read_onnx(models / "one-place.onnx")) == [
        "Transpose", "Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm",
    ]  # fmt: skip
    assert "BatchNormalization" not in ops(read_onnx(models / "sounds.onnx"))[:3]


@pytest.mark.slow
def test_a_file_is_read_whole(models: Path) -> None:
    """Through a process of its own, with nothing changed in this one."""
    path = models / "pictures.keras"
    source = KerasSource()

    assert source.why_not(str(path)) is None
    model = source.load(str(path), task="features")

    check_predictions(model.graph, models / "pictures.npz")
    assert (model.name, model.family, model.weight_bits) == ("pictures", "keras", 32)
    assert model.sha256 == sha256_of(path)
    assert model.source_bytes > 1000
    assert "KERAS_BACKEND" not in os.environ
    assert "keras" not in sys.modules


@pytest.mark.slow
def test_a_file_of_keras_2_is_read(assets: Path, rng: np.random.Generator) -> None:
    """A ResNet in HDF5 gives what its own LiteRT file gives."""
    folder = assets / "mlperf-tiny" / "image_classification" / "trained_models"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    ours = KerasSource().load(str(folder / "pretrainedResnet.h5"), task="image-classification")
    other = TfliteSource().load(str(folder / "pretrainedResnet.tflite"), task="features")
    x = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)

    found, expected = (
        computed(graph, {graph.inputs[0].name: x})[0] for graph in (ours.graph, other.graph)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def described(*entries: dict[str, Any]) -> dict[str, Any]:
    """A configuration of a Functional model of some layers."""
    return {
        "class_name": "Functional",
        "module": "keras.src.models.functional",
        "config": {"name": "m", "layers": list(entries)},
        "compile_config": {"loss": {"class_name": "f", "module": "mine"}},
    }


def layer(kind: str, module: str | None = "keras.layers", **config: object) -> dict[str, Any]:
    """One layer of a configuration."""
    return {"class_name": kind, "module": module, "config": {"name": "x", **config}}


def write_keras(path: Path, config: object) -> None:
    """A `.keras` file without weights."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))


def write_h5(path: Path, config: object) -> None:
    """An `.h5` file without weights."""
    import h5py

    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)


WRITERS = {".keras": write_keras, ".h5": write_h5}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (layer("Lambda", function="b64"), "is a Lambda, code"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {}}), "__lambda__"),
        (layer("system", "os"), "comes from 'os'"),
        (layer("get_file", "keras.utils"), "comes from 'keras.utils'"),
        (layer("Wrapper", layer=layer("Mine", "mine.layers")), "comes from 'mine.layers'"),
        (layer("Dense", "keras.layers\nos"), "only Keras's own"),
    ],
)
def test_attack_code_in_a_file(
    suffix: str, entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Refused before Keras sees the file, by either form of it, at any depth."""
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](path, described(layer("Dense"), entry))

    with pytest.raises(SourceError, match=message):
        KerasSource().load(str(path), task="features")


@pytest.mark.parametrize("suffix", WRITERS)
def test_plain_layers_may_pass(suffix: str, tmp_path: Path) -> None:
    """What describes layers is let through; how the model was trained does not count."""
    path = tmp_path / f"model{suffix}"
    relu = {"class_name": "function", "config": "relu", "module": "builtins"}
    WRITERS[suffix](path, described(layer("Dense", activation=relu), layer("Old", None)))

    check_config(path)


def test_attack_a_deep_configuration(tmp_path: Path) -> None:
    """Depth is bounded."""
    config: dict[str, Any] = {}
    for _ in range(300):
        config = {"config": config}
    write_keras(tmp_path / "m.keras", config)

    with pytest.raises(SourceError, match="200 deep"):
        check_config(tmp_path / "m.keras")


def test_what_is_no_model(tmp_path: Path) -> None:
    """Weights alone, text, a cut archive, a missing file: each is said."""
    source = KerasSource()
    weights, text, cut = tmp_path / "w.h5", tmp_path / "t.h5", tmp_path / "c.keras"
    write_h5(weights, None)
    text.write_text("no model")
    write_keras(cut, described())
    cut.write_bytes(cut.read_bytes()[:40])
    listed = tmp_path / "l.keras"
    write_keras(listed, [])

    for path, message in (
        (weights, "weights alone"),
        (text, "no whole HDF5"),
        (cut, "no whole .keras"),
        (listed, "must be an object"),
        (tmp_path / "missing.h5", "no such file"),
    ):
        with pytest.raises(SourceError, match=message):
            source.load(str(path), task="features")
    assert "does not begin" in str(source.why_not(str(text)))
    assert "neither" in str(source.why_not(__file__))
    assert "no file" in str(source.why_not(str(tmp_path)))
