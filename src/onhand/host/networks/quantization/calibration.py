"""What examples make of a graph: histograms of its values, and means of its channels."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.observe import observe
from onhand.host.networks.quantization.grid import Grid
from onhand.host.networks.quantization.histogram import Histogram
from onhand.host.networks.quantization.plan import Plan
from onhand.host.networks.quantization.ranges import choose_range
from onhand.host.networks.samples import Samples

__all__ = ["channel_means", "choose_grids", "count_values"]

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
        raise InputError("static quantization needs examples: give calibration data")
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


def choose_grids(
    graph: Graph,
    plan: Plan,
    histograms: Mapping[str, Histogram],
    *,
    method: str,
    symmetric: bool,
    percentile: float,
) -> dict[str, Grid]:
    """Choose the grid of each group of values that share one.

    Args:
        graph: in float.
        plan: of this graph.
        histograms: of each value with a grid.
        method: see `choose_range`.
        symmetric: int8 with zero point 0; else uint8.
        percentile: see `choose_range`.

    Returns:
        Value that others share theirs with -> grid.

    Raises:
        InputError: if there is no such method.
    """
    groups: dict[str, Histogram] = {}
    for name, root in plan.grids.items():
        one = histograms[name]
        groups[root] = groups[root].merged(one) if root in groups else one
    fed = {value.name for value in graph.inputs}
    grids: dict[str, Grid] = {}
    for root, histogram in groups.items():
        # What is fed is bounded, and its ends are as frequent as anything.
        chosen = "min-max" if root in fed else method
        low, high = choose_range(histogram, chosen, symmetric=symmetric, percentile=percentile)
        grids[root] = Grid.of(low, high, symmetric=symmetric)
    return grids


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
