"""The memory of one conversation on a torch device."""

from typing import TYPE_CHECKING, Any

import numpy as np

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

if TYPE_CHECKING:
    from torch import Tensor

    from onhand.host.engines.torch_engine import TorchLoaded

__all__ = ["TorchSession"]


class TorchSession:
    """See `SpanSession`. Keys and values are reserved whole: ask for the context that you need."""

    def __init__(self, loaded: "TorchLoaded", context: int) -> None:
        """Reserve the memory.

        Args:
            loaded: the weights.
            context: most tokens.
        """
        import torch

        self.loaded = loaded
        self.context = context
        self.length = 0
        self.closed = False
        model = loaded.model
        shapes = [(one.n_kv_heads, context, one.head_dim) for one in model.decoder.layers]
        self._dtype = np.dtype(np.float16 if model.dtype == torch.float16 else np.float32)
        self.keys = [torch.zeros(s, dtype=model.dtype, device=model.device) for s in shapes]
        self.values = [torch.zeros(s, dtype=model.dtype, device=model.device) for s in shapes]

    def rewind(self, length: int) -> None:
        """See `Session`."""
        check_rewind(length, self.length)
        self.length = length

    def fork(self) -> "TorchSession":
        """See `Session`."""
        check_open(self.closed, "the session")
        other = TorchSession(self.loaded, self.context)
        for mine, theirs in zip(self._parts(), other._parts(), strict=True):
            theirs[:, : self.length] = mine[:, : self.length]
        other.length = self.length
        return other

    def save_state(self) -> bytes:
        """See `Session`."""
        check_open(self.closed, "the session")
        return pack_state(self.loaded.key, self.length, self._read(0, self.length))

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        check_open(self.closed, "the session")
        length, parts = unpack_parts(state, self.loaded.key, self._shapes(), context=self.context)
        self._write(0, parts)
        self.length = length

    @property
    def span_key(self) -> bytes:
        """See `SpanSession`."""
        return self.loaded.span_key

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        check_span(begin, end, self.length)
        return pack_span(self.span_key, begin, self._read(begin, end))

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        n, parts = unpack_span(
            span, self.span_key, self._shapes(), length=self.length, context=self.context
        )
        self._write(self.length, parts)
        self.length += n

    def close(self) -> None:
        """See `Session`."""
        self.closed = True
        self.keys, self.values = [], []
        self.length = 0

    def _parts(self) -> "list[Tensor]":
        """Return keys and values, layer by layer."""
        return [one for pair in zip(self.keys, self.values, strict=True) for one in pair]

    def _shapes(self) -> list[PartShape]:
        return [(part.shape[0], part.shape[2], self._dtype) for part in self._parts()]

    def _read(self, begin: int, end: int) -> list[np.ndarray]:
        return [part[:, begin:end].cpu().numpy() for part in self._parts()]

    def _write(self, begin: int, saved: list[Any]) -> None:
        import torch

        for mine, given in zip(self._parts(), saved, strict=True):
            part = torch.from_numpy(np.array(given)).to(mine.device)
            mine[:, begin : begin + given.shape[1]] = part
