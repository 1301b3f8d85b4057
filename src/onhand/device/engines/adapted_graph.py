"""A bundle's graph with an adapter added: the file itself stays as it is."""

from onhand.core.adapter import Adapter
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxedit import LowRank, add_low_rank

__all__ = ["adapted_graph"]


def adapted_graph(content: bytes, decoder: Decoder, adapter: Adapter, *, where: str) -> bytes:
    """Return a graph that adds what an adapter adds.

    Args:
        content: the ONNX model, checked already.
        decoder: the model's description.
        adapter: read for that model.
        where: the model's name for messages.

    Returns:
        The ONNX model; its external tensors lie where they did.

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
        return add_low_rank(content, additions)
    except BundleCorrupt as error:
        raise BundleCorrupt(f"{where}: {error}") from error
