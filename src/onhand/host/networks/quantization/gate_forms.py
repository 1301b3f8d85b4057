"""Hard sigmoids as sums that are cut off: integers compute those, and the cut costs nothing."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["spell_gates"]

_SWISH = (1 / 6, 0.5)


def spell_gates(graph: Graph, *, keep: Sequence[str]) -> Graph:
    """Write HardSigmoid and HardSwish as a sum, a Clip and a product with a number.

    clip(a x + b, 0, 1) is a clip(x + b / a, 0, 1 / a). On integers the Clip is the end of the
    sum's range, and the product another scale for the same codes, so that one addition is left.

    Args:
        graph: the graph.
        keep: patterns of names of nodes, or of operators, that stay.

    Returns:
        The graph; outputs keep their names.

    Source:
        Hard swish: MobileNetV3, arXiv:1905.02244.
    """
    taken, constants = graph.names(), dict(graph.constants)

    def spelt(node: Node) -> tuple[Node, ...]:
        named = any(fnmatchcase(node.name, pattern) or node.op == pattern for pattern in keep)
        if named or node.domain or node.op not in {"HardSigmoid", "HardSwish"}:
            return (node,)
        slope, start = _SWISH
        if node.op == "HardSigmoid":
            slope, start = node.number("alpha", 0.2), node.number("beta", 0.5)
        if slope <= 0 or start <= 0:
            return (node,)
        numbers = {"start": start / slope, "low": 0.0, "high": 1 / slope, "slope": slope}
        given: dict[str, str] = {}
        for part, number in numbers.items():
            given[part] = fresh_name(taken, f"{node.name}.{part}")
            array: Array = np.array(number, np.float32)
            constants[given[part]] = array
        total, cut = (fresh_name(taken, f"{node.name}.{part}") for part in ("sum", "cut"))
        is_gate = node.op == "HardSigmoid"
        gate = node.name if is_gate else fresh_name(taken, f"{node.name}.gate")
        x = node.inputs[0]
        made = (
            Node(op="Add", inputs=(x, given["start"]), outputs=(total,)),
            Node(op="Clip", inputs=(total, given["low"], given["high"]), outputs=(cut,)),
            Node(op="Mul", inputs=(cut, given["slope"]), outputs=(gate,)),
        )
        if is_gate:
            return made
        return (*made, Node(op="Mul", inputs=(x, gate), outputs=node.outputs))

    # `spelt` fills `constants` while it runs.
    changed = graph.rebuilt(spelt)
    return replace(changed, constants=constants)
