"""Networks from ONNX files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.host.networks.graphs import Drawing, computed, ops

from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.sources.onnx import OnnxSource

ROWS, COLUMNS = 40, 50


@pytest.fixture
def message(rng: np.random.Generator) -> onnx.ModelProto:
    """A dense layer of 2000 weights, and something to clean."""
    d = Drawing(x=("B", ROWS))
    x = d.node("MatMul", d.node("Identity", "x"), d.constant(rng.standard_normal((ROWS, COLUMNS))))
    made: onnx.ModelProto = onnx.ModelProto.FromString(model_bytes(d.graph(d.node("Relu", x))))
    return made


def test_a_file_is_read_whole(message: onnx.ModelProto, tmp_path: Path) -> None:
    """Graph, hash, size and width of the weights."""
    path = tmp_path / "dense.onnx"
    path.write_bytes(message.SerializeToString())

    model = OnnxSource().load(str(path), task="features")

    assert (model.name, model.family) == ("dense", "onnx")
    assert ops(model.graph) == ["MatMul", "Relu"]
    assert model.sha256 == sha256_of(path)
    assert (model.source_bytes, model.weight_bits) == (4 * ROWS * COLUMNS, 32)


def test_external_data_counts(message: onnx.ModelProto, tmp_path: Path) -> None:
    """Another weight beside the file is another source."""
    path = tmp_path / "dense.onnx"
    onnx.save(message, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    first = OnnxSource().load(str(path), task="features")
    content = bytearray((tmp_path / "w.bin").read_bytes())
    content[2 : COLUMNS * 4 : 4] = bytes(COLUMNS)  # the high bytes of the first row
    (tmp_path / "w.bin").write_bytes(content)

    second = OnnxSource().load(str(path), task="features")

    assert first.sha256 != second.sha256
    x = np.ones((1, ROWS), dtype=np.float32)
    assert not np.array_equal(computed(first.graph, {"x": x}), computed(second.graph, {"x": x}))


def test_half_precision_is_said(tmp_path: Path) -> None:
    """The width of most weights, vectors not counted."""
    d = Drawing(x=("B", 4))
    half = d.node("Cast", d.constant(np.ones((4, 3)), np.float16), to=1)
    graph = d.graph(d.node("Gemm", "x", half, d.constant(np.ones(3))))
    path = tmp_path / "half.onnx"
    path.write_bytes(model_bytes(graph))

    assert OnnxSource().load(str(path), task="features").weight_bits == 16


def test_half_precision_becomes_float32_inside(tmp_path: Path) -> None:
    """Inputs and outputs keep their type; what is between them can be compressed."""
    half = onnx.TensorProto.FLOAT16
    w = np.arange(12, dtype=np.float16).reshape(4, 3) / 8
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
            onnx.helper.make_node("Cast", ["h"], ["c"], to=half),
            onnx.helper.make_node("Relu", ["c"], ["y"]),
        ],
        "half",
        [onnx.helper.make_tensor_value_info("x", half, ["B", 4])],
        [onnx.helper.make_tensor_value_info("y", half, ["B", 3])],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    made = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(made, tmp_path / "half.onnx")

    model = OnnxSource().load(str(tmp_path / "half.onnx"), task="features")

    assert model.graph.constants["w"].dtype == np.float32
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [np.float16] * 2
    assert "float16 is brought to float32" in model.notes[0]
    assert model.weight_bits == 16
    x = np.array([[1, -2, 3, 0.5]], np.float16)
    np.testing.assert_array_equal(computed(model.graph, {"x": x})[0], np.maximum(x @ w, 0))


def test_a_file_of_any_name_is_called_in_a_bundles_letters(
    message: onnx.ModelProto, tmp_path: Path
) -> None:
    """Spaces and letters of other scripts become dashes."""
    onnx.save(message, tmp_path / "my net äö (2).onnx")

    model = OnnxSource().load(str(tmp_path / "my net äö (2).onnx"), task="features")

    assert model.name == "my-net-2"


@pytest.mark.parametrize("place", ["missing.bin", "../outside.bin"])
def test_attack_data_elsewhere(place: str, message: onnx.ModelProto, tmp_path: Path) -> None:
    """Data must lie in the file's own folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "dense.onnx"
    onnx.save(message, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "outside.bin").write_bytes((folder / "w.bin").read_bytes())
    changed = onnx.load(path, load_external_data=False)
    for entry in changed.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = place
    path.write_bytes(changed.SerializeToString())

    with pytest.raises(SourceError, match="not a whole ONNX model"):
        OnnxSource().load(str(path), task="features")


def test_what_is_no_onnx_file(tmp_path: Path) -> None:
    """Names decide who reads; a missing or damaged file is said to be that."""
    source = OnnxSource()
    path = tmp_path / "a.onnx"

    assert "no file" in str(source.why_not(str(path)))
    with pytest.raises(SourceError, match="no such file"):
        source.load(str(path), task="features")
    path.write_bytes(b"not a model")
    assert source.why_not(str(path)) is None
    with pytest.raises(SourceError, match="not a whole ONNX model"):
        source.load(str(path), task="features")
    (tmp_path / "a.txt").touch()
    assert "not called .onnx" in str(source.why_not(str(tmp_path / "a.txt")))
