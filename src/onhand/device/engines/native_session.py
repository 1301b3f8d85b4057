"""The memory of one conversation in the native engine."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np

from onhand.core.decoder import Decoder
from onhand.device.engines.base import KvKind
from onhand.device.engines.memory import (
    PartShape,
    check_open,
    check_rewind,
    check_span,
    pack_span,
    pack_state,
    unpack_parts,
    unpack_span,
)

__all__ = ["NativeSession", "NativeWeights", "aligned"]

_HALF, _CODE, _SCALE = np.dtype(np.float16), np.dtype(np.int8), np.dtype(np.float32)


def aligned(array: np.ndarray) -> Any:
    """Return it where vector instructions may read it: files and states put it anywhere."""
    if array.flags.c_contiguous and array.flags.aligned:  # the rule: what a copy asks costs more
        return array
    return np.require(array, requirements=["C", "A"])


class NativeWeights(Protocol):
    """What a session knows of its `NativeLoaded`."""

    decoder: Decoder
    kv: KvKind


class NativeSession:
    """See `Session`. Keys and values lie in pages that forks share until they differ."""

    def __init__(
        self, loaded: NativeWeights, context: int, inner: Any, key: bytes, *, span_key: bytes
    ) -> None:
        self.loaded = loaded
        self.context = context
        self.inner = inner
        self.key = key
        self.span_key = span_key
        self.closed = False

    @property
    def length(self) -> int:
        """See `Session`."""
        return 0 if self.closed else int(self.inner.length)

    def rewind(self, length: int) -> None:
        """See `Session`."""
        check_rewind(length, self.length)
        if not self.closed:
            self.inner.rewind(length)

    def fork(self) -> Self:
        """See `Session`."""
        check_open(self.closed, "the session")
        inner = self.inner.fork()
        return type(self)(self.loaded, self.context, inner, self.key, span_key=self.span_key)

    def save_state(self) -> bytes:
        """See `Session`."""
        check_open(self.closed, "the session")
        parts = zip(self.inner.state(), self._parts(), strict=True)
        return pack_state(self.key, self.length, [part.view(dtype) for part, (*_, dtype) in parts])

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        check_open(self.closed, "the session")
        length, parts = unpack_parts(state, self.key, self._parts(), context=self.context)
        self.inner.load(_as_inner(parts), length)

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        check_span(begin, end, self.length)
        return pack_span(self.span_key, begin, self.inner.span(begin, end))

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        n, parts = unpack_span(
            span, self.span_key, self._parts(), length=self.length, context=self.context
        )
        self.inner.append(_as_inner(parts), n)

    def close(self) -> None:
        """See `Session`."""
        self.closed = True
        self.inner = None

    def _parts(self) -> list[PartShape]:
        """Return what a state holds: of each layer keys and values, and the scales of both."""
        parts: list[PartShape] = []
        for layer in self.loaded.decoder.layers:
            heads, dim = layer.n_kv_heads, layer.head_dim
            if self.loaded.kv == "fp16":
                parts += [(heads, dim, _HALF)] * 2
            else:
                parts += [(heads, dim, _CODE)] * 2 + [(heads, 1, _SCALE)] * 2
        return parts


def _as_inner(parts: Sequence[np.ndarray]) -> list[Any]:
    # The native part knows fp16 by its bits.
    return [aligned(part.view(np.uint16) if part.dtype == _HALF else part) for part in parts]
