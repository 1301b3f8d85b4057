"""The memory of one conversation in ONNX Runtime."""

from typing import TYPE_CHECKING, cast

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.engines.memory import (
    check_open,
    check_rewind,
    check_span,
    pack_span,
    pack_state,
    unpack_span,
    unpack_state,
)
from onhand.device.engines.onnx_memory import KvMemory

if TYPE_CHECKING:
    import onnxruntime as ort

    from onhand.device.engines.onnx import OnnxLoaded

__all__ = ["OnnxSession"]

_SINGLE = np.dtype(np.float32)


class OnnxSession:
    """See `Session`."""

    def __init__(self, loaded: "OnnxLoaded", context: int) -> None:
        self.loaded = loaded
        self.context = context
        self.length = 0
        self.closed = False
        self.memory: KvMemory | None = loaded.new_memory(context)
        self._binding: ort.IOBinding | None = None
        self._tables: dict[str, FloatArray] = {}
        self._long = False

    def rewind(self, length: int) -> None:
        """See `Session`."""
        check_rewind(length, self.length)
        self.length = length

    def fork(self) -> "OnnxSession":
        """See `Session`."""
        check_open(self.closed, "the session")
        other = OnnxSession(self.loaded, self.context)
        other._kept().write(0, self._kept().read(0, self.length))
        other.length = self.length
        return other

    def save_state(self) -> bytes:
        """See `Session`."""
        return pack_state(self.loaded.key, self.length, self._kept().read(0, self.length))

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        memory = self._kept()
        length, parts = unpack_state(state, self.loaded.key, memory.shapes, context=self.context)
        memory.write(0, parts)
        self.length = length

    @property
    def span_key(self) -> bytes:
        """See `SpanSession`."""
        return self.loaded.span_key

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        memory = self._kept()
        check_span(begin, end, self.length)
        return pack_span(self.span_key, begin, memory.read(begin, end))

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        memory = self._kept()
        shapes = [(heads, width, _SINGLE) for heads, width in memory.shapes]
        n, parts = unpack_span(
            span, self.span_key, shapes, length=self.length, context=self.context
        )
        memory.write(self.length, parts)
        self.length += n

    def close(self) -> None:
        """See `Session`."""
        self.closed = True
        self._binding = None
        self._tables = {}
        self.memory = None
        self.length = 0

    def binding(self) -> "ort.IOBinding":
        """Return the binding of this session's memory: inputs and outputs are the same buffers."""
        if self._binding is None:
            binding = self.loaded.inner.io_binding()
            self._kept().bind(binding)
            self._binding = binding
        return self._binding

    def _kept(self) -> KvMemory:
        check_open(self.closed or self.memory is None, "the session")
        return cast(KvMemory, self.memory)

    def bind_tables(self, binding: "ort.IOBinding", *, long: bool) -> None:
        """Bind the rotary tables of a short or a long conversation, if others are bound."""
        if self._tables and long == self._long:
            return
        # Kept by the session: the binding knows only their addresses.
        self._tables, self._long = self.loaded.rope(self.context, long=long), long
        for name, table in self._tables.items():
            binding.bind_input(name, "cpu", 0, np.float32, table.shape, table.ctypes.data)
