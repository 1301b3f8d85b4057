"""What examples make of a graph: histograms of its values, and means of its channels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.observe import observe
from onhand.host.networks.quantization.grid import Grid
from onhand.host.networks.quantization.histogram import Histogram
from onhand.host.networks.quantization.plan import Plan
from onhand.host.networks.quantization.ranges import choose_range, squared_error
from onhand.host.networks.samples import Samples

__all__ = ["Ranges", "channel_means", "count_values"]

# Few enough that all values of one run fit the memory.
_BATCH = 4


def count_values(
    graph: Graph, names: Iterable[str], samples: Samples, *, threads: int, progress: Progress
) -> dict[str, Histogram]:
    """Run examples once and count what values they make.

    Args:
        graph: in float.
        names: of the values.
        samples: the examples.
        threads: of one run.
        progress: told of each batch.

    Returns:
        Name -> histogram.

    Raises:
        InputError: if there are no examples, or one makes a value that is not finite.
        EngineError: if the graph cannot run.
    """
    if not len(samples):
        raise InputError(
            "static quantization needs examples: give calibration data (--data), or keep the "
            "network in float (--bits 32)"
        )
    progress.start("watching the network", len(samples))
    found: dict[str, Histogram] = {}
    for values in observe(graph, samples, threads=threads, names=list(names), batch=_BATCH):
        for name, array in values.items():
            if array.dtype != np.float32:
                raise InputError(f"value {name!r} is {array.dtype}, must be float32")
            counted = Histogram.of(array)
            found[name] = found[name].merged(counted) if name in found else counted
        progress.advance(_BATCH)
    return found


class Ranges:
    """Grids for the values of one graph; what was counted and chosen once is kept."""

    def __init__(
        self,
        graph: Graph,
        samples: Samples,
        *,
        method: str,
        symmetric: bool,
        percentile: float,
        threads: int,
        progress: Progress,
    ) -> None:
        """Remember how ranges are chosen.

        Args:
            graph: in float.
            samples: the examples.
            method: see `choose_range`.
            symmetric: int8 with zero point 0; else uint8.
            percentile: see `choose_range`.
            threads: of one run.
            progress: told of each batch.
        """
        self._graph, self._samples = graph, samples
        self._method, self._symmetric, self._percentile = method, symmetric, percentile
        self._threads, self._progress = threads, progress
        self._histograms: dict[str, Histogram] = {}
        self._chosen: dict[tuple[tuple[str, ...], bool], Grid] = {}

    def grids(self, plan: Plan) -> dict[str, Grid]:
        """Choose the grid of each group of values that share one.

        Args:
            plan: of the graph.

        Returns:
            Value that others share theirs with -> grid.

        Raises:
            InputError: if there are no examples, or one makes a value that is not finite.
            EngineError: if the graph cannot run.
        """
        if missing := [name for name in plan.grids if name not in self._histograms]:
            self._histograms |= count_values(
                self._graph,
                missing,
                self._samples,
                threads=self._threads,
                progress=self._progress,
            )
        groups: dict[str, list[str]] = {}
        for name, root in plan.grids.items():
            groups.setdefault(root, []).append(name)
        found = {
            root: self._grid(tuple(names), symmetric=self._symmetric != (root in plan.turned))
            for root, names in groups.items()
        }
        # In the graph's order, so that what is scaled twice finds its source.
        for name, (source, factor) in plan.scaled.items():
            grid = found[plan.grids[source]]
            scale = float(np.float32(grid.scale * factor))
            found[name] = replace(grid, scale=scale)
        return found

    def errors(self, plan: Plan) -> dict[str, float]:
        """Return value -> mean square of what its grid changes; see `grids` for the rest."""
        grids = self.grids(plan)
        return {
            name: squared_error(histogram, grids[root]) / max(histogram.total(), 1)
            for name, root in plan.grids.items()
            if (histogram := self._histograms.get(name)) is not None
        }

    def _grid(self, names: tuple[str, ...], *, symmetric: bool) -> Grid:
        if (names, symmetric) not in self._chosen:
            histogram = reduce(Histogram.merged, (self._histograms[name] for name in names))
            # What is fed is bounded, and its ends are as frequent as anything.
            fed = {value.name for value in self._graph.inputs} | self._graph.constants.keys()
            is_fed = not fed.isdisjoint(names)
            low, high = choose_range(
                histogram,
                "min-max" if is_fed else self._method,
                symmetric=symmetric,
                percentile=self._percentile,
            )
            self._chosen[names, symmetric] = Grid.of(low, high, symmetric=symmetric)
        return self._chosen[names, symmetric]


def channel_means(
    graph: Graph, axes: Mapping[str, int], samples: Samples, *, threads: int
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel of values.

    Args:
        graph: any.
        axes: name of a value -> its axis of channels.
        samples: the examples.
        threads: of one run.

    Returns:
        Name -> (channels,) means over examples and places.

    Raises:
        EngineError: if the graph cannot run.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = dict.fromkeys(axes, 0)
    names: Sequence[str] = list(axes)
    for values in observe(graph, samples, threads=threads, names=names, batch=_BATCH):
        for name in names:
            rows = _by_channel(values[name], axes[name])  # (channels, places)
            sums[name] = sums.get(name, 0.0) + rows.sum(axis=1, dtype=np.float64)
            counts[name] += rows.shape[1]
    return {name: sums[name] / counts[name] for name in names}


def _by_channel(array: Array, axis: int) -> NDArray[np.float32]:
    rows = np.moveaxis(array, axis, 0)
    return np.asarray(rows.reshape(rows.shape[0], -1), dtype=np.float32)
