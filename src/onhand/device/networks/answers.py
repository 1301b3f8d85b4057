"""What a network's outputs mean, by its task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.device.networks.base import Array

__all__ = ["CLASSIFIES", "LABELS", "Likely", "likeliest", "read_labels", "shares"]

LABELS = "labels.txt"
CLASSIFIES = ("image-classification", "text-classification", "audio-classification")
_MOST_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Likely:
    """A class and its probability, 0 to 1."""

    index: int
    label: str
    share: float


def read_labels(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of a network's classes; none where the bundle has none.

    Raises:
        BundleCorrupt: if there are not as many as the manifest says.
    """
    if bundle.learned is not None:
        return bundle.learned.labels
    n_labels = bundle.manifest.network.n_labels
    if n_labels == 0:
        return ()
    entry = bundle.manifest.files.get(LABELS)
    if entry is None or entry.size > _MOST_BYTES:
        raise BundleCorrupt(f"{bundle.root}: has no {LABELS} of at most {_MOST_BYTES} bytes")
    try:
        labels = tuple(bundle.path(LABELS).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BundleCorrupt(f"{bundle.root}: {LABELS} cannot be read: {error}") from error
    if len(labels) != n_labels:
        raise BundleCorrupt(f"{bundle.root}: {LABELS} has {len(labels)} lines, not {n_labels}")
    return labels


def shares(scores: Array) -> NDArray[np.float64]:
    """Return probabilities of scores that are logits, or probabilities already.

    Args:
        scores: (..., C).

    Returns:
        (..., C), of which each row adds up to 1.
    """
    wide = np.asarray(scores, dtype=np.float64)
    if wide.min() >= 0 and np.allclose(wide.sum(axis=-1), 1, atol=1e-2):
        whole: NDArray[np.float64] = wide / wide.sum(axis=-1, keepdims=True)
        return whole
    raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
    normal: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return normal


def likeliest(outputs: Mapping[str, Array], labels: Sequence[str], *, top: int) -> list[Likely]:
    """Return the likeliest classes of one example.

    Args:
        outputs: of one run; the first holds a score for each class.
        labels: their names; empty where there are none.
        top: how many.

    Returns:
        The likeliest first.

    Raises:
        InputError: if `top` is below 1, or the scores are of several examples.
    """
    if top < 1:
        raise InputError(f"top is {top}, must be 1 or more")
    scores = next(iter(outputs.values()))
    if scores.ndim > 1 and len(scores) > 1:
        raise InputError(f"scores {scores.shape} are of several examples; ask for one at a time")
    row = shares(scores.reshape(-1))
    order = np.argsort(-row, kind="stable")[:top].tolist()
    return [Likely(i, labels[i] if i < len(labels) else str(i), float(row[i])) for i in order]
