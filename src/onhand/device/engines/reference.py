"""Plain numpy: slow, exact, and the oracle for the other engines."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from onhand.core.adapter import Adapter, Pairs
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.profile import DeviceProfile
from onhand.core.weights import BundleWeights, open_weights
from onhand.device.engines import forward
from onhand.device.engines.base import Session
from onhand.device.engines.memory import (
    check_batch,
    check_context,
    check_open,
    check_rewind,
    check_span,
    narrowed_key,
    pack_span,
    pack_state,
    state_key,
    unpack_span,
    unpack_state,
)
from onhand.device.processor import processor

__all__ = ["ReferenceEngine", "ReferenceLoaded", "ReferenceSession"]


_SINGLE = np.dtype(np.float32)


class _CachedWeights:
    """A bundle's weights, each matrix dequantised once. See `forward.Weights`."""

    def __init__(self, inner: BundleWeights) -> None:
        self._inner = inner
        self._matrices: dict[str, FloatArray] = {}

    @property
    def decoder(self) -> Decoder:
        """See `forward.Weights`."""
        return self._inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `forward.Weights`."""
        if name not in self._matrices:
            self._matrices[name] = self._inner.matrix(name)
        return self._matrices[name]

    def forget(self) -> None:
        """Release the dequantised matrices."""
        self._matrices = {}

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `forward.Weights`."""
        return self._inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `forward.Weights`."""
        return self._inner.vector(name)


class ReferenceSession:
    """See `Session`."""

    def __init__(self, loaded: "ReferenceLoaded", context: int) -> None:
        self.loaded = loaded
        self.context = context
        self.length = 0
        self.closed = False
        layers = loaded.weights.decoder.layers
        self.memory = [forward.LayerMemory.empty(layer, context) for layer in layers]

    def rewind(self, length: int) -> None:
        """See `Session`."""
        check_rewind(length, self.length)
        self.length = length

    def fork(self) -> "ReferenceSession":
        """See `Session`."""
        check_open(self.closed, "the session")
        other = ReferenceSession(self.loaded, self.context)
        for mine, theirs in zip(self.memory, other.memory, strict=True):
            theirs.keys[:, : self.length] = mine.keys[:, : self.length]
            theirs.values[:, : self.length] = mine.values[:, : self.length]
        other.length = self.length
        return other

    def save_state(self) -> bytes:
        """See `Session`."""
        check_open(self.closed, "the session")
        parts = [
            part[:, : self.length] for layer in self.memory for part in (layer.keys, layer.values)
        ]
        return pack_state(self.loaded.key, self.length, parts)

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        check_open(self.closed, "the session")
        layers = self.loaded.weights.decoder.layers
        shapes = [(layer.n_kv_heads, layer.head_dim) for layer in layers for _ in range(2)]
        length, parts = unpack_state(state, self.loaded.key, shapes, context=self.context)
        for layer, keys, values in zip(self.memory, parts[::2], parts[1::2], strict=True):
            layer.keys[:, :length] = keys
            layer.values[:, :length] = values
        self.length = length

    @property
    def span_key(self) -> bytes:
        """See `SpanSession`."""
        return self.loaded.span_key

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        check_span(begin, end, self.length)
        parts = [part[:, begin:end] for layer in self.memory for part in (layer.keys, layer.values)]
        return pack_span(self.span_key, begin, parts)

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        layers = self.loaded.weights.decoder.layers
        shapes = [(one.n_kv_heads, one.head_dim, _SINGLE) for one in layers for _ in range(2)]
        n, parts = unpack_span(
            span, self.span_key, shapes, length=self.length, context=self.context
        )
        begin, end = self.length, self.length + n
        for layer, keys, values in zip(self.memory, parts[::2], parts[1::2], strict=True):
            layer.keys[:, begin:end] = keys
            layer.values[:, begin:end] = values
        self.length = end

    def close(self) -> None:
        """See `Session`."""
        self.closed = True
        self.memory = []
        self.length = 0


class ReferenceLoaded:
    """See `Loaded`."""

    def __init__(self, weights: BundleWeights, key: bytes, pairs: Pairs) -> None:
        self.closed = False
        self._pairs = pairs
        self.weights = _CachedWeights(weights)
        self.key = key
        # numpy's library of matrices rounds sums as its version and the processor suggest.
        self.span_key = narrowed_key(key, np.__version__, *processor()[1])
        decoder = weights.decoder
        self.vocab_size = decoder.vocab_size
        self.context = decoder.context
        self._rope = forward.RopeCache(decoder, decoder.context)

    def session(self, *, context: int | None = None) -> ReferenceSession:
        """See `Loaded`."""
        check_open(self.closed, "the model")
        return ReferenceSession(self, check_context(context, self.context))

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        rows = self._checked(batch)
        last = [self._run(session, tokens)[-1:] for session, tokens in rows]
        return forward.logits(self.weights, np.concatenate(last), pairs=self._pairs)  # (B, V)

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        ((known, row),) = self._checked([(session, tokens)])
        return forward.logits(self.weights, self._run(known, row), pairs=self._pairs)  # (T, V)

    def close(self) -> None:
        """See `Loaded`."""
        self.closed = True
        self.weights.forget()
        self._rope = forward.RopeCache(self.weights.decoder, self.context)

    def _checked(
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> list[tuple[ReferenceSession, TokenArray]]:
        check_open(self.closed, "the model")
        return check_batch(batch, ReferenceSession, owner=self, vocab_size=self.vocab_size)

    def _run(self, session: ReferenceSession, tokens: TokenArray) -> FloatArray:
        weights = self.weights
        length = session.length + tokens.size
        x = forward.embed(weights, tokens, start=session.length)  # (T, D)
        for i, memory in enumerate(session.memory):
            rope = self._rope.tables(i, length)
            x = forward.run_layer(
                weights, i, x, memory, start=session.length, rope=rope, pairs=self._pairs
            )
        session.length = length
        return forward.final_hidden(weights, x)


class ReferenceEngine:
    """See `Engine`."""

    name: ClassVar[str] = "reference"

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if the dequantised weights fit the memory, else a reason."""
        needed = 4 * bundle.manifest.decoder.n_parameters
        if needed > profile.memory_bytes:
            return (
                f"the reference engine needs {needed} bytes for float32 weights, the device has "
                f"{profile.memory_bytes}"
            )
        return None

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> ReferenceLoaded:
        """Open the weights; numpy chooses its own threads, so `threads` is not used.

        Raises:
            BundleCorrupt: if the weights do not match the manifest.
        """
        key = state_key(bundle, variant, self.name, adapter)
        pairs = {} if adapter is None else adapter.pairs
        return ReferenceLoaded(open_weights(bundle, variant), key, pairs)
