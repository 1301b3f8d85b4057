"""Layer and root-mean-square norms that exporters write as several operators."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from onhand.host.networks.fusing.patterns import (
    Bind,
    Const,
    Made,
    Match,
    Number,
    Op,
    Pattern,
    Rewritten,
    rewrite,
)
from onhand.host.networks.graph import Array, Graph, Node, Value

__all__ = ["fuse_layer_norm", "fuse_rms_norm"]

RMS_OPSET: Final = 23
_X, _EPSILON = Bind("x"), Const("epsilon")


def _means(x: Pattern, name: str) -> tuple[Op, ...]:
    """Return a mean whose axes are an attribute, as before opset 18, or an input, or a pool."""
    return (
        Op("ReduceMean", (x,), name),
        Op("ReduceMean", (x, Const(f"{name} axes")), name),
        Op("GlobalAveragePool", (x,), name),
    )


def _divided(value: Pattern, spread: Pattern) -> tuple[Op, ...]:
    root = Op("Sqrt", (Op("Add", (spread, _EPSILON)),))
    return (
        Op("Div", (value, root)),
        Op("Mul", (value, Op("Reciprocal", (root,)))),
        Op("Mul", (value, Op("Div", (Number(1.0), root)))),
    )


def _squares(value: Pattern) -> tuple[Op, ...]:
    return Op("Pow", (value, Number(2.0))), Op("Mul", (value, value))


def _layer_norms() -> tuple[Op, ...]:
    found: list[Op] = []
    for mean in _means(_X, "mean"):
        centred = Op("Sub", (_X, mean))
        for square in _squares(centred):
            for spread in _means(square, "spread"):
                for plain in _divided(centred, spread):
                    scaled = Op("Mul", (plain, Const("scale")))
                    found += [Op("Add", (scaled, Const("bias"))), scaled, plain]
    return tuple(found)


def _rms_norms() -> tuple[Op, ...]:
    return tuple(
        Op("Mul", (plain, Const("scale")))
        for square in _squares(_X)
        for spread in _means(square, "spread")
        for plain in _divided(_X, spread)
    )


_LAYER_NORM, _RMS_NORM = _layer_norms(), _rms_norms()


def fuse_layer_norm(graph: Graph, types: Mapping[str, Value]) -> Rewritten:
    """Put `(x - mean) / sqrt(variance + epsilon) * scale + bias` into LayerNormalization.

    Args:
        graph: the graph; the mean is over the last axis alone.
        types: of its values.

    Returns:
        The graph.

    Source:
        Ba et al., arXiv:1607.06450.
    """

    def make(match: Match, name: Callable[[str], str]) -> Made | str:
        parts = _parts(match, graph, types, ("scale", "bias"), name)
        if isinstance(parts, str):
            return parts
        names, constants, epsilon = parts
        node = Node(op="LayerNormalization", inputs=(match.values["x"], *names),
                    outputs=match.root.outputs,
                    attributes={"axis": -1, "epsilon": epsilon})  # fmt: skip
        what = f"LayerNormalization of {len(match.nodes)} operators"
        return Made(nodes=(node,), constants=constants, what=what)

    changed: dict[str, str] = {}
    kept: dict[str, str] = {}
    # The longer forms first: scale and bias belong to the norm before them.
    for form in range(3):
        made = rewrite(graph, _LAYER_NORM[form::3], make)
        graph = made.graph
        changed |= made.changed
        kept |= made.kept
    return Rewritten(graph=graph, changed=changed, kept=kept)


def fuse_rms_norm(graph: Graph, types: Mapping[str, Value]) -> Rewritten:
    """Put `x / sqrt(mean(x x) + epsilon) * scale` into RMSNormalization, of opset 23.

    Args:
        graph: the graph; the mean is over the last axis alone.
        types: of its values.

    Returns:
        The graph; of an earlier opset, each such norm is kept.

    Source:
        Zhang and Sennrich, arXiv:1910.07467.
    """

    def make(match: Match, name: Callable[[str], str]) -> Made | str:
        if graph.opset < RMS_OPSET:
            return f"RMSNormalization is of opset {RMS_OPSET}, the graph of {graph.opset}"
        parts = _parts(match, graph, types, ("scale",), name)
        if isinstance(parts, str):
            return parts
        names, constants, epsilon = parts
        node = Node(op="RMSNormalization", inputs=(match.values["x"], *names),
                    outputs=match.root.outputs,
                    attributes={"axis": -1, "epsilon": epsilon})  # fmt: skip
        what = f"RMSNormalization of {len(match.nodes)} operators"
        return Made(nodes=(node,), constants=constants, what=what)

    return rewrite(graph, _RMS_NORM, make)


def _parts(
    match: Match,
    graph: Graph,
    types: Mapping[str, Value],
    wanted: tuple[str, ...],
    name: Callable[[str], str],
) -> tuple[list[str], dict[str, Array], float] | str:
    """Return names of scale and bias as vectors (D,), those constants, and epsilon; or why not."""
    value = types.get(match.values["x"])
    if value is None or value.dtype != np.float32 or not value.shape:
        return "nothing is known of its input's dtype and shape, or it is not float32"
    D = value.shape[-1]
    if not isinstance(D, int):
        return "the size of its last axis is open"
    for mean in (match.named[key] for key in ("mean", "spread") if key in match.named):
        axes = _axes(mean, graph, len(value.shape))
        if axes not in {(-1,), (len(value.shape) - 1,)} or not mean.whole("keepdims", 1):
            return f"a mean is over the axes {axes}, not the last one alone"
    epsilon = graph.constants[match.values["epsilon"]]
    if epsilon.size != 1:
        return f"epsilon is of shape {epsilon.shape}"
    names: list[str] = []
    constants: dict[str, Array] = {}
    for key in wanted:
        if key == "bias" and key not in match.values:
            continue
        ones = np.ones(D, dtype=np.float32)  # a norm without a scale has one all the same
        array = graph.constants[match.values[key]] if key in match.values else ones
        if array.size != D or array.ndim > len(value.shape) or array.shape[-1:] != (D,):
            return f"{key} is of shape {array.shape}, must be one number for each of {D}"
        names.append(name(f"{match.root.name}.{key}"))
        constants[names[-1]] = array.reshape(-1)
    return names, constants, float(epsilon.reshape(()))


def _axes(mean: Node, graph: Graph, rank: int) -> tuple[int, ...]:
    if mean.op == "GlobalAveragePool":
        return tuple(range(2, rank))
    given = [int(axis) for key in mean.inputs[1:2] for axis in graph.constants[key].reshape(-1)]
    return mean.wholes("axes") or tuple(given)
