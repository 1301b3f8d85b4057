"""The safetensors file format, read and written without loading a whole file.

Eight bytes of header length (little-endian), a JSON header, then the tensors without gaps.
Our own reader, because the device needs the byte ranges (for ONNX external data) and has to
bound what a hostile header claims; the writer streams, so that a file larger than memory works.

Source:
    https://github.com/huggingface/safetensors (format, README.md).
"""

import hashlib
import io
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import parse_json

__all__ = [
    "SafetensorsFile",
    "SafetensorsWriter",
    "TensorSpec",
    "layout_tensors",
    "open_safetensors",
    "read_safetensors",
    "widen",
]

MAX_HEADER_BYTES = 100_000_000  # the reference implementation's own bound
_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
_NUMPY = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "BF16": np.uint16,
    "I16": np.int16,
    "F16": np.float16,
    "U32": np.uint32,
    "I32": np.int32,
    "F32": np.float32,
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a file.

    Attributes:
        dtype: safetensors name: "F16", "BF16", "U8", ...
        shape: its shape.
        offset: first byte, from the start of the file.
        size: bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """An opened file: its tensors are read one by one.

    Attributes:
        path: the file.
        tensors: name -> where and what.
        content: the file, where it is in memory alone; None: it is mapped.
    """

    path: Path
    tensors: Mapping[str, TensorSpec]
    content: bytes | bytearray | None = field(default=None, repr=False)

    def view(self, name: str) -> np.ndarray:
        """Map one tensor; BF16 comes as uint16, see `widen`.

        Args:
            name: a key of `tensors`.

        Returns:
            A read-only array of the tensor's shape; its pages are read as they are touched.

        Raises:
            InputError: if there is no such tensor.
        """
        spec = self.tensors.get(name)
        if spec is None:
            raise InputError(f"{self.path}: no tensor {name!r}")
        kind = np.dtype(_NUMPY[spec.dtype])
        if spec.size == 0:
            return np.zeros(spec.shape, dtype=kind)
        if self.content is not None:
            flat = np.frombuffer(
                memoryview(self.content).toreadonly(), np.uint8, spec.size, spec.offset
            )
            return flat.view(kind).reshape(spec.shape)
        # A mapping begins at a page. Not numpy's memmap: it takes thrice as long, and a model has
        # hundreds of tensors.
        before = spec.offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            mapped = mmap.mmap(
                file.fileno(),
                before + spec.size,
                access=mmap.ACCESS_READ,
                offset=spec.offset - before,
            )
        return np.frombuffer(mapped, dtype=kind, offset=before).reshape(spec.shape)


def widen(array: np.ndarray) -> FloatArray:
    """Return float16, bfloat16 (as uint16, see `SafetensorsFile.view`) or float32 as float32."""
    if array.dtype == np.uint16:
        # bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of a file.

    Args:
        path: the file.

    Returns:
        The opened file.

    Raises:
        BundleCorrupt: if the header is damaged, claims bytes beyond the file, leaves gaps, or
            gives a shape that does not match its bytes.
    """
    with path.open("rb") as file:
        return SafetensorsFile(path, _tensors(file, path, path.stat().st_size))


def read_safetensors(content: bytes | bytearray, *, called: Path) -> SafetensorsFile:
    """Check the header of a file that is in memory.

    Args:
        content: the whole file; it must not change any more.
        called: its name for messages.

    Returns:
        The file.

    Raises:
        BundleCorrupt: as in `open_safetensors`.
    """
    return SafetensorsFile(called, _tensors(io.BytesIO(content), called, len(content)), content)


def _tensors(file: BinaryIO, path: Path, size: int) -> dict[str, TensorSpec]:
    start = file.read(8)
    length = int.from_bytes(start, "little") if len(start) == 8 else -1
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise BundleCorrupt(
            f"{path}: not a safetensors file, or cut short: header of {length} bytes in a file "
            f"of {size}"
        )
    body = file.read(length)
    try:
        header = parse_json(body)
    except InputError as error:
        raise BundleCorrupt(f"{path}: header is {error}") from error
    if not isinstance(header, dict):
        raise BundleCorrupt(f"{path}: header is not a JSON object")
    header.pop("__metadata__", None)
    base = 8 + length
    tensors = {str(name): _spec(entry, f"{path}: {name!r}", base) for name, entry in header.items()}
    end = base
    for name, spec in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size)):
        if spec.offset != end:
            raise BundleCorrupt(f"{path}: {name!r} begins at byte {spec.offset}, expected {end}")
        end += spec.size
    if end != size:
        raise BundleCorrupt(f"{path}: tensors end at byte {end}, the file has {size}: cut short?")
    return tensors


def _spec(entry: object, where: str, base: int) -> TensorSpec:
    if not isinstance(entry, dict):
        raise BundleCorrupt(f"{where}: entry is not a JSON object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise BundleCorrupt(f"{where}: unknown dtype {dtype!r}")
    sizes, ends = _counts(shape, where), _counts(offsets, where)
    size = math.prod(sizes) * _ITEM_BYTES[dtype]
    if len(ends) != 2 or ends[1] - ends[0] != size:
        raise BundleCorrupt(f"{where}: {dtype} {shape} is {size} bytes, data_offsets say {offsets}")
    return TensorSpec(dtype=dtype, shape=sizes, offset=base + ends[0], size=size)


def _counts(value: object, where: str) -> tuple[int, ...]:
    if isinstance(value, list) and len(value) <= 8:
        counts = tuple(item for item in value if type(item) is int and 0 <= item < 2**48)
        if len(counts) == len(value):
            return counts
    raise BundleCorrupt(f"{where}: {value!r} is not a shape or a pair of offsets")


def layout_tensors(declared: Mapping[str, TensorSpec]) -> tuple[bytes, dict[str, TensorSpec]]:
    """Decide where each tensor of a file lies.

    Args:
        declared: name -> dtype and shape, in the order of the file.

    Returns:
        The file's first bytes, header length and header; and name -> spec with its place.
    """
    header: dict[str, object] = {}
    ends = [0]
    for name, spec in declared.items():
        ends.append(ends[-1] + math.prod(spec.shape) * _ITEM_BYTES[spec.dtype])
        header[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": ends[-2:],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data begin on a cache line: vector loads of a mapped file then stay aligned.
    text += b" " * (-(8 + len(text)) % 64)
    start = 8 + len(text)
    tensors = {
        name: TensorSpec(dtype=spec.dtype, shape=spec.shape, offset=start + low, size=high - low)
        for (name, spec), low, high in zip(declared.items(), ends[:-1], ends[1:], strict=True)
    }
    return len(text).to_bytes(8, "little") + text, tensors


class SafetensorsWriter:
    """Writes a file tensor by tensor, in the order declared; not safe to share between threads.

    The header comes first in the file, so every dtype and shape is declared up front.
    """

    def __init__(self, path: Path, declared: Mapping[str, TensorSpec]) -> None:
        self.path = path
        header, self.tensors = layout_tensors(declared)
        self._waiting = list(declared)[::-1]
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")
        self._put(header)

    def write(self, name: str, array: np.ndarray) -> None:
        """Append the next declared tensor.

        Args:
            name: must be the next one in the declared order.
            array: of the declared dtype and shape.

        Raises:
            InputError: if it is another tensor, or of another dtype or shape.
        """
        if not self._waiting or self._waiting[-1] != name:
            raise InputError(f"{self.path}: {name!r} is out of order")
        spec = self.tensors[name]
        if array.shape != spec.shape or array.dtype != _NUMPY[spec.dtype]:
            raise InputError(
                f"{self.path}: {name!r} is {array.dtype} {array.shape}, declared {spec.dtype} "
                f"{spec.shape}"
            )
        self._waiting.pop()
        if array.nbytes:
            self._put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def close(self) -> str:
        """Finish the file and return its SHA-256 in hex.

        Raises:
            InputError: if a declared tensor was not written.
        """
        self._file.close()
        if self._waiting:
            raise InputError(f"{self.path}: {self._waiting[-1]!r} was declared and not written")
        return self._hash.hexdigest()

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
