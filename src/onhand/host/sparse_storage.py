"""What of a decoder's matrices is stored smaller: codes without zeros, scales as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.quantized import QuantTensor, unpack_bits
from onhand.core.safetensors import TensorSpec
from onhand.core.sparse_form import SparseTensor, shrink_tensor
from onhand.core.stored_forms import StoredForm
from onhand.core.table_form import TableTensor, tabulate_tensor

__all__ = [
    "ENTRY_BYTES",
    "Shrunk",
    "declare_streams",
    "saved_bytes",
    "shrink_codes",
    "tabulate_scales",
]

ENTRY_BYTES = 76
"""Of a tensor in the header of its file, about."""
_WIDTHS = (4, 8)  # narrower codes are about as small as a mask
_PREFIX = "layers."  # tables of which rows are looked up stay whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """A tensor that is stored as two streams, and how large these are."""

    form: StoredForm
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


def tabulate_scales(name: str, tensor: QuantTensor) -> TableTensor | None:
    """Store a matrix's scales as a table, where they have few values and that is smaller.

    Args:
        name: of the matrix.
        tensor: its scales.
    """
    return tabulate_tensor(f"{name}.scales", tensor.scales)


def saved_bytes(name: str, tensor: QuantTensor) -> int:
    """Return how many bytes fewer a matrix takes in a bundle than its codes and scales have.

    A tensor that is stored as two has one more entry in its file's header.

    Args:
        name: of the matrix.
        tensor: what it is.
    """
    codes, scales = shrink_codes(name, tensor), tabulate_scales(name, tensor)
    saved = 0
    if codes is not None:
        saved += tensor.codes.nbytes - codes.codes.size_bytes - ENTRY_BYTES
    if scales is not None:
        saved += tensor.scales.nbytes - scales.form.stored_bytes - ENTRY_BYTES
    return saved


def declare_streams(
    declared: Mapping[str, TensorSpec], shrunk: Mapping[str, Shrunk]
) -> dict[str, TensorSpec]:
    """Return the tensors of a weights file with streams in the place of some.

    Args:
        declared: name -> dtype and shape, in order.
        shrunk: name among them -> its streams.
    """
    made: dict[str, TensorSpec] = {}
    for name, spec in declared.items():
        if name not in shrunk:
            made[name] = spec
            continue
        for stream, size in zip(shrunk[name].form.streams, shrunk[name].sizes, strict=True):
            made[stream] = TensorSpec(dtype="U8", shape=(size,))
    return made
