"""More than formats: zeros, lower ranks and other methods, matrix by matrix, where they pay.

What each would lose is estimated from the stored second moments first: zeros and methods from some
rows that are really treated, ranks from the singular values. Only what then lies near or below the
matrix's own curve of damage and bytes is run; of a model too large for that the estimate counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.progress import Progress
from onhand.core.quantized import GroupFormat
from onhand.core.sparse import sparse_bytes
from onhand.core.sparse_form import LEAST_BYTES, LEAST_GAIN
from onhand.host.calibrate import InputStatistics
from onhand.host.factors import spectrum_of
from onhand.host.scale_tables import coded_bytes
from onhand.host.search.choices import Form, SearchSpace
from onhand.host.search.ground import Ground, stored_bytes, stored_trial
from onhand.host.search.perturb import run_trials
from onhand.host.search.sensitivity import (
    FormLoss,
    first_tokens,
    on_curve,
    rounded_rows,
    sampled_rows,
    trial_operations,
)
from onhand.host.search.treatments import (
    Treatment,
    named_treatment,
    treatment_name,
)
from onhand.host.sparse_storage import ENTRY_BYTES
from onhand.host.sparsify import Repair, Share, prune_rows

__all__ = ["hull_damage", "least_rows", "widen"]

# How far above its matrix's curve an estimate may lie, and still be run.
_SLACK = 2.0
# A treatment must be better by so much: less may be the text's whim.
_WORTH = 0.97
_RANK_MULTIPLE = 32
_LEAST_SAVED = 0.1
_TOKENS = 2048
_DECOMPOSITION = 30
_SHRINKABLE = (4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One more way to store a matrix, and what it should lose."""

    matrix: str
    text: str
    error: float
    damage: float
    size_bytes: int
    gain: float


def widen(
    ground: Ground,
    rows: Sequence[FormLoss],
    space: SearchSpace,
    *,
    operations: float,
    progress: Progress,
) -> list[FormLoss]:
    """Return rows of further ways to store matrices, each better than formats alone.

    Args:
        ground: model, statistics, text and store.
        rows: what matrices lose in plain formats.
        space: which zeros, ranks and methods are tried.
        operations: multiplications and additions that this may take.
        progress: told how far it is.

    Returns:
        Further rows, in the order of matrices; none where nothing pays.
    """
    found = sorted(
        _candidates(ground, rows, space, operations), key=lambda one: (-one.gain, one.text)
    )
    if not found:
        return []
    tokens = first_tokens(ground.sequences, _TOKENS)
    n_tokens = sum(one.size for one in tokens)
    made: list[FormLoss] = []
    if ground.is_small:
        most = int(operations / (trial_operations(ground) * max(n_tokens, 1)))
        chosen = found[: max(most, 1)]
        trials = [stored_trial(ground, {one.matrix: one.text}) for one in chosen]
        losses = run_trials(
            ground.model,
            trials,
            tokens,
            threads=ground.threads,
            progress=progress,
            what="trying zeros, ranks and methods",
        )
        made = [
            _row(one, loss.divergence, stored_bytes(ground, one.matrix, one.text), True)
            for one, loss in zip(chosen, losses, strict=True)
        ]
    else:
        made = [_row(one, one.damage, one.size_bytes, False) for one in found]
    return _paying(rows, made)


def least_rows(
    decoder: Decoder, able: Mapping[str, Sequence[Form]], space: SearchSpace
) -> list[FormLoss]:
    """Return plain formats, and the least that zeros and ranks could make of them, by shapes alone.

    Args:
        decoder: the model.
        able: matrix -> plain formats.
        space: which zeros and ranks are tried.

    Returns:
        Rows whose damage and error are 0, in the order of matrices; a rank is the lowest tried.
    """
    shapes = decoder.matrices()
    zeros = max(space.zeros, default=0.0)
    found: list[FormLoss] = []
    for name, forms in able.items():
        shape = shapes[name]
        has_ranks = bool(space.ranks) and name not in decoder.ranks and _highest_rank(shape) > 0
        for form in forms:
            full = 4 * shape[0] * shape[1]
            if form is not None:
                full = coded_bytes(shape, form, scale_bits=space.scale_bits)
            found.append(_least_row(name, Treatment(form=form), full))
            if form is None or not name.startswith("layers."):
                continue
            if zeros and (size := _bytes_without(zeros, form, shape, space.scale_bits)) is not None:
                found.append(_least_row(name, Treatment(form=form, zeros=zeros), size))
            if has_ranks:
                size = _product_bytes(form, shape, _RANK_MULTIPLE, space.scale_bits)
                found.append(_least_row(name, Treatment(form=form, rank=_RANK_MULTIPLE), size))
    return found


def _least_row(name: str, treatment: Treatment, size: int) -> FormLoss:
    return FormLoss(
        matrix=name,
        form=treatment_name(treatment),
        damage=0.0,
        error=0.0,
        size_bytes=size,
        is_measured=False,
    )


def hull_damage(points: Sequence[tuple[float, float]], size: float) -> float:
    """Return the damage at a size on the lower hull of points, between which one may mix.

    Args:
        points: (bytes, damage).
        size: in bytes.

    Returns:
        Nats; infinite where nothing is as small.
    """
    hull: list[tuple[float, float]] = []
    for point in sorted(points):
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    if not hull or size < hull[0][0]:
        return float("inf")
    return float(np.interp(size, [x for x, _ in hull], [y for _, y in hull]))


def _slope(before: tuple[float, float], after: tuple[float, float]) -> float:
    step = after[0] - before[0]
    return (after[1] - before[1]) / step if step > 0 else float("-inf")


def _row(one: _Candidate, damage: float, size: int, is_measured: bool) -> FormLoss:
    return FormLoss(
        matrix=one.matrix,
        form=one.text,
        damage=damage,
        error=one.error,
        size_bytes=size,
        is_measured=is_measured,
    )


def _paying(rows: Sequence[FormLoss], made: Sequence[FormLoss]) -> list[FormLoss]:
    """Keep what lies below its matrix's own curve, in the order of matrices."""
    order = list(dict.fromkeys(row.matrix for row in rows))
    curves = {
        name: [(float(row.size_bytes), row.damage) for row in rows if row.matrix == name]
        for name in order
    }
    kept = [
        row
        for row in made
        if row.damage < _WORTH * hull_damage(curves[row.matrix], float(row.size_bytes))
    ]
    return sorted(kept, key=lambda row: (order.index(row.matrix), row.form))


def _candidates(
    ground: Ground, rows: Sequence[FormLoss], space: SearchSpace, operations: float
) -> Iterator[_Candidate]:
    """Yield what may pay by its estimate."""
    names = list(dict.fromkeys(row.matrix for row in rows))
    whole = any(ground.statistics.second_moments(name) is not None for name in names[1:2])
    left = operations
    for name in names:
        own = [row for row in rows if row.matrix == name and row.form != "float32"]
        known = {row.form: row for row in own}
        curve = [(row.error, row.damage) for row in own]
        points = [(float(row.size_bytes), row.damage) for row in own]
        asked: list[tuple[str, float, int]] = []
        if name.startswith("layers."):
            asked += _with_zeros(ground, name, known, space)
            n, k = ground.model.decoder.matrices()[name]
            left -= _DECOMPOSITION * float(max(n, k)) * min(n, k) ** 2
            if left > 0 and name not in ground.model.decoder.ranks:
                asked += _with_ranks(ground, name, known, space)
        if whole:
            asked += _by_methods(ground, name, known, space)
        for text, error, size in asked:
            damage = on_curve(error, curve)
            usual = hull_damage(points, float(size))
            if damage < _SLACK * usual:
                gain = np.log(usual / damage) if damage > 0 and np.isfinite(usual) else 1.0
                yield _Candidate(
                    matrix=name,
                    text=text,
                    error=error,
                    damage=damage,
                    size_bytes=size,
                    gain=float(gain),
                )


def _with_zeros(
    ground: Ground, name: str, known: Mapping[str, FormLoss], space: SearchSpace
) -> Iterator[tuple[str, float, int]]:
    """Yield treatment, squared relative error and bytes of codes without their zeros."""
    if not space.zeros:
        return
    n, k = ground.model.decoder.matrices()[name]
    weight = sampled_rows(ground, name)
    moments = ground.statistics.second_moments(name)
    repair = None if moments is None else Repair.of(moments)
    for zeros in space.zeros:
        method = "magnitude" if moments is None else "sparsegpt"
        pruned = prune_rows(weight, Share(zeros), method=method, moments=moments, repair=repair)
        for text, row in known.items():
            form = named_treatment(text).form
            size = None if form is None else _bytes_without(zeros, form, (n, k), space.scale_bits)
            if size is None:
                continue
            # What rounding adds to what the zeros lose; both are small, and hardly know each other.
            lost = _energy(weight - pruned, moments) / max(_energy(weight, moments), 1e-300)
            name_of = treatment_name(Treatment(form=form, zeros=zeros))
            yield name_of, lost + row.error, size


def _with_ranks(
    ground: Ground, name: str, known: Mapping[str, FormLoss], space: SearchSpace
) -> Iterator[tuple[str, float, int]]:
    """Yield treatment, squared relative error and bytes of products of two thinner matrices."""
    n, k = ground.model.decoder.matrices()[name]
    highest = _highest_rank((n, k))
    if not space.ranks or highest == 0:
        return
    lost = spectrum_of(ground.model, name, _whole_or_none(ground)).lost()
    able = range(_RANK_MULTIPLE, highest + 1, _RANK_MULTIPLE)
    ranks = {next((rank for rank in able if lost[rank] <= most), 0): None for most in space.ranks}
    for rank in ranks:
        for text, row in known.items():
            form = named_treatment(text).form
            if rank == 0 or form is None:
                continue
            size = _product_bytes(form, (n, k), rank, space.scale_bits)
            # Each of the two thinner matrices is rounded.
            yield (
                treatment_name(Treatment(form=form, rank=rank)),
                float(lost[rank]) + 2 * row.error,
                size,
            )


def _bytes_without(
    zeros: float, form: GroupFormat, shape: tuple[int, int], scale_bits: int
) -> int | None:
    """Return bytes of codes without a share of them; None where they are not stored so."""
    weights = shape[0] * shape[1]
    codes_bytes = weights * form.bits // 8
    kept = sparse_bytes(weights, round(weights * (1 - zeros)), form.bits)
    is_able = form.bits in _SHRINKABLE and form.symmetric and codes_bytes >= LEAST_BYTES
    if not is_able or kept > (1 - LEAST_GAIN) * codes_bytes:
        return None
    return coded_bytes(shape, form, scale_bits=scale_bits) - codes_bytes + kept + ENTRY_BYTES


def _highest_rank(shape: tuple[int, int]) -> int:
    """Return the highest rank whose product is smaller than the matrix; 0 if there is none."""
    n, k = shape
    return int((1 - _LEAST_SAVED) * n * k) // (n + k) // _RANK_MULTIPLE * _RANK_MULTIPLE


def _product_bytes(form: GroupFormat, shape: tuple[int, int], rank: int, scale_bits: int) -> int:
    parts = (shape[0], rank), (rank, shape[1])
    return sum(coded_bytes(part, form, scale_bits=scale_bits) for part in parts)


def _whole_or_none(ground: Ground) -> InputStatistics | None:
    return ground.statistics if ground.statistics.whole else None


def _by_methods(
    ground: Ground, name: str, known: Mapping[str, FormLoss], space: SearchSpace
) -> Iterator[tuple[str, float, int]]:
    """Yield treatment, squared relative error and bytes of other ways to round."""
    others = [method for method in space.methods if method != ground.method]
    if not others:
        return
    moments = ground.statistics.second_moments(name)
    weight = sampled_rows(ground, name)
    points = [(float(row.size_bytes), row.damage) for row in known.values()]
    for text, row in known.items():
        form = named_treatment(text).form
        # Only formats that a front would take: others are as much dearer with another method.
        usual = hull_damage(points, float(row.size_bytes))
        if form is None or row.damage > _SLACK * usual:
            continue
        base = _error_of(ground, name, weight, text, ground.method, moments)
        for method in others:
            error = _error_of(ground, name, weight, text, method, moments)
            name_of = treatment_name(replace(named_treatment(text), method=method))
            yield name_of, row.error * error / max(base, 1e-300), row.size_bytes


def _error_of(
    ground: Ground,
    name: str,
    weight: FloatArray,
    text: str,
    method: str,
    moments: FloatArray | None,
) -> float:
    """Return the squared error of the outputs of some rows, by one yardstick for all methods."""
    form = named_treatment(text).form
    if form is None:
        return 0.0
    rounded = rounded_rows(ground, name, weight, form, method).tensor.dequantize()
    return _energy(weight - rounded, moments)


def _energy(rows: FloatArray, moments: FloatArray | None) -> float:
    """Return the sum of x H x over rows; H is 1 for None."""
    turned = rows if moments is None else rows @ moments
    return max(float(np.einsum("nk,nk->", turned, rows, dtype=np.float64)), 0.0)
