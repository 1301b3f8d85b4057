"""Codes of a decoder's matrices that are stored without those that stand for zero."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.quantized import QuantTensor, unpack_bits
from onhand.core.safetensors import TensorSpec
from onhand.core.sparse_form import SparseForm, SparseTensor, shrink_tensor, stream_names

__all__ = ["ShrunkCodes", "declare_streams", "shrink_codes"]

_WIDTHS = (4, 8)  # narrower codes are about as small as a mask
_PREFIX = "layers."  # tables of which rows are looked up stay whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrunkCodes:
    """One matrix's codes without their zeros, and how large both streams are."""

    form: SparseForm
    sizes: tuple[int, int]


def shrink_codes(name: str, tensor: QuantTensor) -> SparseTensor | None:
    """Store a matrix's codes without those that stand for zero, where that is smaller.

    Args:
        name: of the matrix.
        tensor: its codes. Where each group has a zero point of its own, they stay whole.

    Returns:
        The streams; their name is that of the codes.
    """
    bits = tensor.format.bits
    if not name.startswith(_PREFIX) or bits not in _WIDTHS or not tensor.format.symmetric:
        return None
    codes = unpack_bits(tensor.codes, bits)  # (N, G, g)
    found = shrink_tensor(codes.reshape(len(codes), -1), bits=bits, zero=tensor.format.middle)
    if found is None:
        return None
    return replace(found, form=replace(found.form, tensor=f"{name}.codes"))


def declare_streams(
    declared: Mapping[str, TensorSpec], shrunk: Mapping[str, ShrunkCodes]
) -> dict[str, TensorSpec]:
    """Return the tensors of a weights file with streams in the place of some codes.

    Args:
        declared: name -> dtype and shape, in order.
        shrunk: name of codes among them -> their streams.
    """
    made: dict[str, TensorSpec] = {}
    for name, spec in declared.items():
        if name not in shrunk:
            made[name] = spec
            continue
        for stream, size in zip(stream_names(name), shrunk[name].sizes, strict=True):
            made[stream] = TensorSpec(dtype="U8", shape=(size,))
    return made
