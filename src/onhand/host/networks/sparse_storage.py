"""Constants of a network that are stored without their zeros: which, and what that saves."""

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.sparse import CodeArray
from onhand.core.sparse_form import LEAST_BYTES, LEAST_GAIN, SparseTensor, shrink_tensor
from onhand.core.units import format_bytes
from onhand.host.networks.graph import Array, Graph

__all__ = ["shrink_constant", "stored_without_zeros"]

_MIDDLES = {4: 8, 8: 128}  # codes of zero where there is no sign
_NAMED = 3


def shrink_constant(array: Array) -> SparseTensor | None:
    """Store a constant without its zeros, or return None where that saves too little.

    Patterns are looked for along rows and along columns, as matrices stand either way; bytes that
    hold two codes are looked at as such, too.

    Args:
        array: of any shape and dtype.

    Returns:
        The smallest form, without a name.
    """
    best: SparseTensor | None = None
    for codes, bits, zero in _views(array):
        for turned in (False, True) if array.ndim == 2 and codes.size == array.size else (False,):
            given = np.ascontiguousarray(codes.T) if turned else codes
            found = shrink_tensor(given, bits=bits, zero=zero, turned=turned)
            if found and (best is None or found.codes.size_bytes < best.codes.size_bytes):
                best = found
    return best


def stored_without_zeros(graph: Graph, bundle: Bundle, variant: str) -> str:
    """Say in a sentence what a variant stores without its zeros, and what it does not.

    Args:
        graph: the variant's.
        bundle: which it was packed into.
        variant: its name.

    Returns:
        The sentence; "" where nothing has zeros that are worth a word.
    """
    chosen = bundle.manifest.variants[variant]
    whole = [
        name
        for name, array in graph.constants.items()
        if name not in chosen.sparse and any(_has_zeros(*view) for view in _views(array))
    ]
    parts: list[str] = []
    if chosen.sparse:
        stored, dense = chosen.sparse_bytes()
        parts.append(
            f"{len(chosen.sparse)} tensors are stored without their zeros, in "
            f"{format_bytes(stored)} instead of {format_bytes(dense)}"
        )
    if whole:
        more = ", ..." if len(whole) > _NAMED else ""
        parts.append(
            f"{len(whole)} with zeros stay whole, as they would not be a tenth smaller: "
            f"{', '.join(whole[:_NAMED])}{more}"
        )
    return "; ".join(parts)


def _has_zeros(codes: CodeArray, bits: int, zero: int) -> bool:
    return codes.size * bits >= 8 * LEAST_BYTES and bool((codes == zero).mean() >= LEAST_GAIN)


def _views(array: Array) -> list[tuple[CodeArray, int, int]]:
    """Return an array as codes, their width, and the code of zero; in each way that fits."""
    if array.ndim < 2 or array.size == 0:
        return []  # biases and scales are small
    # Rows of a convolution's weight, as of a matrix's, are all inputs of one output.
    rows = np.ascontiguousarray(array.reshape(len(array), -1))
    kind = array.dtype.name
    if kind == "int4":
        return [(rows.astype(np.int8).view(np.uint8) & 15, 4, 0)]
    if kind == "int8":
        return [(rows.view(np.uint8), 8, 0)]
    if kind == "uint8":
        halves = np.stack([rows & 15, rows >> 4], axis=-1).reshape(len(rows), -1)
        return [(rows, 8, _MIDDLES[8]), (halves, 4, _MIDDLES[4])]
    if kind in {"float16", "float32"}:
        # -0.0, as folding leaves it, becomes 0.0: no product or sum tells them apart.
        return [((rows + rows.dtype.type(0)).view(f"u{rows.itemsize}"), 8 * rows.itemsize, 0)]
    return []
