"""Which units go, so that a share of the parameters or operations goes and little is lost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.dependencies import Dependencies, UnitGroup
from onhand.host.networks.dependency_trace import IntArray
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["Costs", "Widths", "choose_together", "choose_uniformly", "positions"]

Numbers = NDArray[np.float64]
_LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def positions(node: Node, shapes: Mapping[str, Value]) -> int:
    """Return how often a layer applies each of its weights to one example.

    Args:
        node: a Conv, ConvTranspose, Gemm or MatMul with constant weights.
        shapes: from `infer_shapes`; sizes that are open count as 1.
    """
    value = shapes.get(node.inputs[0] if node.op == "ConvTranspose" else node.outputs[0])
    sizes = () if value is None else value.shape
    inner = sizes[2:] if node.op.startswith("Conv") else sizes[1:-1]
    return math.prod(size for size in inner if isinstance(size, int))


class Costs:
    """What a graph costs as a function of how many units each group keeps."""

    def __init__(self, found: Dependencies, *, of: str) -> None:
        """Prepare.

        Args:
            found: of the graph.
            of: "parameters" or "operations".
        """
        group_of = np.full(len(found.roots), -1)
        for number, group in enumerate(found.groups):
            group_of[group.units] = number
        factors = _factors(found.graph, of=of)
        self._scales = np.array([*factors.values()], dtype=np.float64)
        self._sizes: list[Numbers] = []
        self._rates: list[NDArray[np.float64]] = []
        widest = max((found.graph.constants[name].ndim for name in factors), default=0)
        for axis in range(widest):
            sizes, rates = [], []
            for name in factors:
                shape, axes = found.graph.constants[name].shape, found.axes.get(name, ())
                sizes.append(shape[axis] if axis < len(shape) else 1)
                labels = axes[axis] if axis < len(axes) else None
                rate = np.zeros(len(found.groups))
                if labels is not None:
                    numbers = group_of[found.roots[labels]]
                    rate += np.bincount(numbers[numbers >= 0], minlength=len(rate))
                rates.append(rate / [len(group.units) for group in found.groups])
            self._sizes.append(np.array(sizes, dtype=np.float64))
            self._rates.append(np.array(rates).reshape(len(factors), len(found.groups)))

    def cost(self, removed: Numbers) -> float:
        """Return the cost without some units of each group: (groups,) counts."""
        total = self._scales.copy()
        for sizes, rates in zip(self._sizes, self._rates, strict=True):
            total *= sizes - rates @ removed
        return float(total.sum())


def _factors(graph: Graph, *, of: str) -> dict[str, int]:
    """Return constant -> how often each of its numbers counts."""
    if of == "parameters":
        return {n: 1 for n, a in graph.constants.items() if np.issubdtype(a.dtype, np.floating)}
    shapes, found = infer_shapes(graph), dict[str, int]()
    for node in graph.nodes:
        if node.op in _LINEAR and node.inputs[1] in graph.constants:
            found[node.inputs[1]] = found.get(node.inputs[1], 0) + positions(node, shapes)
    return found


@dataclass(frozen=True, slots=True)
class Widths:
    """How many units of a group may stay.

    Attributes:
        kept: falling, from all to the fewest.
    """

    kept: tuple[int, ...]

    @classmethod
    def of(cls, group: UnitGroup, *, multiple: int, least: float) -> "Widths":
        """Return all numbers of units that leave whole multiples of channels.

        Args:
            group: the group.
            multiple: of channels, in each place.
            least: share of the units that stays.
        """
        step = math.lcm(*(multiple // math.gcd(multiple, width) for width in group.widths))
        n = len(group.units)
        fewest = max(math.ceil(least * n / step) * step, step)
        lower = range((n - 1) // step * step, fewest - 1, -step)
        return cls((n, *lower))


def choose_together(
    found: Dependencies,
    scores: Numbers,
    widths: Sequence[Widths],
    costs: Costs,
    *,
    target: float,
    per_cost: bool,
) -> IntArray:
    """Take what loses least from all groups, until the cost is met.

    Args:
        found: of the graph.
        scores: (elements,) what is lost with a unit, by its number.
        widths: of each group.
        costs: of the graph.
        target: the cost to come down to.
        per_cost: whether scores are losses, which are weighed by the cost that they save; if not,
            they are ranks, of which the lowest go first.

    Returns:
        (n,) the units that go; as many as may where that is not enough.
    """
    orders = [_ordered(group, scores) for group in found.groups]
    sums = [np.concatenate([[0.0], np.cumsum(scores[order])]) for order in orders]
    removed = np.zeros(len(orders))
    stages = [0] * len(orders)
    now = costs.cost(removed)
    while now > target:
        best, least = -1, math.inf
        for g, width in enumerate(widths):
            if stages[g] + 1 >= len(width.kept):
                continue
            fewer = removed.copy()
            fewer[g] = len(orders[g]) - width.kept[stages[g] + 1]
            saved = now - costs.cost(fewer) if per_cost else fewer[g] - removed[g]
            lost = sums[g][int(fewer[g])] - sums[g][int(removed[g])]
            if lost / max(saved, 1e-9) < least:
                best, least = g, lost / max(saved, 1e-9)
        if best < 0:
            break
        stages[best] += 1
        removed[best] = len(orders[best]) - widths[best].kept[stages[best]]
        now = costs.cost(removed)
    return _taken(orders, removed)


def choose_uniformly(
    found: Dependencies, scores: Numbers, widths: Sequence[Widths], costs: Costs, *, target: float
) -> IntArray:
    """Take about the same share of every group, as small as the cost allows.

    Args:
        found: of the graph.
        scores: (elements,) what is lost with a unit, by its number.
        widths: of each group.
        costs: of the graph.
        target: the cost to come down to.

    Returns:
        (n,) the units that go; as many as may where that is not enough.
    """
    orders = [_ordered(group, scores) for group in found.groups]
    removed = np.zeros(len(orders))
    for share in np.linspace(0.0, 1.0, 401):
        for g, width in enumerate(widths):
            enough = [kept for kept in width.kept if kept >= (1 - share) * len(orders[g])]
            removed[g] = len(orders[g]) - (enough or width.kept)[-1]
        if costs.cost(removed) <= target:
            break
    return _taken(orders, removed)


def _ordered(group: UnitGroup, scores: Numbers) -> IntArray:
    return group.units[np.argsort(scores[group.units], kind="stable")]


def _taken(orders: Sequence[IntArray], removed: Numbers) -> IntArray:
    parts = [order[: int(n)] for order, n in zip(orders, removed, strict=True)]
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)])
