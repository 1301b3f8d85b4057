"""How much each unit of channels matters."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.dependencies import Dependencies
from onhand.host.networks.dependency_trace import IntArray
from onhand.host.networks.moments import Moments, find_layers

__all__ = ["by_activation", "by_magnitude", "covariance"]

Numbers = NDArray[np.float64]
# Share of the mean variance that is added to each: inputs that the examples hardly ever move.
_DAMPING: Final = 0.01


def by_magnitude(found: Dependencies) -> Numbers:
    """Return the root of the sum of squares of all weights that would go with a unit.

    Args:
        found: of the graph.

    Returns:
        (elements,), by the number of a unit; within a group, on average 1.

    Source:
        DepGraph, arXiv:2301.12900: the norm of a group, with all layers that depend on it.
    """
    scores = np.zeros(len(found.roots), dtype=np.float64)
    for name, axes in found.axes.items():
        array = found.graph.constants[name]
        # Biases, norms and bounds are of other sizes than weights: they say little of a channel.
        if array.ndim < 2 or not np.issubdtype(array.dtype, np.floating):
            continue
        for labels, energy in _energies(axes, array.astype(np.float64)):
            np.add.at(scores, found.roots[labels], energy)
    return _levelled(found, np.sqrt(scores))


def _energies(
    axes: tuple[IntArray | None, ...], array: Numbers
) -> Iterator[tuple[IntArray, Numbers]]:
    for axis, labels in enumerate(axes):
        if labels is not None:
            others = tuple(i for i in range(array.ndim) if i != axis)
            yield labels, np.square(array).sum(axis=others)


def _levelled(found: Dependencies, scores: Numbers) -> Numbers:
    """Return scores whose mean is 1 in every group, so that layers of any scale compare."""
    levelled = scores.copy()
    for group in found.groups:
        mean = scores[group.units].mean()
        levelled[group.units] = scores[group.units] / (mean if mean > 0 else 1.0)
    return levelled


def by_activation(found: Dependencies, moments: Mapping[str, Moments]) -> Numbers:
    """Return the share of each consumer's output that is lost with a unit, all consumers added.

    A channel that goes is replaced by its mean. So what is lost is its variance times the squares
    of the weights that it meets, as a share of all variance; channels count as independent. (What
    the others tell of a channel is no guide: of two that tell of each other, both would go.)

    Args:
        found: of the graph.
        moments: of every consumer, by the node's name.

    Returns:
        (elements,), by the number of a unit.

    Source:
        FLAP, arXiv:2312.11983, for any layer and as a share.
    """
    scores = np.zeros(len(found.roots), dtype=np.float64)
    layers = {layer.name: layer for layer in find_layers(found.graph)}
    for consumer in found.consumers:
        layer, known = layers[consumer.node.name], moments[consumer.node.name]
        matrices = layer.matrices(found.graph.constants[consumer.weight]).astype(np.float64)
        energy = np.square(matrices).sum(axis=1)  # (groups, K)
        total = float((known.variance * energy).sum())
        lost = (known.variance * energy).reshape(len(consumer.labels), -1).sum(axis=1)
        if total > 0:
            np.add.at(scores, found.roots[consumer.labels], lost / total)
    return scores


def covariance(moments: Moments) -> Numbers:
    """Return the damped covariance of a layer's inputs, which has an inverse.

    Args:
        moments: with those of pairs.

    Returns:
        (groups, K, K) float64.

    Raises:
        InputError: if the moments of pairs are not there.
    """
    if moments.second is None:
        raise InputError("the moments of pairs of inputs were not measured")
    mean = moments.mean.astype(np.float64)
    found = moments.second - mean[:, :, None] * mean[:, None, :]
    damping = _DAMPING * np.einsum("gkk->gk", found).mean(axis=1) + 1e-12
    damped: Numbers = found + damping[:, None, None] * np.eye(found.shape[-1])
    return damped
