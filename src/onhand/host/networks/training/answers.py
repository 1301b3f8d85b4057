"""What a network's first output says, so that two networks' answers can be held together."""

from dataclasses import dataclass
from typing import Final

from onhand.host.networks.graph import Graph

__all__ = ["Answer", "answer_of"]

_LOGITS: Final = {"image-classification", "text-classification", "audio-classification"}
_PASSED_ON: Final = {"Identity", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The value that is compared.

    Attributes:
        names: of the values; one, but for "values".
        kind: "classes" (scores before a softmax), "independent" (before a sigmoid), "vector" (a
            direction) or "values" (plain numbers).
    """

    names: tuple[str, ...]
    kind: str


def answer_of(graph: Graph, task: str) -> Answer:
    """Find what of a graph is compared with the same of another.

    Where the output is a probability, the scores before it are taken: their gradients do not
    vanish.

    Args:
        graph: the graph.
        task: one of `onhand.core.network.TASKS`.

    Returns:
        The values.
    """
    first = graph.outputs[0].name
    if task == "text-embedding":
        return Answer((first,), "vector")
    if task not in _LOGITS:
        floats = tuple(value.name for value in graph.outputs if value.dtype.kind == "f")
        return Answer(floats, "values")
    producers, name = graph.producers(), first
    while (node := producers.get(name)) is not None:
        if node.op == "Softmax":
            return Answer((node.inputs[0],), "classes")
        if node.op == "Sigmoid":
            return Answer((node.inputs[0],), "independent")
        if node.op not in _PASSED_ON:
            break
        name = node.inputs[0]
    return Answer((first,), "classes")
