"""Activations that exporters write as several operators: Gelu, SiLU, hard swish."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from onhand.host.networks.fusing.patterns import (
    Bind,
    Made,
    Match,
    Number,
    Op,
    Pattern,
    Rewritten,
    rewrite,
)
from onhand.host.networks.graph import Graph, Node, Value

__all__ = ["fuse_gelu", "fuse_hard_swish", "fuse_silu"]

MICROSOFT: Final = "com.microsoft"
_GELU_OPSET: Final = 20
_X = Bind("x")


def _mul(left: Pattern, right: Pattern) -> Op:
    return Op("Mul", (left, right))


def _add(left: Pattern, right: Pattern) -> Op:
    return Op("Add", (left, right))


def _products(a: Pattern, b: Pattern, c: Pattern) -> tuple[Op, ...]:
    """Return the three ways to multiply three factors; the order in a product does not matter."""
    return _mul(_mul(a, b), c), _mul(a, _mul(b, c)), _mul(_mul(a, c), b)


_INNER = (Op("Div", (_X, Number(math.sqrt(2)))), _mul(_X, Number(1 / math.sqrt(2))))
_EXACT = tuple(
    shape
    for inner in _INNER
    for shape in _products(_X, Number(0.5), _add(Op("Erf", (inner,)), Number(1.0)))
)
_SCALE, _CUBIC = Number(math.sqrt(2 / math.pi)), Number(0.044715)
_CUBES = (
    Op("Pow", (_X, Number(3.0))),
    _mul(_mul(_X, _X), _X),
    _mul(Op("Pow", (_X, Number(2.0))), _X),
)
_TANH = tuple(
    shape
    for cube in _CUBES
    for shape in _products(
        _X,
        Number(0.5),
        _add(Op("Tanh", (_mul(_SCALE, _add(_X, _mul(_CUBIC, cube))),)), Number(1.0)),
    )
)


def fuse_gelu(graph: Graph, types: Mapping[str, Value], *, microsoft: bool) -> Rewritten:
    """Put `0.5 x (1 + erf(x / sqrt 2))`, or its form with tanh, into one operator.

    Args:
        graph: the graph.
        types: of its values.
        microsoft: whether ONNX Runtime's own operators may be used, where ONNX's Gelu is of a
            later opset than the graph.

    Returns:
        The graph; Gelu that neither has is kept.

    Source:
        Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv:1606.08415.
    """

    def maker(approximate: str) -> Callable[[Match, Callable[[str], str]], Made | str]:
        def make(match: Match, _name: Callable[[str], str]) -> Made | str:
            x = match.values["x"]
            if graph.opset >= _GELU_OPSET:
                node = Node(op="Gelu", inputs=(x,), outputs=match.root.outputs,
                            attributes={"approximate": approximate})  # fmt: skip
                return Made(nodes=(node,), what=f"Gelu of {len(match.nodes)} operators")
            if not microsoft:
                return (
                    f"Gelu is of opset {_GELU_OPSET}, the graph of {graph.opset}; "
                    'operators = "onnxruntime" has one'
                )
            if not _is_float32(types, x):
                return "ONNX Runtime's Gelu is for float32"
            op = "Gelu" if approximate == "none" else "FastGelu"
            node = Node(op=op, inputs=(x,), outputs=match.root.outputs, domain=MICROSOFT)
            return Made(nodes=(node,), what=f"{op} of {len(match.nodes)} operators")

        return make

    exact = rewrite(graph, _EXACT, maker("none"))
    tanh = rewrite(exact.graph, _TANH, maker("tanh"))
    return Rewritten(
        graph=tanh.graph, changed=exact.changed | tanh.changed, kept=exact.kept | tanh.kept
    )


_SILU = (_mul(_X, Op("Sigmoid", (_X,))),)


def fuse_silu(graph: Graph, types: Mapping[str, Value]) -> Rewritten:
    """Put `x sigmoid(x)` into ONNX Runtime's QuickGelu, which it is for a factor of 1.

    Args:
        graph: the graph.
        types: of its values.

    Returns:
        The graph.

    Source:
        Elfwing et al., arXiv:1702.03118.
    """

    def make(match: Match, _name: Callable[[str], str]) -> Made | str:
        x = match.values["x"]
        if not _is_float32(types, x):
            return "ONNX Runtime's QuickGelu is for float32"
        node = Node(op="QuickGelu", inputs=(x,), outputs=match.root.outputs,
                    attributes={"alpha": 1.0}, domain=MICROSOFT)  # fmt: skip
        return Made(nodes=(node,), what="QuickGelu of Sigmoid and Mul")

    return rewrite(graph, _SILU, make)


def _sixth(node: Node) -> bool:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    return math.isclose(alpha, 1 / 6, rel_tol=1e-5) and math.isclose(beta, 0.5)


_HARD = Op("HardSigmoid", (_X,), suits=_sixth)
_CLIP = Op("Clip", (_add(_X, Number(3.0)), Number(0.0), Number(6.0)))
# Number(0.0) compares exactly: there is no relative distance from zero.
_HARD_SWISH = (
    _mul(_X, _HARD),
    _mul(_X, Op("Div", (_CLIP, Number(6.0)))),
    Op("Div", (_mul(_X, _CLIP), Number(6.0))),
    *_products(_X, _CLIP, Number(1 / 6)),
)


def fuse_hard_swish(graph: Graph) -> Rewritten:
    """Put `x clip(x + 3, 0, 6) / 6` into HardSwish.

    Args:
        graph: the graph.

    Returns:
        The graph.

    Source:
        Howard et al., Searching for MobileNetV3, arXiv:1905.02244.
    """

    def make(match: Match, _name: Callable[[str], str]) -> Made | str:
        node = Node(op="HardSwish", inputs=(match.values["x"],), outputs=match.root.outputs)
        return Made(nodes=(node,), what=f"HardSwish of {len(match.nodes)} operators")

    return rewrite(graph, _HARD_SWISH, make)


def _is_float32(types: Mapping[str, Value], name: str) -> bool:
    return name in types and types[name].dtype == "float32"
