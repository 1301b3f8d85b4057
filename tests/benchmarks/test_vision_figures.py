"""What the benchmarks of picture networks make of their times and their bundles."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.vision import beside_peers
from benchmarks.vision_front import Material, build, table
from benchmarks.vision_parts import random_part

from onhand.core.bundle import read_bundle
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

FLOAT = np.dtype(np.float32)


def test_the_fastest_of_ours_is_held_against_the_fastest_peer() -> None:
    """By the median of each; the ratio is taken round by round."""
    samples = {
        "float32 / onnx": {"wall": [0.1, 0.1, 0.1]},
        "onhand / onnx": {"wall": [9.0, 9.0, 9.0]},
        "onhand / openvino": {"wall": [2.0, 4.0, 3.0]},
        "onnxruntime / onnx": {"wall": [8.0, 8.0, 8.0]},
        "litert / litert": {"wall": [1.0, 4.0, 2.0]},
    }

    assert beside_peers(samples) == {
        "wall": {"ours": "onhand / openvino", "peer": "litert / litert", "ratio": [1.25, 1.5, 1.75]}
    }


def test_parts_of_a_picture_are_of_usual_sizes() -> None:
    """At least a third of it, not far from a square, and of the picture."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    for _ in range(50):
        part = random_part(pixels, rng)

        assert part.shape[0] <= 90
        assert part.shape[1] <= 120
        assert part.shape[0] * part.shape[1] >= 0.3 * 90 * 120
    assert len({random_part(pixels, rng).shape for _ in range(20)}) > 5


@pytest.fixture
def material() -> Material:
    """A network of one product, and one example."""
    graph = Graph(
        nodes=(Node(op="MatMul", inputs=("x", "w"), outputs=("y",)),),
        constants={"w": np.eye(4, dtype=np.float32)},
        inputs=(Value(name="x", dtype=FLOAT, shape=(1, 4)),),
        outputs=(Value(name="y", dtype=FLOAT, shape=(1, 4)),),
        opset=17,
    )
    samples = Samples(feeds=[{"x": np.ones((1, 4), np.float32)}])
    model = NetworkModel(name="tiny", family="onnx", graph=graph, sha256="0" * 64, source_bytes=64)
    return Material(
        model=model, graph=graph, calibration=samples, training=samples, heldout=samples, threads=1
    )


def test_a_bundle_is_made_once(material: Material, tmp_path: Path) -> None:
    """What is there is taken up; what was made otherwise is refused."""
    weights = QuantizeNetwork(scheme="weights")
    first = build("point", (), material, tmp_path)
    made = read_bundle(tmp_path / "point").manifest_sha256

    assert build("point", (), material, tmp_path) == first
    assert first["n_operations"] == 16
    assert read_bundle(tmp_path / "point").manifest_sha256 == made
    with pytest.raises(SystemExit, match="made with other settings"):
        build("point", (weights,), material, tmp_path)


def test_each_point_is_shown_in_its_fastest_engine() -> None:
    """With what it lost, an interval, its size and its time."""
    right = {
        "accuracy": {"value": 0.85, "interval": None},
        "accuracy_loss": {"value": 0.015, "interval": [0.0, 0.03]},
        "agreement": {"value": 0.97, "interval": None},
    }
    shown = table({
        "points": {"int8": {"n_operations": 3e8, "size_bytes": 3.7e6}},
        "quality": {"int8 / openvino": right},
        "samples": {"int8 / onnx": [0.003] * 3, "int8 / openvino": [0.002] * 3},
    })

    assert shown == (
        "int8 / openvino: 85.00%, lost +1.50% (+0.00% to +3.00%), agrees 97.00%, 300 M "
        "operations, 3.70 MB, 2.00 ms (2.00 to 2.00)"
    )
