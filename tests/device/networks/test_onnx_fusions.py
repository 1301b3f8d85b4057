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
    assert told == [list(SLOWER_FUSIONS)]
