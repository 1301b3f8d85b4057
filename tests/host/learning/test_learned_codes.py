"""A learned last block of a network on integers answers on integers."""

from collections import Counter
from pathlib import Path

import numpy as np
from tests.host.learning.lesson_nets import teaching
from tests.host.learning.test_network_lesson import bundle_of, codes

from onhand.core.bundle import Bundle, read_bundle
from onhand.device.learning.lesson_files import read_scales, read_start
from onhand.device.learning.rounding import rounded_weights
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.networks.learned import with_learned
from onhand.host.learning.network_graph import read_stored


def test_what_is_not_learned_keeps_its_codes(tmp_path: Path) -> None:
    """The starting values become the very integers that the bundle stores, and compute as fast."""
    plain = bundle_of(codes, tmp_path / "b")
    added = teaching(plain, "last-block")
    bundle = read_bundle(tmp_path / "b")
    start = read_start(bundle, added.lesson)

    made = rounded_weights(added.lesson, start, read_scales(bundle, added.lesson))

    stored = read_stored(bundle, bundle.manifest.default_variant).graph.constants
    assert len(made) == 4
    for name, weight in made.items():
        tensor = stored[added.lesson.trainables[name].tensor]
        np.testing.assert_array_equal(weight.codes, tensor)
    kinds = optimised(with_learned(bundle, {}), tmp_path / "learned.onnx")
    # The trunk's and the block's products on integers; the head's scores are floats.
    assert kinds["QLinearConv"] == optimised(plain, tmp_path / "plain.onnx")["QLinearConv"]


def optimised(bundle: Bundle, path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a bundle's graph."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(bundle.root))
    ort.InferenceSession(read_graph_file(bundle, None), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)
