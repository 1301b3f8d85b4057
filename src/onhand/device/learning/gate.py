"""The gate before a learned version: it goes live only if nothing that was good became worse.

A pure decision over what the model did before and after, on the same held-out examples. Whoever
asks runs the model; nothing here does.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Values
from onhand.device.learning.verdict import Verdict

__all__ = [
    "Bounds",
    "Marks",
    "Sight",
    "calibration_error",
    "gate",
    "is_degenerate",
    "size_of_change",
]

_BINS: Final = 10
_LEAST_UNITS, _LEAST_REPEATS, _LONGEST_PERIOD = 12, 4, 16
_REPEATED_SHARE: Final = 0.9
_LEAST_CLASSES: Final = 8  # examples of fewer may well be of one class


def _no_floats() -> FloatArray:
    return np.zeros(0, dtype=np.float32)


def _no_flags() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How a model did on held-out examples, one entry for each, in their order.

    Attributes:
        losses: (E,) nats.
        is_right: (E,) whether it gave the right answer.
        confidences: (E,) the probability of what it answered, 0 to 1.
        answers: (E,) what it answered: numbers of classes; empty where answers are texts.
    """

    losses: FloatArray = field(default_factory=_no_floats)
    is_right: NDArray[np.bool_] = field(default_factory=_no_flags)
    confidences: FloatArray = field(default_factory=_no_floats)
    answers: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """How many examples."""
        return int(self.losses.size)

    @property
    def loss(self) -> float:
        """Mean over the examples; 0 without any."""
        return float(self.losses.mean(dtype=np.float64)) if self.n else 0.0

    @property
    def accuracy(self) -> float:
        """Fraction of right answers; 0 without any."""
        return float(self.is_right.mean()) if self.n else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """All that a gate sees of a model.

    Attributes:
        old: on held-out examples of what it could do before: replay, or the bundle's own.
        new: on held-out examples of what it is taught.
        texts: its answers to a fixed list of prompts; empty for a classifier.
    """

    old: Marks = field(default_factory=Marks)
    new: Marks = field(default_factory=Marks)
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much worse a version may be, and how much better it must be.

    Attributes:
        most_lost_points: accuracy on old examples that may be lost, in hundredths (points).
        most_lost_loss: mean loss on old examples that may be added, nats; 0 for no such bound.
        least_gain: mean loss on new examples that must be won, nats.
        least_new: new held-out examples that must be there.
        least_old: old ones that must be there; 0 accepts that none are known yet.
        most_miscalibration: expected calibration error that may be added, 0 to 1.
        least_calibrated: old examples below which calibration is a figure, and not judged.
        most_change: see `size_of_change`.
    """

    most_lost_points: float = 0.5
    most_lost_loss: float = 0.0
    least_gain: float = 0.0
    least_new: int = 1
    least_old: int = 0
    most_miscalibration: float = 0.05
    least_calibrated: int = 100
    most_change: float = 10.0

    def __post_init__(self) -> None:
        for name in ("most_lost_points", "most_lost_loss", "most_miscalibration", "least_gain"):
            value = float(getattr(self, name))
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}, must be 0 or more")
        if not 0 < self.most_change < math.inf:
            raise InputError(f"most_change is {self.most_change}, must be above 0")
        for name in ("least_new", "least_old", "least_calibrated"):
            if int(getattr(self, name)) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, must be 0 or more")

    def of_any_change(self) -> "Bounds":
        """Return them for what is made anew, whose way from what was there says nothing."""
        return replace(self, most_change=sys.float_info.max)


def gate(before: Sight, after: Sight, bounds: Bounds, *, change: float) -> Verdict:
    """Decide whether a candidate may be used.

    Args:
        before: the model that is used now.
        after: the candidate, on the same examples and prompts.
        bounds: what is allowed.
        change: how far it went, from `size_of_change`.

    Returns:
        The verdict, with every reason against it and every figure that was compared.

    Raises:
        InputError: if the two were not shown the same examples.
    """
    _check_same(before, after)
    figures = _figures(before, after, change)
    if not (_is_finite(after) and math.isfinite(change)):
        reasons = ["a loss, a probability or a weight is not finite"]
        return Verdict(is_accepted=False, reasons=tuple(reasons), figures=_finite(figures))
    reasons = [
        *_why_old(before.old, after.old, bounds),
        *_why_new(before.new, after.new, bounds),
        *_why_uncalibrated(figures, after.old.n, bounds),
        *_why_unsafe(before, after),
    ]
    if change > bounds.most_change:
        reasons.append(f"the weights moved by {change:.3g}, at most {bounds.most_change:g} is safe")
    return Verdict(is_accepted=not reasons, reasons=tuple(reasons), figures=_finite(figures))


def _check_same(before: Sight, after: Sight) -> None:
    for name, one, other in (
        ("old", before.old.n, after.old.n),
        ("new", before.new.n, after.new.n),
        ("texts", len(before.texts), len(after.texts)),
    ):
        if one != other:
            raise InputError(f"gate: {one} examples of {name!r} before and {other} after")


def _is_finite(sight: Sight) -> bool:
    arrays = (sight.old.losses, sight.old.confidences, sight.new.losses, sight.new.confidences)
    return all(bool(np.isfinite(one).all()) for one in arrays)


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _figures(before: Sight, after: Sight, change: float) -> dict[str, float]:
    figures: dict[str, float] = {"change": change, "texts": len(after.texts)}
    for name, one, other in (("old", before.old, after.old), ("new", before.new, after.new)):
        figures[f"{name}_examples"] = other.n
        figures |= {f"{name}_loss_before": one.loss, f"{name}_loss": other.loss}
        figures |= {f"{name}_accuracy_before": one.accuracy, f"{name}_accuracy": other.accuracy}
        figures[f"{name}_calibration_error_before"] = calibration_error(one)
        figures[f"{name}_calibration_error"] = calibration_error(other)
    figures["old_lost_points"] = 100 * (before.old.accuracy - after.old.accuracy)
    return figures


def _why_old(before: Marks, after: Marks, bounds: Bounds) -> list[str]:
    if after.n < bounds.least_old:
        return [f"{after.n} old examples are held out, {bounds.least_old} are needed"]
    reasons = []
    lost = 100 * (before.accuracy - after.accuracy)
    # A fraction of counts is exact to far less than this.
    if lost > bounds.most_lost_points + 1e-9:
        reasons.append(
            f"it lost {lost:.2f} points on {after.n} old examples, at most "
            f"{bounds.most_lost_points:g} are allowed"
        )
    if bounds.most_lost_loss and after.loss - before.loss > bounds.most_lost_loss:
        reasons.append(
            f"its loss on {after.n} old examples rose by {after.loss - before.loss:.4g}, at most "
            f"{bounds.most_lost_loss:g} is allowed"
        )
    return reasons


def _why_new(before: Marks, after: Marks, bounds: Bounds) -> list[str]:
    if after.n < bounds.least_new:
        return [f"{after.n} new examples are held out, {bounds.least_new} are needed"]
    if after.n == 0:
        return []
    reasons = []
    gain = before.loss - after.loss
    if not gain > 0 or gain < bounds.least_gain:
        reasons.append(
            f"its loss on {after.n} new examples went from {before.loss:.4g} to {after.loss:.4g}: "
            f"it must fall{f' by {bounds.least_gain:g}' if bounds.least_gain else ''}"
        )
    if after.accuracy < before.accuracy:
        reasons.append(
            f"it is right on {after.accuracy:.1%} of {after.n} new examples, before on "
            f"{before.accuracy:.1%}"
        )
    return reasons


def _why_uncalibrated(figures: dict[str, float], n: int, bounds: Bounds) -> list[str]:
    if n < max(1, bounds.least_calibrated):
        return []
    before, after = figures["old_calibration_error_before"], figures["old_calibration_error"]
    if after - before <= bounds.most_miscalibration:
        return []
    return [
        f"its calibration error on {n} old examples rose from {before:.3f} to {after:.3f}, by at "
        f"most {bounds.most_miscalibration:g} is allowed"
    ]


def _why_unsafe(before: Sight, after: Sight) -> list[str]:
    reasons = []
    pairs = list(zip(before.texts, after.texts, strict=True))
    broken = sum(_is_json(one) and not _is_json(other) for one, other in pairs)
    if broken:
        reasons.append(f"{broken} of {len(pairs)} fixed answers are not JSON any more")
    stuck = sum(is_degenerate(other) and not is_degenerate(one) for one, other in pairs)
    if stuck:
        reasons.append(f"{stuck} of {len(pairs)} fixed answers repeat themselves")
    silent = sum(bool(one.strip()) and not other.strip() for one, other in pairs)
    if silent:
        reasons.append(f"{silent} of {len(pairs)} fixed answers are empty")
    was, now = before.old.answers, after.old.answers
    if len(now) >= _LEAST_CLASSES and len(set(was)) > 1 and len(set(now)) == 1:
        reasons.append(f"it gives class {now[0]} for all {len(now)} old examples")
    return reasons


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list; a lone number or word is mere text."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def is_degenerate(text: str) -> bool:
    """Return whether a text is mostly one short part again and again.

    Words are compared, or letters where there are few spaces, as in Chinese.

    Args:
        text: an answer.
    """
    words = text.split()
    units: Sequence[str] = words if len(text) < 12 * len(words) else "".join(words)
    n = len(units)
    for period in range(1, min(_LONGEST_PERIOD, n // _LEAST_REPEATS) + 1):
        same = sum(units[i] == units[i - period] for i in range(period, n))
        if n >= _LEAST_UNITS and same >= _REPEATED_SHARE * (n - period):
            return True
    return False


def calibration_error(marks: Marks) -> float:
    """Return how far confidence is from being right: the expected calibration error.

    Args:
        marks: of held-out examples.

    Returns:
        The mean over ten equal bins of confidence of |accuracy - confidence|, weighted by their
        examples, 0 to 1; 0 without examples. NaN where a confidence is.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    if marks.n == 0 or marks.confidences.size == 0:
        return 0.0
    if not np.isfinite(marks.confidences).all():
        return math.nan
    bins = np.clip((marks.confidences * _BINS).astype(np.int64), 0, _BINS - 1)  # (E,)
    gap = marks.is_right.astype(np.float64) - marks.confidences
    return float(np.abs(np.bincount(bins, weights=gap, minlength=_BINS)).sum() / marks.n)


def size_of_change(before: Values, after: Values) -> float:
    """Return how far trainables moved, against what they were.

    Args:
        before: of the version that is used now.
        after: of the candidate; rows of classes that were added count with all they hold.

    Returns:
        The Euclidean norm of the difference of all of them, divided by 1 + the norm before: the
        factors of an adapter may begin at zero.
    """
    moved = held = 0.0
    for name, value in after.items():
        old = before.get(name)
        wide = np.asarray(value, dtype=np.float64)
        known = np.zeros_like(wide)
        if old is not None and old.shape[1:] == wide.shape[1:] and old.ndim == wide.ndim:
            if old.ndim:
                known[: old.shape[0]] = old[: wide.shape[0]]
            else:
                known[...] = old
        moved += float(np.square(wide - known).sum())
        held += float(np.square(known).sum())
    return math.sqrt(moved) / (1 + math.sqrt(held))
