"""What a network must be before any work is done on it."""

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Graph

__all__ = ["check_network"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check_network(graph: Graph) -> None:
    """Refuse a network that nothing could be measured on.

    Args:
        graph: of the source.

    Raises:
        SourceError: if it has no input or no output, or a weight is damaged: NaN anywhere, or an
            infinity in a layer (masks may hold those).
    """
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        if not values:
            raise SourceError(f"the network has no {kind}, needs one or more")
    layers = {name for node in graph.nodes if node.op in _LAYERS for name in node.inputs}
    for name, array in graph.constants.items():
        if array.dtype.kind != "f":
            continue
        damaged = ~np.isfinite(array) if name in layers else np.isnan(array)
        if n := int(np.count_nonzero(damaged)):
            raise SourceError(
                f"constant {name!r} holds {n} of {array.size} numbers that are NaN or infinite; "
                "train or export the network again"
            )
