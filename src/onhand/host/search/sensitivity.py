"""What each matrix loses in each format, in nats of KL divergence at the model's end.

The squared error of a matrix's outputs, tr(dW H dW^T), follows from the stored second moments and
really rounded codes. What such an error does to the answers is measured: single matrices are
rounded, one at a time, and the model runs. Formats that were not run themselves lie on the curve
through those of the same matrix that were.

Source:
    Per-layer errors weighted by their effect on the loss: HAWQ-V2, arXiv:1911.03852; measured
    divergence of single layers: arXiv:2406.11235 and llama.cpp's `--tensor-type` tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.core.quantized import GroupFormat
from onhand.host.gptq import order_columns, round_columns
from onhand.host.hqq import round_half_quadratic
from onhand.host.model import Model
from onhand.host.rounding import Rounding, round_matrix
from onhand.host.search.choices import Form, form_name
from onhand.host.search.ground import Ground, StoredMatrix, round_into_store, stored_bytes
from onhand.host.search.perturb import Trial, run_trials

__all__ = [
    "FormLoss",
    "first_tokens",
    "losses_from_json",
    "measure_sensitivity",
    "on_curve",
    "rounded_rows",
    "sampled_rows",
    "trial_operations",
]

_SAMPLE_BLOCKS, _SAMPLE_ROWS = 4, 32
_LEAST_TOKENS, _MOST_TOKENS = 512, 4096
# Which formats are run where not all can be; from the middle outwards.
_ANCHORS = ("int4 g32", "int2 g32", "int3 g32", "int8 g32", "int4 g128", "int2 g128", "int3 g128")
_LEAST = 1e-12
# Damage grows with the error's first power where it is small; above, at most with its third.
_STEEPEST = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLoss:
    """What one matrix loses in one format.

    Attributes:
        matrix: its name.
        form: the format, as `form_name` says it, and what else is done; see `treatment_name`.
        damage: KL divergence of the whole model with only this matrix rounded, in nats.
        error: squared relative error of the matrix's outputs.
        size_bytes: bytes stored.
        is_measured: whether the model was run so; else the damage is read off a curve.
    """

    matrix: str
    form: str
    damage: float
    error: float
    size_bytes: int
    is_measured: bool

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self)


def measure_sensitivity(
    ground: Ground,
    able: Mapping[str, Sequence[Form]],
    *,
    operations: float,
    progress: Progress,
) -> list[FormLoss]:
    """Return what every matrix loses in every format that it may have.

    Args:
        ground: model, statistics, text and store.
        able: matrix -> formats.
        operations: multiplications and additions that running the trials may take: decides how
            many formats are run, and on how many tokens. No clock does, so results repeat.
        progress: told how far it is.

    Returns:
        One row for each matrix and format, in the model's order.
    """
    errors = dict(_errors(ground, able, progress))
    anchors, tokens = _chosen_anchors(ground, able, operations)
    measured = _run_anchors(ground, anchors, tokens, progress)
    shapes = ground.model.decoder.matrices()
    rows: list[FormLoss] = []
    for name, forms in able.items():
        points = [
            (_anchor_error(ground, name, form, errors), measured[name, form_name(form)])
            for form in anchors[name]
        ]
        for form in forms:
            n, k = shapes[name]
            text = form_name(form)
            error = errors[name, text]
            found = measured.get((name, text)) if ground.is_small else None
            damage = 0.0 if form is None else on_curve(error, points) if found is None else found
            rows.append(
                FormLoss(
                    matrix=name,
                    form=text,
                    damage=damage,
                    error=error,
                    size_bytes=4 * n * k if form is None else stored_bytes(ground, name, text),
                    is_measured=found is not None,
                )
            )
    return rows


def losses_from_json(table: Mapping[str, object]) -> list[FormLoss] | None:
    """Read the rows of a kept table; None if it is not one.

    Args:
        table: a JSON object with "rows".
    """
    rows = table.get("rows")
    try:
        return [FormLoss(**row) for row in rows] if isinstance(rows, list) else None
    except TypeError:
        return None


def trial_operations(ground: Ground) -> float:
    """Return the multiplications and additions that one trial takes for a token.

    Args:
        ground: the model.
    """
    decoder = ground.model.decoder
    # A trial runs half of the layers on average, and compares with the original at the head.
    ends = decoder.vocab_size * decoder.width
    return 2.0 * (max(decoder.n_parameters - ends, 0) / 2 + 2 * ends)


@dataclass(frozen=True, slots=True)
class _Nearest:
    """Rounds a matrix to the nearest codes: quick, and any error serves to measure its effect."""

    model: Model
    name: str
    form: GroupFormat

    def __call__(self) -> FloatArray:
        weight = self.model.weights.matrix(self.name)
        return round_matrix(weight, self.form, method="rtn").tensor.dequantize()


def _errors(
    ground: Ground, able: Mapping[str, Sequence[Form]], progress: Progress
) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield (matrix, format) and the squared relative error of the outputs."""
    forms = list(dict.fromkeys(form for own in able.values() for form in own))
    progress.start("rounding in every format", max(len(forms), 1))
    for form in forms:
        names = [name for name, own in able.items() if form in own]
        if form is not None and ground.is_small:
            round_into_store(ground, names, form_name(form))
        for name in names:
            if form is None:
                yield (name, form_name(form)), 0.0
            elif ground.is_small:
                loss = ground.store.matrices(form_name(form)).find(name).loss
                yield (name, form_name(form)), loss.output_error**2
            else:
                yield (name, form_name(form)), _sampled_error(ground, name, form, ground.method)
        progress.advance(1)


def _sampled_error(ground: Ground, name: str, form: GroupFormat, method: str) -> float:
    """Return the squared relative error over some rows."""
    made = rounded_rows(ground, name, sampled_rows(ground, name), form, method)
    return made.squared_error / max(made.squared_norm, 1e-300)


def sampled_rows(ground: Ground, name: str) -> FloatArray:
    """Return some rows of a matrix, from all parts of a fused one: (n, K).

    Args:
        ground: the model.
        name: of the matrix.
    """
    n, _ = ground.model.decoder.matrices()[name]
    starts = np.linspace(0, max(n - _SAMPLE_ROWS, 0), _SAMPLE_BLOCKS).astype(int)
    blocks = [
        ground.model.weights.block(name, int(low), min(int(low) + _SAMPLE_ROWS, n))
        for low in dict.fromkeys(starts.tolist())
    ]
    rows: FloatArray = np.concatenate(blocks)
    return rows


def rounded_rows(
    ground: Ground, name: str, weight: FloatArray, form: GroupFormat, method: str
) -> Rounding:
    """Round some rows of a matrix.

    Args:
        ground: what is known of its inputs.
        name: of the matrix.
        weight: (n, K) the rows.
        form: of the codes.
        method: see `Quantize`.
    """
    statistics = ground.statistics
    if method == "hqq":
        return round_half_quadratic(weight, form)
    whole = statistics.second_moments(name) if method == "gptq" else None
    if whole is not None:
        return round_columns(weight, form, order_columns(whole, form))
    moments = statistics.moments(name, form.group_size, weight.shape[1])
    return round_matrix(weight, form, method="rtn" if method == "rtn" else "clip", moments=moments)


def _chosen_anchors(
    ground: Ground, able: Mapping[str, Sequence[Form]], operations: float
) -> tuple[dict[str, list[GroupFormat]], int]:
    """Return the formats of each matrix that the model is run with, and on how many tokens."""
    coded = {name: [form for form in own if form is not None] for name, own in able.items()}
    each = trial_operations(ground)
    n_all = sum(map(len, coded.values()))
    most = min(sum(tokens.size for tokens in ground.sequences), _MOST_TOKENS)
    least = min(_LEAST_TOKENS, most)
    if ground.is_small and n_all * each * least <= operations:
        return coded, int(np.clip(operations / (n_all * each), least, most))
    n_each = max(int(operations / (each * least * max(len(coded), 1))), 1)
    chosen: dict[str, list[GroupFormat]] = {}
    for name, forms in coded.items():
        known = {form_name(form): form for form in forms}
        order = [known[text] for text in _ANCHORS if text in known] or forms
        chosen[name] = order[:n_each]
    n_chosen = sum(map(len, chosen.values()))
    return chosen, int(np.clip(operations / max(n_chosen * each, 1), least // 2, most))


def _run_anchors(
    ground: Ground,
    anchors: Mapping[str, Sequence[GroupFormat]],
    n_tokens: int,
    progress: Progress,
) -> dict[tuple[str, str], float]:
    """Run the model with single matrices rounded; return the divergence of each."""
    pairs = [(name, form) for name, forms in anchors.items() for form in forms]
    read = StoredMatrix if ground.is_small else _Nearest
    trials = [
        Trial({
            name: StoredMatrix(ground.store, name, form_name(form))
            if read is StoredMatrix
            else _Nearest(ground.model, name, form)
        })
        for name, form in pairs
    ]
    losses = run_trials(
        ground.model,
        trials,
        first_tokens(ground.sequences, n_tokens),
        threads=ground.threads,
        progress=progress,
    )
    return {
        (name, form_name(form)): loss.divergence
        for (name, form), loss in zip(pairs, losses, strict=True)
    }


def first_tokens(sequences: Sequence[TokenArray], n_tokens: int) -> list[TokenArray]:
    """Return the beginning of a text.

    Args:
        sequences: (T,) int64 each.
        n_tokens: most tokens; one sequence at least is taken, cut if need be.

    Raises:
        InputError: if there is no text.
    """
    if not sequences:
        raise InputError("a search needs a calibration text, and there is none")
    taken: list[TokenArray] = []
    for tokens in sequences:
        left = n_tokens - sum(one.size for one in taken)
        if left < 2:
            break
        taken.append(tokens[:left])
    return taken or [sequences[0][: max(n_tokens, 2)]]


def _anchor_error(
    ground: Ground, name: str, form: GroupFormat, errors: Mapping[tuple[str, str], float]
) -> float:
    """Return the error of what was run: of a large model, of rounding to nearest."""
    if ground.is_small:
        return errors[name, form_name(form)]
    return _sampled_error(ground, name, form, "rtn")


def on_curve(error: float, points: Sequence[tuple[float, float]]) -> float:
    """Read a damage off the curve through measured ones, straight in logarithms.

    Args:
        error: squared relative error of a matrix's outputs.
        points: (error, damage) that were measured.
    """
    ordered = sorted((max(e, _LEAST), max(d, _LEAST)) for e, d in points)
    x = float(np.log(max(error, _LEAST)))
    at = np.log([e for e, _ in ordered])
    value = np.maximum.accumulate(np.log([d for _, d in ordered]))
    if x <= at[0]:
        return float(np.exp(value[0] + x - at[0]))
    if x < at[-1]:
        return float(np.exp(np.interp(x, at, value)))
    slope = 1.0
    if len(at) > 1 and at[-1] > at[-2]:
        slope = float(np.clip((value[-1] - value[-2]) / (at[-1] - at[-2]), 1.0, _STEEPEST))
    return float(np.exp(value[-1] + slope * (x - at[-1])))
