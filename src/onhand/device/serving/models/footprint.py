"""What a model will take of memory, said before it is opened.

Fitted to what processes took with each engine (`benchmarks.footprints`); what a model really took
is measured once it is open, and counts from then on.
"""

from dataclasses import dataclass
from typing import Final

from onhand.core.decoder import Decoder
from onhand.core.manifest import Manifest, Variant

__all__ = ["Footprint", "predicted", "token_bytes"]

# A tokenizer in memory is several times its file.
_TOKENIZER_TIMES: Final = 7
_MIB: Final = 2**20
# Buffers of a step, and what the engine's library keeps for itself.
_FIXED: Final = {"native": 6 * _MIB, "onnx": 24 * _MIB, "openvino": 48 * _MIB}
_OTHER_FIXED: Final = 12 * _MIB
# ONNX Runtime maps the file and packs a copy; the native engine packs one and lets the file go.
_WEIGHTS_TIMES: Final = {"native": 1}
_OTHER_TIMES: Final = 2
_NATIVE_PAGE: Final = 64
_NATIVE_SPARE_PAGES: Final = 32
_NATIVE_LANES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model takes.

    Attributes:
        weights_bytes: when nobody asks it anything.
        token_bytes: for each token that a conversation remembers; 0 for a network.
        page_tokens: tokens whose memory is taken at once.
        spare_bytes: memory of ended conversations that the engine keeps for the next ones.
    """

    weights_bytes: int
    token_bytes: int = 0
    page_tokens: int = 1
    spare_bytes: int = 0

    @property
    def idle_bytes(self) -> int:
        """What it takes without conversations."""
        return self.weights_bytes + self.spare_bytes

    def session_bytes(self, n_tokens: int) -> int:
        """Return what the memory of a conversation takes, in whole pages."""
        n_pages = -(-n_tokens // self.page_tokens)
        return n_pages * self.page_tokens * self.token_bytes


def predicted(manifest: Manifest, variant: Variant, *, engine: str, kv: str) -> Footprint:
    """Say what a model will take.

    Args:
        manifest: of its bundle.
        variant: the one that is opened.
        engine: name of the engine.
        kv: what keys and values are kept as; "" for the engine's own way.

    Returns:
        The prediction.
    """
    weights = sum(manifest.files[name].size for name in variant.weights)
    if variant.sparse:  # expanded when they are opened
        stored, whole = variant.sparse_bytes()
        weights += whole - stored
    texts = manifest.files.get("tokenizer.json")
    fixed = _FIXED.get(engine, _OTHER_FIXED)
    taken = weights * _WEIGHTS_TIMES.get(engine, _OTHER_TIMES) + fixed
    taken += 0 if texts is None else _TOKENIZER_TIMES * texts.size
    if not isinstance(manifest.model, Decoder):
        return Footprint(weights_bytes=taken)
    decoder = manifest.model
    if engine == "reference":
        taken += 4 * decoder.n_parameters
    each = token_bytes(decoder, engine=engine, kv=kv)
    if engine != "native":
        return Footprint(weights_bytes=taken, token_bytes=each)
    return Footprint(
        weights_bytes=taken,
        token_bytes=each,
        page_tokens=_NATIVE_PAGE,
        spare_bytes=_NATIVE_SPARE_PAGES * _NATIVE_PAGE * each,
    )


def token_bytes(decoder: Decoder, *, engine: str, kv: str) -> int:
    """Return what the key/value memory of one token takes.

    Args:
        decoder: the model.
        engine: name of the engine.
        kv: what keys and values are kept as; "" for the engine's own way.

    Returns:
        Bytes, all layers together.
    """
    if engine != "native":
        return 4 * decoder.kv_values_per_token
    total = 0
    for layer in decoder.layers:
        # A head's numbers fill whole vectors; of bytes each head has a scale for each token.
        wide = -(-layer.head_dim // _NATIVE_LANES) * _NATIVE_LANES
        total += 2 * layer.n_kv_heads * (wide + 4 if kv == "int8" else 2 * wide)
    return total
