"""Batches taken apart into examples, and put together again.

An example of a classifier holds its inputs (or `latent`) and `labels` (); one of a language model
holds `tokens` (S,), `rows` (R,), `labels` (R, K) and `weights` (R, K), whose absolute values sum to
1, with tokens up to the last scored row: what follows it changes nothing that is scored.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from onhand.core.errors import InputError, ShapeError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds
from onhand.device.learning.memory.store import Item

__all__ = [
    "ADDED",
    "TEXT",
    "check_batch",
    "completed",
    "groups_of",
    "join_examples",
    "join_texts",
    "n_examples",
    "split",
    "stacked",
    "total_weight",
]

ADDED: Final = ("past_logits", "past_weights", "past_classes", "soft_weights")
"""What the graph of a classifier takes beside inputs, labels and weights."""
_MASK: Final = "attention_mask"
TEXT: Final = ("tokens", "rows", "labels", "weights")
"""What the graph of a language model takes."""


def check_batch(lesson: Lesson, batch: Feeds, *, width: int) -> None:
    """Refuse a batch that does not fit a lesson.

    Args:
        lesson: what is learned.
        batch: the new examples.
        width: classes, or tokens of the vocabulary.

    Raises:
        InputError: if something is missing, not finite or out of range.
        ShapeError: if something is of another shape.
    """
    if lesson.feeds == "tokens":
        _check_text(batch, width)
        return
    labels, weights = _given(batch, "labels"), _given(batch, "weights")
    inputs = [name for name in batch if name not in ("labels", "weights", *ADDED)]
    if labels.ndim != 1 or weights.shape != labels.shape or not len(labels):
        raise ShapeError(
            f"labels {labels.shape}, weights {weights.shape}: need one for each example"
        )
    if not inputs or any(len(batch[name]) != len(labels) for name in inputs):
        raise ShapeError(f"inputs {inputs} must have one row for each of {len(labels)} labels")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= width:
        raise InputError(f"labels from {labels.min()} to {labels.max()}, there are {width} classes")
    if not np.isfinite(weights).all():
        raise InputError("a weight of the batch is not finite")


def _check_text(batch: Feeds, width: int) -> None:
    tokens, rows, labels, weights = (_given(batch, name) for name in TEXT)
    if tokens.ndim != 2 or rows.ndim != 1 or labels.ndim != 2 or labels.shape != weights.shape:
        raise ShapeError(
            f"tokens {tokens.shape}, rows {rows.shape}, labels {labels.shape}, weights "
            f"{weights.shape}: need (B, S), (R,), (R, K) and (R, K)"
        )
    if len(rows) != len(labels) or not len(rows):
        raise ShapeError(f"{len(rows)} rows and {len(labels)} lines of labels: need one for each")
    if rows.min() < 0 or rows.max() >= tokens.size:
        raise InputError(f"rows from {rows.min()} to {rows.max()}, there are {tokens.size} tokens")
    for name, found in (("tokens", tokens), ("labels", labels)):
        if found.min() < 0 or found.max() >= width:
            raise InputError(
                f"{name} from {found.min()} to {found.max()}, there are {width} tokens"
            )
    if not np.isfinite(weights).all():
        raise InputError("a weight of the batch is not finite")


def _given(batch: Feeds, name: str) -> np.ndarray:
    """Return an array of a batch.

    Raises:
        InputError: if it is missing.
    """
    if name not in batch:
        raise InputError(f"the batch has no {name!r}: it has {', '.join(sorted(batch))}")
    return np.asarray(batch[name])


def n_examples(lesson: Lesson, batch: Feeds) -> int:
    """Return how many examples a batch holds."""
    return len(batch["tokens" if lesson.feeds == "tokens" else "labels"])


def total_weight(batch: Feeds) -> float:
    """Return what a batch counts: the sum of its weights' absolute values."""
    return float(np.abs(batch["weights"]).sum(dtype=np.float64))


def completed(batch: Feeds, *, width: int) -> dict[str, np.ndarray]:
    """Return a classifier's batch with all that its graph takes, the past counting nothing."""
    n = len(batch["labels"])
    return {
        **{name: np.asarray(array) for name, array in batch.items() if name not in ADDED},
        "labels": np.asarray(batch["labels"], np.int64),
        "weights": np.asarray(batch["weights"], np.float32),
        "past_logits": np.zeros((n, width), np.float32),
        "past_weights": np.zeros(n, np.float32),
        "past_classes": np.zeros((n, width), np.float32),
        "soft_weights": np.zeros(n, np.float32),
    }


def stacked(batches: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """Return classifiers' batches of the same names, one after another.

    Texts of an encoder, which have a mask, are padded to the longest.

    Raises:
        InputError: if they do not have the same names and shapes of examples.
    """
    first = batches[0]
    length = max(_length(batch) for batch in batches)
    for batch in batches[1:]:
        for name in sorted(set(first) | set(batch)):
            shapes = [
                _padded(name, one, length).shape[1:] if name in one else None
                for one in (first, batch)
            ]
            if shapes[0] is None or shapes[0] != shapes[1]:
                raise InputError(
                    f"examples kept are of {name!r} {shapes[1]}, the new ones of {shapes[0]}: "
                    "the memory is another model's"
                )
    return {
        name: np.concatenate([_padded(name, batch, length) for batch in batches]) for name in first
    }


def _length(batch: Feeds) -> int:
    """Return to how many tokens an encoder's texts are padded; 0 for what is no text."""
    mask = batch.get(_MASK)
    return 0 if mask is None or mask.ndim != 2 else mask.shape[1]


def _padded(name: str, batch: Feeds, length: int) -> np.ndarray:
    """Return an array of a batch, padded at its right if it has a place for each token."""
    array = np.asarray(batch[name])
    mine = _length(batch)
    if name in ADDED or not mine or not _is_of_tokens(array[0], mine):
        return array
    return np.pad(array, ((0, 0), (0, length - mine), *((0, 0) for _ in array.shape[2:])))


def _is_of_tokens(array: np.ndarray, length: int) -> bool:
    """Say whether an example's array has a place for each token: numbers of tokens, or vectors."""
    return array.shape[:1] == (length,) and (array.ndim > 1 or array.dtype.kind in "iub")


def groups_of(lesson: Lesson, batch: Feeds, *, session: int) -> list[int]:
    """Return what a memory balances over: an example's class, or of a text its session."""
    if lesson.feeds == "tokens":
        return [session] * n_examples(lesson, batch)
    return [int(label) for label in batch["labels"]]


def split(lesson: Lesson, batch: Feeds) -> list[Item | None]:
    """Take a batch apart.

    Args:
        lesson: what is learned.
        batch: checked.

    Returns:
        One example each, None for a text without a row that counts.
    """
    if lesson.feeds == "tokens":
        return [_text(batch, place) for place in range(len(batch["tokens"]))]
    names = [name for name in batch if name not in ("labels", "weights", *ADDED)]
    return [
        {"labels": np.asarray(batch["labels"][i], np.int64)}
        | _trimmed({name: np.array(batch[name][i]) for name in names})
        for i in range(len(batch["labels"]))
    ]


def _trimmed(item: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out an encoder's padding."""
    mask = item.get(_MASK)
    if mask is None or mask.ndim != 1 or not mask.any():
        return item
    end = int(np.flatnonzero(mask)[-1]) + 1
    return {
        name: array[:end] if _is_of_tokens(array, len(mask)) else array
        for name, array in item.items()
    }


def _text(batch: Feeds, place: int) -> Item | None:
    length = batch["tokens"].shape[1]
    mine = np.flatnonzero(
        (batch["rows"] // length == place) & (np.abs(batch["weights"]).sum(axis=1) > 0)
    )
    if not len(mine):
        return None
    rows = batch["rows"][mine] - place * length
    weights = batch["weights"][mine].astype(np.float32)
    return {
        "tokens": batch["tokens"][place, : int(rows.max()) + 1].astype(np.int32),
        "rows": rows.astype(np.int32),
        "labels": batch["labels"][mine].astype(np.int32),
        "weights": weights / np.abs(weights).sum(dtype=np.float32),
    }


def join_examples(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Put a classifier's examples together, each counting 1.

    Args:
        items: at least one.

    Returns:
        Their inputs, `labels` and `weights`.
    """
    names = [name for name in items[0] if name not in ADDED]
    rows = [{name: item[name][None] for name in names} for item in items]
    return stacked(rows) | {"weights": np.ones(len(items), np.float32)}


def join_texts(parts: Sequence[tuple[Item, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Put texts together.

    Args:
        parts: of each text its tokens and rows, and the labels (R, K) and weights (R, K) of its
            rows; K may differ.

    Returns:
        `tokens` (B, S) padded at their right, `rows`, `labels` and `weights`.
    """
    length = max(len(item["tokens"]) for item, _, _ in parts)
    most = max(labels.shape[1] for _, labels, _ in parts)

    def widened(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, most - array.shape[1])))

    return {
        "tokens": np.stack([
            np.pad(item["tokens"], (0, length - len(item["tokens"]))) for item, _, _ in parts
        ]).astype(np.int64),
        "rows": np.concatenate([
            item["rows"].astype(np.int64) + i * length for i, (item, _, _) in enumerate(parts)
        ]),
        "labels": np.concatenate([widened(labels) for _, labels, _ in parts]).astype(np.int64),
        "weights": np.concatenate([widened(w) for _, _, w in parts]).astype(np.float32),
    }
