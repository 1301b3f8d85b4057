"""Run a graph that may fail, without a word on the terminal."""

from collections.abc import Mapping

from onhand.core.errors import EngineError
from onhand.device.telemetry import refuse_telemetry
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.onnx_files import model_bytes

__all__ = ["run_quietly"]


def run_quietly(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what ONNX Runtime computes, as the graph stands, on one thread.

    Args:
        graph: the graph.
        feeds: name of an input -> array.

    Returns:
        Name of an output -> array.

    Raises:
        EngineError: if it cannot.
    """
    refuse_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = graph.output_names()
    try:
        session = ort.InferenceSession(model_bytes(graph), options, ["CPUExecutionProvider"])
        made = session.run(list(names), dict(feeds))
    except Exception as error:  # onnxruntime's own errors have no common class
        raise EngineError(str(error).splitlines()[0][:300]) from error
    return dict(zip(names, made, strict=True))
