"""A bundle's graph with an adapter added: the file itself stays as it is."""

from pathlib import Path

from onhand.core.adapter import Adapter
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxedit import LowRank, add_low_rank

__all__ = ["adapted_graph"]


def adapted_graph(graph: Path, decoder: Decoder, adapter: Adapter) -> bytes:
    """Return a graph that adds what an adapter adds.

    Args:
        graph: the ONNX file, checked already.
        decoder: the model's description.
        adapter: read for that model.

    Returns:
        The ONNX model; its external tensors lie where those of the file do.

    Raises:
        BundleCorrupt: if the graph does not name its products as the format says.
    """
    additions: dict[str, LowRank] = {}
    for name, (first, second) in adapter.pairs.items():
        # The head's product is named for what it is, as tied models have no matrix "head".
        product = "scores" if name == "head" else f"{name}.result"
        applied_first = decoder.factors(decoder.head if name == "head" else name)[0]
        additions[product] = LowRank(
            weights=(applied_first, f"{applied_first}.codes"), first=first, second=second
        )
    try:
        return add_low_rank(graph.read_bytes(), additions)
    except BundleCorrupt as error:
        raise BundleCorrupt(f"{graph}: {error}") from error
