"""A tensor of an ONNX file as an array, read without the onnx package.

Source:
    onnx.proto (https://github.com/onnx/onnx): TensorProto.
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.onnxfields import bytes_of, floats_of, number_in, signed, text_in, whole_numbers
from onhand.core.onnxfile import Field, walk_fields

__all__ = ["FOUR_BITS", "TENSOR_DTYPES", "parse_tensor"]

Array = NDArray[np.generic]
TENSOR_DTYPES: Final[Mapping[int, str]] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
"""Number of a type in ONNX -> numpy's name."""
FOUR_BITS: Final = {21: "uint8", 22: "int8"}
"""uint4 and int4: two in a byte, the lower one first; they are read as bytes."""
_MOST_BYTES: Final = 2**36
# Number of a tensor's field -> how its numbers are written where they are no plain bytes.
_TYPED: Final = {4: "<f4", 5: "varint", 7: "varint", 10: "<f8", 11: "varint"}


def parse_tensor(message: memoryview, files: Mapping[str, Array]) -> tuple[str, Array]:
    """Read one tensor.

    Args:
        message: ONNX's TensorProto.
        files: name of a file -> its bytes, (size,) uint8, where the tensor may lie.

    Returns:
        Its name, and a read-only array, a view where it can be; 4-bit numbers take a byte each.

    Raises:
        BundleCorrupt: if it does not match its bytes, or lies in none of the files.
        InputError: if its elements are of a type that is not read.
    """
    dims: list[int] = []
    external: dict[str, str] = {}
    typed: list[Field] = []
    raw: memoryview | None = None
    for field in walk_fields(message):
        if field.number == 1:
            dims += whole_numbers(field)
        elif field.number in _TYPED:
            typed.append(field)
        elif field.number == 9:
            raw = bytes_of(field)
        elif field.number == 13:
            entry = bytes_of(field)
            external[text_in(entry, 1)] = text_in(entry, 2)
    name, element = text_in(message, 8), number_in(message, 2)
    if element not in TENSOR_DTYPES and element not in FOUR_BITS:
        raise InputError(f"tensor {name!r} has elements of type {element}, which is not read")
    if len(dims) > 8 or any(d >= 2**48 for d in dims) or math.prod(dims) > _MOST_BYTES:
        raise BundleCorrupt(f"tensor {name!r} has the shape {dims}")
    if external:
        raw = _outside(name, external, files)
    if raw is None:
        return name, _from_typed(name, typed, dims, element)
    return name, _from_bytes(name, raw, dims, element)


def _outside(name: str, external: Mapping[str, str], files: Mapping[str, Array]) -> memoryview:
    file, offset, length = (external.get(k, "") for k in ("location", "offset", "length"))
    numbers = [text for text in (offset or "0", length) if text.isascii() and text.isdigit()]
    if file not in files or len(numbers) != 2 or max(map(len, numbers)) > 18:
        raise BundleCorrupt(f"tensor {name!r} lies in {file!r} at {offset!r}, {length!r} bytes")
    first, size = map(int, numbers)
    return np.ascontiguousarray(files[file][first : first + size]).data.cast("B")


def _from_bytes(name: str, raw: memoryview, dims: list[int], element: int) -> Array:
    count = math.prod(dims)
    if half := FOUR_BITS.get(element):
        if len(raw) != -(-count // 2):
            raise BundleCorrupt(f"tensor {name!r} has {len(raw)} bytes for {count} halves")
        pairs = np.frombuffer(raw, np.uint8)
        codes = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:count]
        if half == "int8":  # the sign is bit 3
            codes = ((codes ^ 8).astype(np.int8) - 8).astype(np.int8)
        return _frozen(codes.reshape(dims))
    dtype = np.dtype(TENSOR_DTYPES[element]).newbyteorder("<")
    if len(raw) != count * dtype.itemsize:
        raise BundleCorrupt(f"tensor {name!r} has {len(raw)} bytes, {dims} needs other")
    return _frozen(np.frombuffer(raw, dtype).reshape(dims))


def _from_typed(name: str, typed: list[Field], dims: list[int], element: int) -> Array:
    values: list[Array] = []
    for field in typed:
        how = _TYPED[field.number]
        if how == "varint":
            numbers = [signed(number) for number in whole_numbers(field)]
            values.append(np.array(numbers, dtype=np.int64))
        else:
            values.append(floats_of(field, how))
    whole = np.concatenate(values) if values else np.zeros(0, np.int64)
    if whole.size != math.prod(dims) or element in FOUR_BITS:
        raise BundleCorrupt(f"tensor {name!r} has {whole.size} numbers, {dims} needs other")
    dtype = np.dtype(TENSOR_DTYPES[element])
    if dtype == np.float16:  # written as the whole numbers of their bits
        return _frozen(whole.astype(np.uint16).view(np.float16).reshape(dims))
    return _frozen(whole.astype(dtype).reshape(dims))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
