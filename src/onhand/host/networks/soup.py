"""Weights of several networks of one form made one: averages, and adapters added.

Source:
    Model soups: arXiv:2203.05482. LoRA: arXiv:2106.09685.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.errors import InputError, ShapeError
from onhand.host.networks.graph import Array, Graph

__all__ = ["LoraFactors", "Soup", "average_graphs", "greedy_soup", "merge_lora"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFactors:
    """A change of low rank: scale * up @ down.

    Attributes:
        down: (R, K).
        up: (N, R).
        scale: of the product; alpha / R in LoRA's words.
    """

    down: Array
    up: Array
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Soup:
    """The average of those networks that helped.

    Attributes:
        graph: the average.
        members: which of the networks are in it, the best first.
        score: of the average.
    """

    graph: Graph
    members: tuple[int, ...]
    score: float


def average_graphs(graphs: Sequence[Graph], weights: Sequence[float] | None = None) -> Graph:
    """Average the constants of networks that were trained from the same start.

    Args:
        graphs: of the same nodes, and constants of the same names, shapes and dtypes; those that
            are no floats must be equal.
        weights: of each, 0 or more; None for the same each. They are made to sum to 1.

    Returns:
        The first graph with averaged constants, computed in float64.

    Raises:
        InputError: if there is none, weights do not fit, or the networks differ in more than
            floats.
    """
    if not graphs:
        raise InputError("there is no network to average")
    shares = np.ones(len(graphs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(graphs),) or not np.isfinite(shares).all() or shares.min() < 0:
        raise InputError(f"weights are {weights}, must be {len(graphs)} numbers of 0 or more")
    if not shares.sum() > 0:
        raise InputError("weights are all 0")
    shares = shares / shares.sum()
    first = graphs[0]
    for i, other in enumerate(graphs[1:], start=2):
        _check_same(first, other, i)
    constants: dict[str, Array] = {}
    for name, array in first.constants.items():
        if array.dtype.kind != "f":
            constants[name] = array
            continue
        parts = [
            share * graph.constants[name].astype(np.float64)
            for share, graph in zip(shares, graphs, strict=True)
        ]
        constants[name] = np.sum(parts, axis=0).astype(array.dtype)
    return replace(first, constants=constants)


def greedy_soup(graphs: Sequence[Graph], score: Callable[[Graph], float]) -> Soup:
    """Average those networks that help, from the best one on.

    Args:
        graphs: see `average_graphs`.
        score: how good a network is on held-out examples; higher is better.

    Returns:
        An average at least as good as the best network.

    Raises:
        InputError: see `average_graphs`.
    """
    if not graphs:
        raise InputError("there is no network to average")
    scores = [score(graph) for graph in graphs]
    order = sorted(range(len(graphs)), key=lambda i: -scores[i])
    members, best = [order[0]], scores[order[0]]
    soup = graphs[order[0]]
    for i in order[1:]:
        tried = average_graphs([graphs[k] for k in (*members, i)])
        if (found := score(tried)) >= best:
            members, best, soup = [*members, i], found, tried
    return Soup(soup, tuple(members), best)


def merge_lora(graph: Graph, adapters: Mapping[str, LoraFactors]) -> Graph:
    """Add changes of low rank to constants.

    Args:
        graph: the network.
        adapters: constant -> its change, (N, K) in the constant's own order or in the other one
            where it is stored (K, N) for a MatMul; of a convolution's kernel, (N, K, ...) is
            taken as (N, K * ...).

    Returns:
        The network of the same form.

    Raises:
        InputError: if there is no such constant of floating point.
        ShapeError: if a change does not fit.
    """
    constants = dict(graph.constants)
    transposed = {
        name
        for node in graph.nodes
        for name in node.inputs[1:2]
        if node.op == "MatMul" or (node.op == "Gemm" and not node.whole("transB", 0))
    }
    for name, factors in adapters.items():
        if name not in constants or constants[name].dtype.kind != "f":
            raise InputError(f"the graph has no constant {name!r} of floating point")
        old = constants[name]
        up, down = (a.astype(np.float64) for a in (factors.up, factors.down))
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise ShapeError(f"{name}: up {up.shape} and down {down.shape} are no (N, R), (R, K)")
        change = up @ down  # (N, K)
        change = change.T if name in transposed else change
        wanted = (old.shape[0], old.size // old.shape[0]) if old.ndim else ()
        if change.shape != wanted:
            raise ShapeError(f"{name}: {old.shape} does not fit a change of {change.shape}")
        new = old.astype(np.float64) + factors.scale * change.reshape(old.shape)
        constants[name] = new.astype(old.dtype)
    return replace(graph, constants=constants)


def _check_same(first: Graph, other: Graph, number: int) -> None:
    which = f"network {number} is not of the first one's form"
    if [(n.op, n.inputs, n.outputs) for n in first.nodes] != [
        (n.op, n.inputs, n.outputs) for n in other.nodes
    ]:
        raise InputError(f"{which}: its nodes differ")
    if odd := sorted(set(first.constants) ^ set(other.constants)):
        raise InputError(f"{which}: only one of them has {odd[0]!r}")
    for name, array in first.constants.items():
        found = other.constants[name]
        if found.shape != array.shape or found.dtype != array.dtype:
            raise InputError(
                f"{which}: {name!r} is {found.dtype} {found.shape}, must be {array.dtype} "
                f"{array.shape}"
            )
        if array.dtype.kind != "f" and not np.array_equal(found, array):
            raise InputError(f"{which}: {name!r} differs, and whole numbers have no average")
