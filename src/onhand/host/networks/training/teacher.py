"""The teacher: run in ONNX Runtime, its answers kept where they are asked for again."""

from collections.abc import Mapping, Sequence

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.samples import Samples

__all__ = ["Teacher", "fixed_batch"]

_MOST_BYTES = 2**28


def fixed_batch(graph: Graph) -> int | None:
    """Return how many examples a graph takes at once, or None where it takes any number."""
    sizes = {value.shape[0] for value in graph.inputs if value.shape}
    fixed = {size for size in sizes if isinstance(size, int)}
    return min(fixed) if fixed else None


class Teacher:
    """Answers for batches; one thread at a time."""

    def __init__(self, graph: Graph, names: Sequence[str], *, threads: int) -> None:
        """Compile it.

        Args:
            graph: the teacher.
            names: values that are wanted.
            threads: of one run.

        Raises:
            InputError: if it takes several examples at once, and no other number.
            EngineError: if ONNX Runtime cannot run it.
        """
        self._most = fixed_batch(graph)
        if self._most is not None and self._most > 1:
            raise InputError(
                f"the teacher takes batches of {self._most} alone; export it with a batch of 1, or "
                "of any size"
            )
        self._runner = GraphRunner(graph, threads=threads, names=names)
        self._kept: dict[int, dict[str, Array]] = {}

    def answer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return name -> (B, ...) for a batch."""
        n = len(next(iter(feeds.values())))
        if self._most is None or n == 1:
            return self._runner.run(dict(feeds))
        parts = [
            self._runner.run({name: a[i : i + 1] for name, a in feeds.items()}) for i in range(n)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def answer_examples(self, samples: Samples, indices: Sequence[int]) -> dict[str, Array]:
        """Return name -> (B, ...) for some examples; the same ones are computed once."""
        missing = [i for i in indices if i not in self._kept]
        if missing:
            made = self.answer(samples.batch(missing))
            rows = {name: len(array) if array.ndim else 0 for name, array in made.items()}
            size = sum(array.nbytes for array in made.values()) / len(missing)
            is_small = size * len(samples) <= _MOST_BYTES
            if not is_small or set(rows.values()) != {len(missing)}:
                return made if missing == list(indices) else self.answer(samples.batch(indices))
            for row, i in enumerate(missing):
                # A copy, so that the batch that it is a part of need not stay.
                self._kept[i] = {name: a[row : row + 1].copy() for name, a in made.items()}
        names = self._kept[indices[0]]
        return {name: np.concatenate([self._kept[i][name] for i in indices]) for name in names}
