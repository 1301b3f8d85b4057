"""What a graph computes inside, for examples: run in ONNX Runtime, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from onhand.core.errors import EngineError, InputError
from onhand.device.telemetry import refuse_telemetry
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.onnx_files import infer_shapes, model_bytes, watching_bytes
from onhand.host.networks.samples import Samples

__all__ = ["GraphRunner", "observe", "takes_batches"]


class GraphRunner:
    """Runs a graph that is not packed yet; one thread at a time."""

    def __init__(self, graph: Graph, *, threads: int, names: Sequence[str] | None = None) -> None:
        """Compile it.

        Args:
            graph: the graph.
            threads: of one run.
            names: values to compute; None for its outputs.

        Raises:
            InputError: if there is no such value.
            EngineError: if ONNX Runtime cannot run it.
        """
        refuse_telemetry()
        import onnxruntime as ort

        wanted = tuple(graph.output_names() if names is None else dict.fromkeys(names))
        if names is not None:
            known = infer_shapes(graph)
            if missing := [name for name in wanted if name not in known]:
                raise InputError(f"the graph makes no value {missing[0]!r} of a known type")
            fed = {value.name for value in graph.inputs} | set(graph.constants)
            inner = tuple(known[name] for name in wanted if name not in fed)
            graph = replace(graph, outputs=inner)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what fails is raised below, in one sentence
        self._fed = {value.name for value in graph.inputs}
        self._wanted, self._constants = wanted, graph.constants
        self._computed = graph.output_names()
        self._session: ort.InferenceSession | None = None
        self._read: set[str] = set()
        if not self._computed:  # only what is fed is asked for: ONNX Runtime refuses such graphs
            return
        try:
            content = model_bytes(graph) if names is None else watching_bytes(graph.live())
            self._session = ort.InferenceSession(content, options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            raise EngineError(f"ONNX Runtime cannot run the graph: {error}") from error
        self._read = {value.name for value in self._session.get_inputs()}

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Return name -> array for every value asked for.

        Raises:
            EngineError: if the run fails.
        """
        given = {name: array for name, array in feeds.items() if name in self._read}
        try:
            made = self._session.run(list(self._computed), given) if self._session else []
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        found = dict(zip(self._computed, made, strict=True))
        return {
            name: found[name]
            if name in found
            else feeds[name]
            if name in feeds
            else self._constants[name]
            for name in self._wanted
        }


def takes_batches(graph: Graph) -> bool:
    """Say whether a graph may be run with several examples at once.

    Not where a first size is fixed, nor where a branch or a loop depends on data: its condition is
    a single one for the whole batch.
    """
    is_fixed = any(value.shape and isinstance(value.shape[0], int) for value in graph.inputs)
    return not is_fixed and not any(node.bodies for node in graph.nodes)


def observe(
    graph: Graph,
    samples: Samples,
    *,
    threads: int,
    names: Sequence[str] | None = None,
    batch: int = 8,
) -> Iterator[dict[str, Array]]:
    """Run examples through a graph.

    Args:
        graph: the graph.
        samples: the examples.
        threads: of one run.
        names: values to compute; None for the graph's outputs.
        batch: examples in one run, where the graph takes several.

    Yields:
        Name -> array (batch, ...), in the order of the examples.

    Raises:
        InputError: if there is no such value.
        EngineError: if ONNX Runtime fails.
    """
    runner = GraphRunner(graph, threads=threads, names=names)
    for feeds in samples.batches(batch if takes_batches(graph) else 1):
        yield runner.run(feeds)
