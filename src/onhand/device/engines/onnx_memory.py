"""Where a conversation's keys and values lie for ONNX Runtime: here, or on an accelerator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["DeviceMemory", "HostMemory", "KvMemory", "part_names"]


def part_names(decoder: Decoder) -> list[str]:
    """Return the graph's names of a memory's parts: keys and values, layer by layer."""
    return [f"{what}.{i}" for i in range(len(decoder.layers)) for what in ("key", "value")]


class KvMemory(Protocol):
    """Keys and values of all layers, each (1, n_kv_heads, context, head_dim) float32."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Heads and width of each part."""
        ...

    def read(self, begin: int, end: int) -> list[FloatArray]:
        """Return the tokens from `begin` to before `end` of each part: (heads, tokens, width)."""
        ...

    def write(self, begin: int, parts: Sequence[FloatArray]) -> None:
        """Put tokens at a place in each part."""
        ...

    def places(self) -> list[int]:
        """Return the address of each part, wherever it lies."""
        ...

    def bind(self, binding: "ort.IOBinding") -> None:
        """Bind every part as the graph's input and output: a step writes where it reads."""
        ...


def _shapes(decoder: Decoder, context: int) -> list[tuple[int, int, int, int]]:
    return [
        (1, layer.n_kv_heads, context, layer.head_dim) for layer in decoder.layers for _ in range(2)
    ]


class HostMemory:
    """See `KvMemory`. It is reserved whole and committed by the system as it is written."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        self._names = part_names(decoder)
        self._parts = [np.zeros(s, dtype=np.float32) for s in _shapes(decoder, context)]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """See `KvMemory`."""
        return [(part.shape[1], part.shape[3]) for part in self._parts]

    def read(self, begin: int, end: int) -> list[FloatArray]:
        """See `KvMemory`: views."""
        return [part[0, :, begin:end] for part in self._parts]

    def write(self, begin: int, parts: Sequence[FloatArray]) -> None:
        """See `KvMemory`."""
        for mine, given in zip(self._parts, parts, strict=True):
            mine[0, :, begin : begin + given.shape[1]] = given

    def places(self) -> list[int]:
        """See `KvMemory`."""
        return [part.ctypes.data for part in self._parts]

    def bind(self, binding: "ort.IOBinding") -> None:
        """See `KvMemory`."""
        for name, part in zip(self._names, self._parts, strict=True):
            place = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(f"new_{name}", *place)


class DeviceMemory:
    """See `KvMemory`. It stays on an accelerator; reading or writing a part moves all of it."""

    def __init__(self, decoder: Decoder, context: int, device: str) -> None:
        """Reserve it.

        Args:
            decoder: the model.
            context: most tokens.
            device: as ONNX Runtime calls the accelerator's memory: "cuda".
        """
        refuse_telemetry()
        import onnxruntime as ort

        self._names = part_names(decoder)
        self._parts = [
            ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32), device, 0)
            for shape in _shapes(decoder, context)
        ]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """See `KvMemory`."""
        return [(part.shape()[1], part.shape()[3]) for part in self._parts]

    def read(self, begin: int, end: int) -> list[FloatArray]:
        """See `KvMemory`: copies."""
        return [part.numpy()[0, :, begin:end].copy() for part in self._parts]

    def write(self, begin: int, parts: Sequence[FloatArray]) -> None:
        """See `KvMemory`."""
        for mine, given in zip(self._parts, parts, strict=True):
            whole = mine.numpy().copy()
            whole[0, :, begin : begin + given.shape[1]] = given
            mine.update_inplace(whole)

    def places(self) -> list[int]:
        """See `KvMemory`."""
        return [int(part.data_ptr()) for part in self._parts]

    def bind(self, binding: "ort.IOBinding") -> None:
        """See `KvMemory`."""
        for name, part in zip(self._names, self._parts, strict=True):
            binding.bind_ortvalue_input(name, part)
            binding.bind_ortvalue_output(f"new_{name}", part)
