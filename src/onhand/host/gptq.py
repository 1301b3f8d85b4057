"""Codes chosen column by column, each error made good by the columns that are still to come.

Source:
    GPTQ, arXiv:2210.17323: with U the upper Cholesky factor of the inverse second moments, the
    error of column j over U_jj is taken off the later columns along row j of U. Groups keep their
    place: columns are taken group by group in falling order of their inputs' energy, and so
    inside a group ("group-aware reordering", arXiv:2505.14638), which a group format can hold.
    Scales are searched on the weights as they are when a group's turn comes, weighted by what an
    error of a column costs once all later ones have made good for it, 1 / U_jj^2. Then coordinate
    descent on all columns and least-squares scales (QuantEase, arXiv:2309.01885).
"""

from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat
from onhand.host.rounding import Rounding, made_rounding, reciprocal, searched_scales

__all__ = ["Columns", "order_columns", "round_columns"]

# Share of the mean diagonal that is added to it: inputs that the text hardly ever moves.
_DAMPING = 0.01
_SWEEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the columns of one matrix share: computed once, used for every block of rows.

    Attributes:
        moments: (K', K') float32 second moments, damped; K' is K padded to whole groups.
        factor: (K', K') float32, upper: U^T U is the inverse of the moments in `order`.
        order: (K',) the columns in the order in which they are taken.
    """

    moments: FloatArray
    factor: FloatArray
    order: np.ndarray


def order_columns(moments: FloatArray, form: GroupFormat) -> Columns:
    """Order the columns of a matrix and factorise its inputs' second moments.

    Args:
        moments: (K, K) mean second moments of the inputs.
        form: its group size.

    Returns:
        What `round_columns` needs.

    Raises:
        SourceError: if the moments are not finite, or no damping makes them definite.
    """
    n_inputs, g = len(moments), form.group_size
    width = form.n_groups(n_inputs) * g
    mean = float(np.trace(moments, dtype=np.float64)) / n_inputs
    if not np.isfinite(moments).all():
        raise SourceError("the second moments of a matrix's inputs are not finite")
    whole = np.zeros((width, width), dtype=np.float64)
    # A common factor changes nothing: a mean diagonal of 1 keeps all within float32.
    whole[:n_inputs, :n_inputs] = moments / (mean if mean > 0 else 1.0)
    places = np.arange(width)
    whole[places, places] += _DAMPING
    energy = whole[places, places].reshape(-1, g)  # (G, g)
    groups = np.argsort(-energy.max(axis=1), kind="stable")
    inside = np.argsort(-energy, axis=1, kind="stable")  # (G, g)
    order = (groups[:, None] * g + inside[groups]).reshape(-1)  # (K',)
    try:
        inverse = np.linalg.inv(whole[np.ix_(order, order)])
        factor = np.linalg.cholesky(inverse, upper=True)
    except np.linalg.LinAlgError as error:
        raise SourceError(f"the second moments of a matrix's inputs: {error}") from error
    return Columns(moments=whole.astype(np.float32), factor=factor.astype(np.float32), order=order)


def round_columns(weight: FloatArray, form: GroupFormat, columns: Columns) -> Rounding:
    """Round a matrix, or a block of its rows; rows do not depend on each other.

    Args:
        weight: (N, K) float32, finite.
        form: bits, group size, symmetric or not.
        columns: of the same matrix, from `order_columns`.

    Returns:
        The codes and the error; the error counts all correlations between inputs. A weight of
        zero is zero after it, and makes good for nothing: pruning has chosen it.

    Raises:
        SourceError: if a weight is too large for a float16 scale.
    """
    n, k = weight.shape
    width, g = len(columns.order), form.group_size
    padded = np.zeros((width, n), dtype=np.float32)  # (K', N): a column is contiguous
    padded[:k] = weight.T
    state = _Rows(
        codes=np.zeros((width, n), dtype=np.float32),
        scales=np.zeros((width // g, n), dtype=np.float32),
        zeros=np.zeros((width // g, n), dtype=np.float32),
        moves=(padded != 0).astype(np.float32),
    )
    _compensate(padded, form, columns, state)
    for _ in range(_SWEEPS):
        _sweep(padded, form, columns.moments, state)
    difference = padded - state.weight(g)
    return made_rounding(
        codes=state.codes.reshape(-1, g, n).transpose(2, 0, 1),
        scales=state.scales.T,
        zeros=state.zeros.T,
        n_inputs=k,
        form=form,
        squared_error=_energy(difference, columns.moments),
        squared_norm=_energy(padded, columns.moments),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Codes (K', N) less their zero points, scales and zero points (G, N); changed in place.

    `moves`, (K', N), is 0 where a code stays zero, else 1.
    """

    codes: FloatArray
    scales: FloatArray
    zeros: FloatArray
    moves: FloatArray

    def weight(self, group_size: int) -> FloatArray:
        """Return what the codes stand for, (K', N)."""
        return self.codes * np.repeat(self.scales, group_size, axis=0)


def _energy(difference: FloatArray, moments: FloatArray) -> float:
    """Return the sum of d H d over rows, for (K', N)."""
    return float(np.einsum("kn,kn->", difference, moments @ difference, dtype=np.float64))


def _compensate(weight: FloatArray, form: GroupFormat, columns: Columns, state: _Rows) -> None:
    """Take the columns in order; the later ones make good for each one's error."""
    g, factor = form.group_size, columns.factor
    rest = weight[columns.order]  # (K', N), in order
    for low in range(0, len(rest), g):
        high = low + g
        places = columns.order[low:high]
        group = int(places[0]) // g
        block = rest[low:high]
        diagonal = np.diagonal(factor)[low:high]
        costs = (1 / np.square(diagonal)).astype(np.float32)
        there = block * state.moves[places]
        scales, zeros = searched_scales(there.T[:, None], costs[None], form)
        scales, zeros = scales[:, 0], zeros[:, 0]
        state.scales[group], state.zeros[group] = scales, zeros
        steps = reciprocal(scales)
        errors = np.empty_like(block)
        for j in range(g):
            codes = np.clip(np.rint(block[j] * steps), -zeros, form.top - zeros)
            codes *= state.moves[places[j]]
            state.codes[places[j]] = codes
            errors[j] = (block[j] - codes * scales) / diagonal[j]
            block[j + 1 :] -= factor[low + j, low + j + 1 : high, None] * errors[j]
        rest[high:] -= factor[low:high, high:].T @ errors


def _sweep(weight: FloatArray, form: GroupFormat, moments: FloatArray, state: _Rows) -> None:
    """Give each code in turn its best value for all others as they are; then each scale."""
    g = form.group_size
    gradient = moments @ (weight - state.weight(g))  # (K', N)
    for group in range(len(state.scales)):
        inside = slice(group * g, group * g + g)
        scales, zeros, codes = state.scales[group], state.zeros[group], state.codes[inside]
        local, own = gradient[inside].copy(), moments[inside, inside]
        before = codes * scales
        steps = reciprocal(scales)
        for j in range(g):
            wanted = np.rint(codes[j] + local[j] * (steps / own[j, j]))
            np.clip(wanted, -zeros, form.top - zeros, out=wanted)
            wanted *= state.moves[group * g + j]
            local -= own[:, j, None] * ((wanted - codes[j]) * scales)
            codes[j] = wanted
        weighted = own @ codes  # (g, N)
        below = np.einsum("kn,kn->n", codes, weighted)
        above = np.einsum("kn,kn->n", codes, local)
        top = float(np.finfo(np.float16).max)
        fitted = np.clip(scales + above / np.where(below > 0, below, 1), -top, top)
        stored = np.where(below > 0, fitted, scales).astype(np.float16).astype(np.float32)
        # The error falls by (2 above - step * below) * step: kept only where float16 allows it.
        step = stored - scales
        state.scales[group] = np.where((2 * above - step * below) * step > 0, stored, scales)
        gradient -= moments[:, inside] @ (codes * state.scales[group] - before)
