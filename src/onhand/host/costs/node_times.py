"""How long each layer of a network takes inside an engine, as the engine itself times its nodes."""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from onhand.core.errors import EngineError
from onhand.device.telemetry import refuse_telemetry
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.onnx_files import model_bytes

__all__ = ["OTHER", "owners", "shared_out", "time_layers"]

OTHER: Final = ""
"""What no layer owns: inputs that are rounded, layouts that are changed."""
_RUNS: Final = 12
_KERNEL: Final = "_kernel_time"


def owners(graph: Graph, layers: Sequence[str]) -> dict[str, str]:
    """Return name of a node -> the layer that it is counted with.

    A node that is no layer goes with the last layer before it, or else with the first behind it.

    Args:
        graph: the graph.
        layers: names of its layers.
    """
    known = set(layers)
    producers = graph.producers()
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in known:
            found[node.name] = node.name
            continue
        makers = [producers[name].name for name in node.reads() if name in producers]
        before = [found[name] for name in makers if name in found]
        if before:
            found[node.name] = before[-1]
    readers = graph.readers()
    for node in reversed(graph.nodes):
        if node.name not in found:
            after = [r.name for name in node.outputs for r in readers.get(name, ())]
            owner = next((found[name] for name in after if name in found), None)
            if owner is not None:
                found[node.name] = owner
    return found


def time_layers(
    graph: Graph,
    owned: Mapping[str, str],
    feeds: Mapping[str, Array],
    *,
    engine: str,
    threads: int,
) -> dict[str, float]:
    """Time each layer inside an engine.

    Args:
        graph: as it would be packed.
        owned: name of a node of the source -> its layer; engines call what they make of a node by
            its name and something more.
        feeds: inputs.
        engine: "onnx" or "openvino"; others do not tell.
        threads: of one run.

    Returns:
        Layer -> seconds of one run, and `OTHER` -> what goes with none; empty where the engine
        does not tell.

    Raises:
        EngineError: if the engine cannot run the graph.
    """
    if engine == "onnx":
        taken = _onnx(graph, feeds, threads)
    elif engine == "openvino":
        taken = _openvino(graph, feeds, threads)
    else:
        return {}
    return shared_out(taken, owned)


def shared_out(taken: Mapping[str, float], owned: Mapping[str, str]) -> dict[str, float]:
    """Return layer -> seconds, from an engine's names.

    Args:
        taken: what the engine calls a node -> seconds.
        owned: name of a node of the source -> its layer.

    Returns:
        Every layer that is owned by, and `OTHER`.
    """
    found = dict.fromkeys(owned.values(), 0.0) | {OTHER: 0.0}
    for said, seconds in taken.items():
        found[_owner(said, owned)] += seconds
    return found


def _owner(said: str, owned: Mapping[str, str]) -> str:
    """Return the layer of the longest name of a node in what an engine says."""
    found = [name for name in owned if name in said and _stands_alone(name, said)]
    if not found:
        return OTHER
    # Of two of a length the last: a layout is changed for what comes next.
    return owned[max(found, key=lambda name: (len(name), said.rfind(name)))]


def _stands_alone(name: str, said: str) -> bool:
    """Whether a name is in a text with no letter or digit before it or behind it."""
    start = said.find(name)
    while start >= 0:
        end = start + len(name)
        if not (said[start - 1 : start].isalnum() or said[end : end + 1].isalnum()):
            return True
        start = said.find(name, start + 1)
    return False


def _onnx(graph: Graph, feeds: Mapping[str, Array], threads: int) -> dict[str, float]:
    refuse_telemetry()
    import onnxruntime as ort

    from onhand.device.networks.onnx import ROUNDS_WEIGHTS, SLOWER_FUSIONS

    with tempfile.TemporaryDirectory(prefix="onhand-profile-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        try:
            session = ort.InferenceSession(
                model_bytes(graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[*SLOWER_FUSIONS, ROUNDS_WEIGHTS],
            )
            for _ in range(_RUNS):
                session.run(None, dict(feeds))
            told = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime's own errors have no common class
            raise EngineError(f"ONNX Runtime cannot run the graph: {error}") from error
    samples: dict[str, list[float]] = {}
    for event in told:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            samples.setdefault(name.removesuffix(_KERNEL), []).append(event["dur"] * 1e-6)
    # Nodes of one name run several times in a run: their medians would count once.
    return {
        name: statistics.median(taken) * max(round(len(taken) / _RUNS), 1)
        for name, taken in samples.items()
    }


def _openvino(graph: Graph, feeds: Mapping[str, Array], threads: int) -> dict[str, float]:
    from onhand.device.networks.openvino import open_core

    core = open_core()
    settings = {
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": True,
    }
    samples: dict[str, list[float]] = {}
    try:
        request = core.compile_model(
            core.read_model(model_bytes(graph)), "CPU", settings
        ).create_infer_request()
        for _ in range(_RUNS):
            request.infer(dict(feeds))
            for one in request.profiling_info:
                samples.setdefault(one.node_name, []).append(one.real_time.total_seconds())
    except RuntimeError as error:
        raise EngineError(f"openvino: {str(error).splitlines()[0]}") from error
    return {name: statistics.median(taken) for name, taken in samples.items()}
