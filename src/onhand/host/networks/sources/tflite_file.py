"""LiteRT's `.tflite` files: their tensors and operators, bounded and checked.

Source: schema.fbs, version 3, of https://github.com/tensorflow/tensorflow (tensorflow/lite/schema).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array
from onhand.host.networks.sources.flatbuffer import Table, root_table

__all__ = ["MARK", "TfliteFile", "TfliteOperator", "TfliteTensor", "read_tflite"]

MARK: Final = b"TFL3"
_VERSION = 3
_MOST_TENSORS, _MOST_RANK, _MOST_SIZE = 2**17, 8, 2**31 - 1
_CUSTOM, _DELEGATE = 32, 51
_DTYPES: Final = {
    0: "<f4",
    1: "<f2",
    2: "<i4",
    3: "u1",
    4: "<i8",
    6: "?",
    7: "<i2",
    9: "i1",
    10: "<f8",
    15: "<u4",
    16: "<u2",
}
_INT4 = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteTensor:
    """One value of the network.

    Attributes:
        name: there.
        shape: sizes for a batch as it was exported.
        batched: whether the first size was open.
        dtype: in the file; int4 is kept as int8.
        bits: of one number in the file.
        data: of a constant, as stored; None for others.
        scale: real = scale * (stored - zero_point); (1,) or one for each slice of `axis`; empty
            where it is not quantised.
        zero_point: likewise.
        axis: of the scales.
    """

    name: str
    shape: tuple[int, ...]
    batched: bool
    dtype: np.dtype[np.generic]
    bits: int
    data: Array | None
    scale: Array
    zero_point: Array
    axis: int

    @property
    def is_quantized(self) -> bool:
        """Whether stored numbers stand for real ones."""
        return self.scale.size > 0 and self.dtype.kind in "iu"

    def real(self) -> Array | None:
        """Return a constant as numbers: float32 where it is quantised or float16."""
        if self.data is None:
            return None
        if not self.is_quantized:
            with np.errstate(over="ignore", invalid="ignore"):
                return self.data.astype(np.float32) if self.dtype.kind == "f" else self.data
        shape = [1] * self.data.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        zero = self.zero_point.astype(np.float64).reshape(shape if self.scale.size > 1 else ())
        scale = self.scale.astype(np.float64).reshape(shape if self.scale.size > 1 else ())
        with np.errstate(over="ignore"):
            return ((self.data.astype(np.float64) - zero) * scale).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteOperator:
    """One step.

    Attributes:
        code: number in the schema; 32 for one of somebody's own.
        custom: its name then.
        inputs: indices of tensors, -1 for one that is left out.
        outputs: likewise.
        options: its own table, None where it has none.
        block: of a convolution that was three operators, its dilations; () for others.
        pads: and its paddings: begins, then ends.
    """

    code: int
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None
    block: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """The main graph of a file.

    Attributes:
        tensors: all of them.
        operators: in the order in which they run.
        inputs: indices.
        outputs: likewise.
        n_graphs: how many the file has; only the first one is here.
    """

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    n_graphs: int


def read_tflite(content: bytes, *, where: str) -> TfliteFile:
    """Read a file.

    Args:
        content: all of it.
        where: its name for messages.

    Returns:
        Its first graph; each index in it exists.

    Raises:
        SourceError: if it is no such file, of another version, cut, or in itself contradictory.
    """
    root = root_table(content, mark=MARK, where=where)
    version = root.whole(0, "I")
    graphs = root.tables(2)
    if version != _VERSION or not graphs:
        raise SourceError(f"{where}: version {version} with {len(graphs)} graphs, must be 3 with 1")
    buffers, graph = root.tables(4), graphs[0]
    listed = graph.tables(0)
    if len(listed) > _MOST_TENSORS:
        raise SourceError(f"{where}: {len(listed)} tensors, must be at most {_MOST_TENSORS}")
    reader = _Reader(content, buffers, where)
    tensors = tuple(reader.tensor(table) for table in listed)
    codes = [_code(table) for table in root.tables(1)]
    operators = tuple(_operator(table, codes, len(tensors), where) for table in graph.tables(3))
    return TfliteFile(
        tensors=tensors,
        operators=operators,
        inputs=_indices(graph, 1, len(tensors), where, least=0),
        outputs=_indices(graph, 2, len(tensors), where, least=0),
        n_graphs=len(graphs),
    )


def _code(table: Table) -> tuple[int, str]:
    # The older field holds one byte; newer operators have the larger number in the newer one.
    return max(table.whole(0, "b"), table.whole(3, "i")), table.text(1)


def _operator(
    table: Table, codes: Sequence[tuple[int, str]], n_tensors: int, where: str
) -> TfliteOperator:
    index = table.whole(0, "I")
    if index >= len(codes):
        raise SourceError(f"{where}: an operator has code {index} of {len(codes)}; damaged?")
    code, custom = codes[index]
    return TfliteOperator(
        code=code,
        custom=custom,
        inputs=_indices(table, 1, n_tensors, where, least=-1),
        outputs=_indices(table, 2, n_tensors, where, least=0),
        options=table.table(4),
    )


def _indices(table: Table, slot: int, n: int, where: str, *, least: int) -> tuple[int, ...]:
    found = tuple(int(index) for index in table.numbers(slot, "<i4"))
    if any(not least <= index < n for index in found):
        raise SourceError(f"{where}: a list of tensors {found[:8]} has one beyond {n}; damaged?")
    return found


class _Reader:
    """Tensors of one file; constants may be shared, but not without end."""

    def __init__(self, content: bytes, buffers: list[Table], where: str) -> None:
        self._content = content
        self._buffers = buffers
        self._where = where
        self._left = 4 * len(content) + 4096

    def tensor(self, table: Table) -> TfliteTensor:
        """Return one tensor."""
        name = table.text(3)
        given, signature = table.numbers(0, "<i4"), table.numbers(7, "<i4")
        shape = tuple(int(size) for size in given)
        if len(shape) > _MOST_RANK or any(not 0 <= size <= _MOST_SIZE for size in shape):
            raise self._bad(name, f"has shape {shape[:9]}")
        kind = table.whole(1, "b")
        if kind not in _DTYPES and kind != _INT4:
            raise self._bad(name, f"is of type {kind}, which is not read here")
        if table.table(6) is not None:
            raise self._bad(name, "is sparse; store it dense")
        dtype = np.dtype("i1" if kind == _INT4 else _DTYPES[kind])
        scale, zero, axis = self._quantization(table.table(4), name, shape, dtype)
        return TfliteTensor(
            name=name,
            shape=shape,
            batched=bool(len(signature) == len(shape) and shape and signature[0] == -1),
            dtype=dtype,
            bits=4 if kind == _INT4 else dtype.itemsize * 8,
            data=self._data(table.whole(2, "I"), name, shape, dtype, kind == _INT4),
            scale=scale,
            zero_point=zero,
            axis=axis,
        )

    def _quantization(
        self,
        table: Table | None,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
    ) -> tuple[Array, Array, int]:
        none = np.zeros(0, dtype=np.float32)
        if table is None or dtype.kind not in "iu":
            return none, none, 0
        scale, zero = table.numbers(2, "<f4"), table.numbers(3, "<i8")
        axis = table.whole(6, "i")
        if scale.size == 0:
            return none, none, 0
        if zero.size == 0:
            zero = np.zeros(scale.size, dtype=np.int64)
        if zero.size == 1 and scale.size > 1:
            zero = np.broadcast_to(zero, scale.shape)
        along = shape[axis] if 0 <= axis < len(shape) else 0
        if zero.size != scale.size or (scale.size > 1 and scale.size != along):
            raise self._bad(name, f"{shape} has {scale.size} scales along axis {axis}")
        if not np.all(np.isfinite(scale)) or float(scale.min()) < 0:
            raise self._bad(name, "has a scale that is no positive number")
        return scale, zero, axis

    def _data(
        self,
        index: int,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        is_packed: bool,
    ) -> Array | None:
        if index == 0:
            return None
        if index >= len(self._buffers):
            raise self._bad(name, f"lies in buffer {index} of {len(self._buffers)}")
        content = self._content_of(self._buffers[index], name)
        if not content:
            return None
        n = 1
        for size in shape:
            n *= size
        n_bytes = (n + 1) // 2 if is_packed else n * dtype.itemsize
        if n_bytes != len(content):
            raise self._bad(name, f"{shape} needs {n_bytes} bytes, its buffer has {len(content)}")
        self._left -= n
        if self._left < 0:
            raise self._bad(name, "shares its numbers with too many others")
        stored = np.frombuffer(content, dtype="u1" if is_packed else dtype)
        if is_packed:
            # The low half first; four bits in two's complement.
            halves = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[:n]
            stored = ((halves ^ 8).astype(np.int8) - 8).astype(np.int8)
        return stored.reshape(shape)

    def _content_of(self, table: Table, name: str) -> bytes:
        offset, size = table.whole(1, "Q"), table.whole(2, "Q")
        if offset <= 1:
            return table.bytes(0)
        # Files over 2 GB keep their buffers behind the tables.
        if offset + size > len(self._content):
            raise self._bad(name, f"lies at bytes {offset} to {offset + size}, beyond the file")
        return self._content[offset : offset + size]

    def _bad(self, name: str, what: str) -> SourceError:
        return SourceError(f"{self._where}: tensor {name[:80]!r} {what}")
