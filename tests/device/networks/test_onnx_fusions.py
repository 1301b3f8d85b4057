"""What ONNX Runtime makes of graphs by itself, and what it is told not to."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tests.network_bundles import Drawing, Op, info, pack

from onhand.core.bundle import Bundle
from onhand.device.networks.onnx import SLOWER_FUSIONS, OnnxNetworkEngine

onnx = pytest.importorskip("onnx", reason="reads graphs that ONNX Runtime wrote")

D = 16


def norms(folder: Path) -> Bundle:
    """A bundle of two sums with a norm behind each, of known sizes."""
    ops: list[Op] = []
    value = "x"
    for i in range(2):
        norm = "y" if i else "first"
        ops += [
            Op(kind="Relu", inputs=(value,), outputs=(f"relu{i}",)),
            Op(kind="Add", inputs=(f"relu{i}", value), outputs=(f"sum{i}",)),
            Op(
                kind="LayerNormalization",
                inputs=(f"sum{i}", "scale", "bias"),
                outputs=(norm,),
                attributes={"axis": -1},
            ),
        ]
        value = norm
    ones = np.ones(D, np.float32)
    drawing = Drawing(
        ops=ops,
        constants={"scale": ones, "bias": np.float32(0.5) * ones},
        inputs=(info("x", 1, 4, D),),
        outputs=(info("y", 1, 4, D),),
    )
    return pack(folder / "bundle", {"fp32": drawing})


def made_by(folder: Path, **told: Any) -> list[str]:
    """The operators that ONNX Runtime makes of that bundle's graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder / "bundle")
    )
    graph = (norms(folder).root / "model.onnx").read_bytes()
    ort.InferenceSession(graph, options, ["CPUExecutionProvider"], **told)
    made = onnx.load(folder / "optimised.onnx", load_external_data=False)
    return [node.op_type for node in made.graph.node]


@pytest.mark.parametrize(("told", "n"), [((), 2), (SLOWER_FUSIONS, 0)])
def test_sums_and_norms_can_be_left_apart(told: tuple[str, ...], n: int, tmp_path: Path) -> None:
    """What is turned off has a name that ONNX Runtime knows, and would have been done."""
    made = made_by(tmp_path, disabled_optimizers=list(told))

    assert made.count("SkipLayerNormalization") == n


def test_the_engine_leaves_them_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the answers of both norms."""
    told: list[object] = []
    session = ort.InferenceSession

    def opened(*given: Any, **options: Any) -> ort.InferenceSession:
        told.append(options["disabled_optimizers"])
        return session(*given, **options)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    loaded = OnnxNetworkEngine().open(norms(tmp_path), threads=1)
    x = np.random.default_rng(0).normal(0, 1, (1, 4, D)).astype(np.float32)
    found = loaded.run({"x": x})["y"]

    wanted = x.astype(np.float64)
    for _ in range(2):
        total = np.maximum(wanted, 0) + wanted
        centred = total - total.mean(-1, keepdims=True)
        wanted = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) + 0.5
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert told == [[*SLOWER_FUSIONS, "WeightBiasQuantization"]]


def between_integers(folder: Path) -> Bundle:
    """A bundle of one float layer whose input and output are rounded to 8 bits."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.3, (D, D)).astype(np.float32)
    weight[0] *= 20  # one scale for all would leave the other rows a few steps
    ops = [
        Op(kind="QuantizeLinear", inputs=("x", "step", "zero"), outputs=("codes",)),
        Op(kind="DequantizeLinear", inputs=("codes", "step", "zero"), outputs=("rounded",)),
        Op(kind="Gemm", inputs=("rounded", "weight", "bias"), outputs=("product",)),
        Op(kind="QuantizeLinear", inputs=("product", "fine", "zero"), outputs=("product_codes",)),
        Op(kind="DequantizeLinear", inputs=("product_codes", "fine", "zero"), outputs=("y",)),
    ]
    constants: dict[str, np.ndarray[Any, Any]] = {
        "step": np.array(0.02, np.float32),
        "fine": np.array(0.25, np.float32),
        "zero": np.array(0, np.int8),
        "weight": weight,
        "bias": rng.normal(0, 0.5, D).astype(np.float32),
    }
    drawing = Drawing(
        ops=ops, constants=constants, inputs=(info("x", 8, D),), outputs=(info("y", 8, D),)
    )
    return pack(folder / "bundle", {"mixed": drawing})


def test_a_layer_that_was_kept_in_float_answers_in_float(tmp_path: Path) -> None:
    """ONNX Runtime would round its weights to 8 bits, and its answers would be others."""
    bundle = between_integers(tmp_path)
    x = np.random.default_rng(2).normal(0, 0.7, (8, D)).astype(np.float32)

    found = OnnxNetworkEngine().open(bundle, threads=1).run({"x": x})["y"]

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(bundle.root)
    )
    graph = (bundle.root / "model.onnx").read_bytes()
    left = ort.InferenceSession(graph, options, ["CPUExecutionProvider"]).run(None, {"x": x})[0]
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(graph, options, ["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_array_equal(found, plain)
    assert np.abs(left - plain).max() >= 0.25, "ONNX Runtime left to itself still rounds weights"
