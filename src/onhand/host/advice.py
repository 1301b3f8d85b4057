"""When a limit does not hold: the nearest setting that would pass."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onhand.core.budget import AXES, Breach
from onhand.core.quantized import GroupFormat
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.pack import VariantPlan, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.plan import predict_running_memory, predict_sizes
from onhand.host.rounding import round_matrix

__all__ = ["nearest_settings"]

_SAMPLE_ROWS = 32
# From the smallest to the most exact; what a user would try next.
_LADDER = (
    (4, 128, 0),
    (4, 64, 0),
    (4, 32, 0),
    (4, 32, 8),
    (8, 128, 0),
    (8, 64, 0),
    (8, 32, 0),
)


def nearest_settings(
    model: Model,
    plan: VariantPlan,
    statistics: InputStatistics,
    breaches: Sequence[Breach],
    *,
    accuracy_level: int,
) -> list[str]:
    """Say for each breach what was found, and which setting is predicted to pass.

    Args:
        model: the source.
        plan: the variant that was judged.
        statistics: of the calibration text.
        breaches: the limits that do not hold.
        accuracy_level: as it was built.

    Returns:
        One clause for each breach.
    """
    clauses: list[str] = []
    for breach in breaches:
        clause = f"{breach.key}: {plan.name} {breach.why}"
        if _is_over(breach) and isinstance(plan.transform, Quantize):
            predicted = _predictions(model, plan.transform, statistics, breach, accuracy_level)
            clause += f"; {_nearest(breach, predicted)}"
        clauses.append(clause)
    return clauses


def _is_over(breach: Breach) -> bool:
    """Return whether the figure itself is at fault: not one that is missing or only estimated."""
    if breach.found is None:
        return False
    if AXES[breach.key].limit == "most":
        return breach.found > breach.ceiling
    return breach.found < breach.ceiling


def _nearest(breach: Breach, predicted: dict[str, float]) -> str:
    axis = AXES[breach.key]
    if axis.limit == "most":
        passing = {name: v for name, v in predicted.items() if v <= breach.ceiling}
        best = min(predicted, key=predicted.__getitem__, default="")
    else:
        passing = {name: v for name, v in predicted.items() if v >= breach.ceiling}
        best = max(predicted, key=predicted.__getitem__, default="")
    if passing:
        # The passing one that gives up least: nearest to the limit.
        near = min(passing, key=lambda name: abs(passing[name] - breach.ceiling))
        return f"nearest setting that should pass: {near} (predicted {axis.show(passing[near])})"
    if not predicted:
        return "no other setting of this version changes it"
    return f"no setting of this version should pass; best: {best} ({axis.show(predicted[best])})"


def _predictions(
    model: Model,
    used: Quantize,
    statistics: InputStatistics,
    breach: Breach,
    accuracy_level: int,
) -> dict[str, float]:
    """Return setting -> predicted figure on the breached axis, from cheap samples and shapes."""
    found: dict[str, float] = {}
    present = _cost(model, used, statistics, breach.key, accuracy_level)
    figure = breach.found or 0.0
    for bits, group, embed_bits in _LADDER:
        tried = replace(used, bits=bits, group_size=group, embed_bits=embed_bits, method="clip")
        if tried == used:
            continue
        cost = _cost(model, tried, statistics, breach.key, accuracy_level)
        name = f"--bits {bits} --group {group}" + (
            f" --embed-bits {embed_bits}" if embed_bits else ""
        )
        if breach.key == "disk":
            found[name] = cost
        elif breach.key == "ram":
            found[name] = figure + cost - present
        elif breach.key == "quality":
            # Loss grows with the squared error of the outputs (a second-order expansion).
            found[name] = figure * cost / present
        elif breach.key in {"decode", "energy"}:
            # Decoding reads every weight once a token: time and energy go with the bytes.
            ratio = cost / present
            found[name] = figure / ratio if breach.key == "decode" else figure * ratio
    return found


def _cost(
    model: Model, tried: Quantize, statistics: InputStatistics, key: str, accuracy_level: int
) -> float:
    plans = plan_variants(model.decoder, {"tried": tried})
    if key == "ram":
        return predict_running_memory(model.decoder, plans[0])
    if key == "quality":
        return _sampled_error(model, tried, statistics)
    return predict_sizes(model, plans, accuracy_level=accuracy_level)["tried"]


def _sampled_error(model: Model, tried: Quantize, statistics: InputStatistics) -> float:
    """Return the mean relative squared output error over a few rows of every matrix."""
    errors: list[float] = []
    method = "rtn" if tried.method == "rtn" else "clip"  # the others are not judged row by row
    for name, form in tried.plan(model.decoder).formats.items():
        if not isinstance(form, GroupFormat):
            continue
        n, k = model.decoder.matrices()[name]
        rows = model.weights.block(name, 0, min(_SAMPLE_ROWS, n))
        moments = statistics.moments(name, form.group_size, k)
        made = round_matrix(rows, form, method=method, moments=moments)
        errors.append(made.squared_error / max(made.squared_norm, 1e-300))
    return float(np.mean(errors))
