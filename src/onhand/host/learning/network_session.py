"""Graphs of a lesson in ONNX Runtime on the host, on the bundle's own weights."""

from typing import TYPE_CHECKING

from onhand.core.bundle import Bundle
from onhand.core.sparse_graph import part_of_graph
from onhand.device.onnx_errors import onnx_errors
from onhand.device.onnx_weights import weights_from
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["open_bytes"]


def open_bytes(content: bytes, bundle: Bundle, *, threads: int) -> "ort.InferenceSession":
    """Open a graph that reads a bundle's weights.

    Args:
        content: an ONNX file.
        bundle: the bundle, of which only the weights must be there.
        threads: of one run.

    Returns:
        The session.

    Raises:
        EngineError: if ONNX Runtime refuses the graph.
    """
    refuse_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    numbers = [name for name in bundle.manifest.files if name.endswith(".safetensors")]
    kept = weights_from(options, bundle, numbers)  # until the session is made
    options.add_session_config_entry("session.disable_prepacking", "1")
    with onnx_errors():
        made = ort.InferenceSession(
            part_of_graph(content, bundle, bundle.manifest.default_variant),
            options,
            providers=["CPUExecutionProvider"],
        )
    kept.clear()
    return made
