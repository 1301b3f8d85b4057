"""What a rule of differentiation is."""

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import attributes_of
from onhand.host.learning.tape import Tape, called

__all__ = ["Gradients", "Rule", "Rules", "number_of", "only", "whole_of", "wholes_of"]

Gradients = Sequence[str | None]
"""Names of gradients, None where there is none."""
Rule = Callable[[Tape, NodeProto, Gradients, Sequence[bool]], Gradients]
"""(tape, node, gradients of its results, which inputs need one) -> gradients of its inputs."""
Rules = Mapping[tuple[str, str], Rule]
"""(domain, operator) -> its rule."""


def only(node: NodeProto, given: Gradients) -> str:
    """Return the gradient of a node's first result, the only one that the rule follows.

    Raises:
        SourceError: if the loss depends on another of its results.
    """
    if given[0] is None or any(gradient is not None for gradient in given[1:]):
        raise SourceError(f"{called(node)}: only its first result can be differentiated")
    return given[0]


def whole_of(node: NodeProto, name: str, default: int) -> int:
    """Return an attribute that is a whole number."""
    value = attributes_of(node).get(name)
    return value if isinstance(value, int) else default


def number_of(node: NodeProto, name: str, default: float) -> float:
    """Return an attribute that is a number."""
    value = attributes_of(node).get(name)
    return float(value) if isinstance(value, int | float) else default


def wholes_of(node: NodeProto, name: str, default: Sequence[int]) -> list[int]:
    """Return an attribute that is a list of whole numbers."""
    value = attributes_of(node).get(name)
    return [int(v) for v in value] if isinstance(value, Sequence) else list(default)
