"""Scales in 8 bits: those of a matrix take at most 256 values, which a table holds.

The codes stay: what the scales move adds about a two-hundredth to the squared error of rounding to
4 bits, and less to that of fewer bits.

Source:
    Quantised quantisation constants: QLoRA's double quantisation, arXiv:2305.14314, here with the
    values of least squared error (Lloyd's iteration) in place of a fixed float8 grid.
"""

import math
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.sparse_form import LEAST_BYTES, LEAST_GAIN
from onhand.core.table_form import MOST_VALUES, TableForm
from onhand.host.sparse_storage import ENTRY_BYTES

__all__ = [
    "SCALE_BITS",
    "coded_bytes",
    "expected_table",
    "few_scales",
    "has_few_scales",
    "table_values",
]

SCALE_BITS: Final = (8, 16)
_MOST_BITS = 4  # codes of 8 bits have so small an error that the scales' own would be seen
_SWEEPS = 32
_WORTH = 15
_Doubles = NDArray[np.float64]


def few_scales(tensor: QuantTensor) -> QuantTensor:
    """Move the scales of a matrix of at most 4 bits to the nearest of `table_values`.

    Args:
        tensor: the matrix.

    Returns:
        The same codes with such scales; the same tensor where there are no more values, or codes
        are wider.
    """
    if has_few_scales(tensor) or tensor.format.bits > _MOST_BITS:
        return tensor
    bits = tensor.scales.view(np.uint16)
    counts = _counts(tensor)
    there = np.flatnonzero(counts).astype(np.uint16)
    values = there.view(np.float16).astype(np.float64)
    order = np.argsort(values, kind="stable")
    there, values = there[order], values[order]
    centres = _centres(values, counts[there].astype(np.float64), table_values(tensor.shape))
    moved = np.zeros(len(counts), dtype=np.float16)
    moved[there] = centres[_nearest(values, centres)]
    return replace(tensor, scales=moved[bits])


def has_few_scales(tensor: QuantTensor) -> bool:
    """Say whether a matrix has no more scales than `table_values`."""
    return int(np.count_nonzero(_counts(tensor))) <= table_values(tensor.shape)


def table_values(shape: tuple[int, int]) -> int:
    """Return how many values the scales of a matrix take: 256, fewer where it is small.

    The error that they add falls with the square of their number, from about a quarter of a percent
    of the squared error of 4 bits at 256. A weight needs log2(1 + error) / 2 bits more to make good
    for it, a value takes two bytes: for w weights the sum is least at the cube root of 15 w.

    Args:
        shape: (N, K).
    """
    return min(round(math.cbrt(_WORTH * shape[0] * shape[1])), MOST_VALUES)


def expected_table(name: str, shape: tuple[int, int], form: GroupFormat) -> TableForm | None:
    """Return how the scales of a matrix will be stored if they take few values; None for whole.

    Args:
        name: of the matrix.
        shape: (N, K).
        form: of its codes.
    """
    groups = shape[0], form.n_groups(shape[1])
    n_scales = groups[0] * groups[1]
    if form.bits > _MOST_BITS or 2 * n_scales < LEAST_BYTES:
        return None
    made = TableForm(
        tensor=f"{name}.scales", shape=groups, n_values=min(n_scales, table_values(shape))
    )
    return made if made.stored_bytes <= (1 - LEAST_GAIN) * made.size_bytes else None


def coded_bytes(shape: tuple[int, int], form: GroupFormat, *, scale_bits: int) -> int:
    """Return the bytes that a matrix will take in a bundle.

    Args:
        shape: (N, K).
        form: of its codes.
        scale_bits: 16, or 8 for scales that take few values.
    """
    whole = form.size_bytes(shape)
    table = expected_table("", shape, form) if scale_bits == min(SCALE_BITS) else None
    return whole if table is None else whole - table.size_bytes + table.stored_bytes + ENTRY_BYTES


def _counts(tensor: QuantTensor) -> np.ndarray:
    """Return how often each float16 is a scale, by its bits: (65536,)."""
    return np.bincount(tensor.scales.reshape(-1).view(np.uint16), minlength=2**16)


def _centres(values: _Doubles, counts: _Doubles, n_centres: int) -> _Doubles:
    """Return values of least squared error, by Lloyd's iteration.

    Args:
        values: (V,) rising.
        counts: (V,) how often each is there.
        n_centres: how many to find.
    """
    # So dense as the cube root of what is there: the best for many centres (Panter and Dite).
    steps = np.gradient(values)
    share = np.cumsum(np.cbrt(counts * steps**2))
    wanted = (np.arange(n_centres) + 0.5) / n_centres * share[-1]
    centres: _Doubles = np.interp(wanted, share, values)
    for _ in range(_SWEEPS):
        own = _nearest(values, centres)
        weight = np.bincount(own, counts, n_centres)
        total = np.bincount(own, counts * values, n_centres)
        centres = np.where(weight > 0, total / np.maximum(weight, 1), centres)
    return centres


def _nearest(values: _Doubles, centres: _Doubles) -> np.ndarray:
    """Return for each value which of the rising centres is nearest: (V,)."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
