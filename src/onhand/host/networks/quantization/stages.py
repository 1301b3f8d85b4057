"""A graph that is run piece by piece, so that what one piece gives can be changed for the next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.observe import GraphRunner, takes_batches
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.samples import Samples

__all__ = ["Stages"]

_BATCH: Final = 4


class Stages:
    """Runs a graph up to one value after the other; used by one thread.

    Only values that later pieces read are kept.
    """

    def __init__(self, graph: Graph, samples: Samples, *, threads: int) -> None:
        """Begin with the inputs.

        Args:
            graph: the graph.
            samples: the examples; all of them are held.
            threads: of one run.
        """
        self._values = list(samples.batches(_BATCH if takes_batches(graph) else 1))
        self._graph, self._threads = graph, threads
        self._known = infer_shapes(graph)
        self._left = list(graph.nodes)

    def reach(self, name: str, *, axis: int) -> NDArray[np.float64]:
        """Compute a value, not before any that was reached, and return its channels' means.

        Args:
            name: the value.
            axis: of its channels.

        Returns:
            (channels,) means over examples and places.

        Raises:
            InputError: if no node that is left makes it.
            EngineError: if the piece cannot run.
        """
        self._run_to(name)
        total: NDArray[np.float64] | None = None
        count = 0
        for values in self._values:
            rows = np.moveaxis(np.asarray(values[name], np.float32), axis, 0)
            sums = rows.reshape(rows.shape[0], -1).sum(axis=1, dtype=np.float64)
            total = sums if total is None else total + sums
            count += rows.size // rows.shape[0]
        if total is None:
            raise InputError("there are no examples")
        return np.asarray(total / count)

    def add(self, name: str, amount: NDArray[np.float64], *, axis: int) -> None:
        """Add (channels,) amounts to a value that was just reached."""
        for values in self._values:
            array = values[name]
            shape = [-1 if i == axis else 1 for i in range(array.ndim)]
            values[name] = np.asarray(array, np.float32) + amount.astype(np.float32).reshape(shape)

    def _run_to(self, name: str) -> None:
        ends = [i for i, node in enumerate(self._left) if name in node.outputs]
        if not ends:
            raise InputError(f"no node that is left makes {name!r}")
        piece, self._left = self._left[: ends[0] + 1], self._left[ends[0] + 1 :]
        later = {read for node in self._left for read in node.reads()}
        made = [output for node in piece for output in node.outputs]
        wanted = [output for output in made if output in later or output == name]
        runner = GraphRunner(self._part(piece, wanted), threads=self._threads)
        held = later | {name}
        self._values = [self._stepped(runner, values, held) for values in self._values]

    def _stepped(
        self, runner: GraphRunner, values: Mapping[str, Array], held: set[str]
    ) -> dict[str, Array]:
        together = {**values, **runner.run(dict(values))}
        return {name: array for name, array in together.items() if name in held}

    def _part(self, piece: list[Node], wanted: list[str]) -> Graph:
        made = {output for node in piece for output in node.outputs}
        read = {name for node in piece for name in node.reads()} - made
        given = sorted(read - set(self._graph.constants))
        return replace(
            self._graph,
            nodes=tuple(piece),
            inputs=tuple(self._open(name) for name in given),
            outputs=tuple(self._open(name) for name in wanted),
        ).live()

    def _open(self, name: str) -> Value:
        """Return what is known of a value, with any sizes.

        Raises:
            InputError: if nothing is.
        """
        known = self._known.get(name)
        if known is None:
            raise InputError(f"the graph makes no value {name!r} of a known type")
        return replace(known, shape=(None,) * len(known.shape))
