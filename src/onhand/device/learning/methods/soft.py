"""Answers of a lesson's graph, and losses of a classifier beside the ones that its graph has.

The graph's cross-entropy with `past_classes` q has the gradient s (sum(q) p - q) by the logits,
where p are the probabilities it answers now and s is `soft_weights`. So any gradient g that sums
to 0 over the classes is had by feeding q = p - g / s: distillation at any temperature over some of
the classes, or cross-entropy among some classes only, exactly, for one more run of the graph. The
value of `loss` is then not that loss.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Answering, Feeds, Taught, Teachable, Values
from onhand.device.learning.like_lengths import runs_of
from onhand.device.learning.methods.batches import completed

__all__ = ["Pull", "answered", "best_tokens", "logits_of", "pull_to_given", "pulled", "softmax"]

_Doubles = NDArray[np.float64]
Pull = Callable[[_Doubles], _Doubles]
"""Logits (B, C) -> the gradient by them (B, C) of a loss of each example; each row sums to 0."""
_ROWS_AT_ONCE: Final = 64


def softmax(logits: _Doubles) -> _Doubles:
    """Return (B, C) probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: _Doubles = powers / powers.sum(axis=1, keepdims=True)
    return shares


def answered(teachable: Teachable, values: Values, feeds: Feeds) -> Taught:
    """Run a lesson's graph for its answers alone, without gradients where it can leave them out.

    Raises:
        InputError: if something is missing or does not fit.
        EngineError: if the graph fails.
    """
    if isinstance(teachable, Answering):
        return teachable.answer(values, feeds)
    return teachable.teach(values, feeds)


def logits_of(teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> FloatArray:
    """Return what a classifier answers: the graph is run with a batch that counts nothing.

    Args:
        teachable: the lesson.
        values: of every trainable.
        batch: inputs and labels; labels may be of classes that `values` do not have yet.
        width: classes that `values` tell apart.

    Returns:
        (B, width) float32.

    Raises:
        InputError: if the graph gives another number of classes.
        EngineError: if the graph fails.
    """
    feeds = completed(batch, width=width)
    # The right class does not matter to logits, and may be new.
    feeds |= {"labels": np.zeros_like(feeds["labels"]), "weights": np.zeros_like(feeds["weights"])}
    found = answered(teachable, values, feeds).outputs["logits"]
    if found.shape != (len(feeds["labels"]), width):
        raise InputError(
            f"the lesson answers {found.shape}, expected {(len(feeds['labels']), width)}"
        )
    return found


def pulled(
    teachable: Teachable, values: Values, feeds: Feeds, pulls: Sequence[Pull], *, width: int
) -> dict[str, np.ndarray]:
    """Return a classifier's batch in which other losses count as much as its labels did.

    Args:
        teachable: the lesson.
        values: of every trainable, as they are now.
        feeds: completed; its `past_classes` are set.
        pulls: the gradients of the losses that are added.
        width: classes.

    Returns:
        The batch; each example's losses are multiplied by its weight.

    Raises:
        InputError: if the graph gives another number of classes.
        EngineError: if the graph fails.
    """
    logits = logits_of(teachable, values, feeds, width=width).astype(np.float64)  # (B, C)
    gradient = np.zeros_like(logits)
    for pull in pulls:
        gradient += pull(logits)
    return {
        **feeds,
        "past_classes": (softmax(logits) - gradient).astype(np.float32),
        "soft_weights": np.asarray(feeds["weights"], np.float32),
    }


def pull_to_given(labels: np.ndarray, *, width: int) -> Pull:
    """Return the gradient of cross-entropy among the classes that a batch holds, no others.

    Args:
        labels: (B,) of the batch.
        width: classes.

    Returns:
        A pull that leaves alone the classes that are not in the batch.

    Source:
        The asymmetric cross-entropy of ER-ACE: Caccia et al. 2022, arXiv:2104.05025.
    """
    present = np.unique(labels)

    def pull(logits: _Doubles) -> _Doubles:
        gradient = np.zeros((len(labels), width))
        gradient[:, present] = softmax(logits[:, present])
        gradient[np.arange(len(labels)), labels] -= 1
        return gradient

    return pull


def best_tokens(
    teachable: Teachable, values: Values, batch: Feeds, *, best: int, width: int
) -> tuple[np.ndarray, FloatArray]:
    """Return the likeliest tokens at the scored rows of texts.

    The graph gives log-probabilities of the labels it is asked for, so it is asked for all tokens
    of the vocabulary, 64 rows at once: a run of the graph for each 64 rows of texts of like length.

    Args:
        teachable: the lesson.
        values: of every trainable.
        batch: `tokens` and `rows`.
        best: tokens of each row; fewer where the vocabulary is smaller.
        width: tokens of the vocabulary.

    Returns:
        tokens: (R, best) int32, the likeliest first.
        chances: (R, best) float32, scaled to sum to 1.

    Raises:
        InputError: if something does not fit.
        EngineError: if the graph fails.
    """
    n = min(best, width)
    tokens = np.zeros((len(batch["rows"]), n), np.int32)
    logs = np.zeros((len(batch["rows"]), n), np.float64)
    for run in runs_of(batch):
        texts = run.tokens(np.asarray(batch["tokens"], np.int64))
        for first in range(0, len(run.rows), _ROWS_AT_ONCE):
            places = run.places[first : first + _ROWS_AT_ONCE]
            asked = run.rows[first : first + _ROWS_AT_ONCE]
            tokens[places], logs[places] = _likeliest(teachable, values, texts, asked, n, width)
    shares = np.exp(logs)
    shares /= shares.sum(axis=1, keepdims=True)
    return tokens, shares.astype(np.float32)


def _likeliest(
    teachable: Teachable,
    values: Values,
    texts: np.ndarray,
    rows: np.ndarray,
    n: int,
    width: int,
) -> tuple[np.ndarray, FloatArray]:
    """Return the n likeliest tokens of some rows, and their log-probabilities, by one run."""
    every = np.arange(width, dtype=np.int64)
    feeds: dict[str, np.ndarray] = {
        "tokens": texts,
        "rows": rows,
        "labels": np.tile(every, (len(rows), 1)),
        "weights": np.zeros((len(rows), width), np.float32),
    }
    found = answered(teachable, values, feeds).outputs["logprobs"]  # (R, V)
    some = np.argpartition(-found, n - 1, axis=1)[:, :n] if n < width else feeds["labels"]
    # Equal chances keep the order of their tokens, so every run gives the same.
    some = np.sort(some, axis=1)
    likely = np.take_along_axis(found, some, axis=1)
    order = np.argsort(-likely, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(likely, order, axis=1)
