"""Boxes of two detectors beside each other, and beside what people drew.

Source:
    Matching and mean average precision as COCO defines them: cocodataset.org/#detection-eval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.measurement import Measurement
from onhand.device.networks.base import Array
from onhand.device.networks.boxes import BoxReader, Found, overlaps
from onhand.host.networks.annotations import Truth

__all__ = ["compare_boxes", "mean_precision"]

OVERLAPS: Final = tuple(0.5 + 0.05 * i for i in range(10))
# Precision is read at all recalls: boxes that are hardly likely count as well.
_LEAST_SCORE = 0.001
_RECALLS = np.linspace(0, 1, 101)
_RESAMPLES, _SEED = 200, 20260101
_Outputs = Sequence[Mapping[str, Array]]
Doubles = NDArray[np.float64]


def compare_boxes(
    original: _Outputs,
    ours: _Outputs,
    reader: BoxReader,
    *,
    truths: Sequence[Truth] | None,
    how: str,
) -> dict[str, Measurement]:
    """Summarise what a detector lost, with 95 % intervals over pictures.

    Args:
        original: outputs of the original, of each picture.
        ours: of the packed network, of the same pictures.
        reader: reads the boxes in them.
        truths: what is in each picture; None where nobody knows.
        how: the command that measures it again.

    Returns:
        By name: `box_agreement`, the share of boxes of both that have one of the same class in the
        other with an overlap of 0.5 or more; and with truths `map_50` and `map_50_95`, likewise of
        the original, and `map_50_loss`. Always `quality_loss`: of `map_50`, or of agreement where
        there are no truths.
    """
    pairs = [(reader.find(a), reader.find(b)) for a, b in zip(original, ours, strict=True)]
    same = np.array([_agreement(a, b) for a, b in pairs])
    counts = _resamples(len(pairs))
    figures = {"box_agreement": (float(same.mean()), counts @ same / len(same))}
    lost = (1 - figures["box_agreement"][0], 1 - figures["box_agreement"][1])
    if truths is not None and any(len(truth.classes) for truth in truths):
        rows = np.concatenate([np.ones((1, len(truths))), counts])
        found = {}
        for prefix, outputs in (("original_", original), ("", ours)):
            boxes = [
                reader.find(made, (truth.height, truth.width), least_score=_LEAST_SCORE)
                for made, truth in zip(outputs, truths, strict=True)
            ]
            found[prefix] = mean_precision(boxes, truths, rows)  # (1 + R, T)
        for prefix, precision in found.items():
            for name, column in (
                ("map_50", precision[:, 0]),
                ("map_50_95", precision.mean(axis=1)),
            ):
                figures[prefix + name] = (float(column[0]), column[1:])
        apart = found["original_"][:, 0] - found[""][:, 0]
        lost = figures["map_50_loss"] = (float(apart[0]), apart[1:])
    figures["quality_loss"] = lost
    return {
        name: _figure(name, value, again, len(pairs), how)
        for name, (value, again) in figures.items()
    }


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Boxes of one class in all pictures, the likeliest first.

    Attributes:
        pictures: (D,) where each is.
        hits: (T, D) whether it is one of the truths, for each overlap.
        n_truths: (P,) things of the class in each picture.
    """

    pictures: NDArray[np.int64]
    hits: NDArray[np.bool_]
    n_truths: Doubles


def mean_precision(
    found: Sequence[Found],
    truths: Sequence[Truth],
    counts: Doubles,
    *,
    least_overlaps: Sequence[float] = OVERLAPS,
) -> Doubles:
    """Return mean average precisions over classes that there are.

    Args:
        found: boxes in each picture.
        truths: what is in it.
        counts: (R, P) how often each picture counts, for each answer wanted.
        least_overlaps: with a truth, of a box that counts as right; T of them.

    Returns:
        (R, T); 0 where no picture that counts has anything in it.
    """
    classes = np.unique(np.concatenate([truth.classes for truth in truths]))
    total = np.zeros((len(counts), len(least_overlaps)))
    n_classes = np.zeros((len(counts), 1))
    for kind in classes.tolist():
        ranked = _ranked(found, truths, kind, least_overlaps)
        n_truths = counts @ ranked.n_truths  # (R,)
        total += _precision(ranked, counts, n_truths)
        n_classes += (n_truths > 0)[:, None]
    mean: Doubles = total / np.maximum(n_classes, 1)
    return mean


def _ranked(
    found: Sequence[Found], truths: Sequence[Truth], kind: int, least_overlaps: Sequence[float]
) -> _Ranked:
    scores: list[Doubles] = []
    pictures: list[int] = []
    hits: list[NDArray[np.bool_]] = []
    for i, (boxes, truth) in enumerate(zip(found, truths, strict=True)):
        own = boxes.part(boxes.classes == kind)
        shared = overlaps(own.corners, truth.corners[truth.classes == kind])
        hits.append(np.array([_matches(shared, least) >= 0 for least in least_overlaps]))
        scores.append(own.scores)
        pictures += [i] * len(own.scores)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _Ranked(
        np.array(pictures, dtype=np.int64)[order],
        np.concatenate(hits, axis=1)[:, order],
        np.array([(truth.classes == kind).sum() for truth in truths], dtype=np.float64),
    )


def _matches(shared: Doubles, least: float) -> NDArray[np.int64]:
    """Return for each box, the likeliest first, the number of its partner, or -1.

    Args:
        shared: (M, K) overlaps of boxes and possible partners; each partner is taken once.
        least: of an overlap that counts.
    """
    free = np.ones(shared.shape[1], dtype=np.bool_)
    taken = np.full(shared.shape[0], -1, dtype=np.int64)
    if not len(free):
        return taken
    for i, row in enumerate(shared):
        best = int(np.where(free, row, -1).argmax())
        if free[best] and row[best] >= least:
            taken[i], free[best] = best, False
    return taken


def _precision(ranked: _Ranked, counts: Doubles, n_truths: Doubles) -> Doubles:
    """Return (R, T) average precisions of one class; 0 where there is nothing of it."""
    made = np.zeros((len(counts), len(ranked.hits)))
    if not len(ranked.pictures):
        return made
    weights = counts[:, ranked.pictures]  # (R, D)
    seen = np.maximum(weights.cumsum(axis=1), 1e-12)
    for t, hits in enumerate(ranked.hits):
        right = (weights * hits).cumsum(axis=1)  # (R, D)
        recalls = right / np.maximum(n_truths, 1e-12)[:, None]
        # The best precision at this recall or a higher one.
        best = np.maximum.accumulate((right / seen)[:, ::-1], axis=1)[:, ::-1]
        padded = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
        for r in np.flatnonzero(n_truths > 0).tolist():
            # A recall of exactly 0.7 must not miss 0.7 by rounding.
            at = np.searchsorted(recalls[r] + 1e-9, _RECALLS)
            made[r, t] = padded[r, at].mean()
    return made


def _agreement(a: Found, b: Found) -> float:
    """Return the share of boxes of both that have a partner; 1 where both see nothing."""
    total = len(a.scores) + len(b.scores)
    if not total:
        return 1.0
    shared = overlaps(a.corners, b.corners) * (a.classes[:, None] == b.classes[None, :])
    return 2 * float((_matches(shared, 0.5) >= 0).sum()) / total


def _resamples(n: int) -> Doubles:
    """Return (R, n) how often each of n pictures is drawn when n are drawn with replacement."""
    draws = np.random.default_rng(_SEED).integers(0, n, (_RESAMPLES, n))
    return np.stack([np.bincount(row, minlength=n) for row in draws]).astype(np.float64)


def _figure(name: str, value: float, again: Doubles, samples: int, how: str) -> Measurement:
    low, high = np.quantile(again, [0.025, 0.975])
    return Measurement(
        name=name,
        value=value,
        unit="fraction",
        samples=samples,
        spread=0.0,
        how=how,
        interval=(float(low), float(high)),
    )
