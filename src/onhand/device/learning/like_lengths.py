"""Texts of like length are computed together: padding costs what tokens cost.

A run of a lesson's graph holds all of its activations at once, so that a few long texts beside
each other would take gigabytes: no run is larger than `MOST_TOKENS`, however large the batch is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Answering, Feeds, Teachable, Values

__all__ = [
    "MOST_TOKENS",
    "Run",
    "answered_rows",
    "by_length",
    "examples_by_length",
    "groups_by_length",
    "runs_of",
]

RUN_TOKENS: Final = 128
"""What one more run of a graph costs, in tokens: matrices become floats in each."""
MOST_TOKENS: Final = 1024
"""Of one run, padding included; a single text that is longer is a run of its own."""
_MASK: Final = "attention_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Texts of a batch that are computed together.

    Attributes:
        texts: (b,) int64, their numbers in the batch.
        length: tokens of the longest, up to its last scored place: what follows decides nothing.
        places: (r,) int64, which of the batch's rows are theirs.
        rows: (r,) int64, these rows among b x `length` tokens.
    """

    texts: np.ndarray
    length: int
    places: np.ndarray
    rows: np.ndarray

    def tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Return (b, length) of a batch's (B, S) tokens."""
        return np.ascontiguousarray(tokens[self.texts, : self.length])

    def feeds(self, batch: Feeds) -> Feeds:
        """Return what a lesson of tokens takes of these texts alone."""
        return {
            "tokens": self.tokens(batch["tokens"]),
            "rows": self.rows,
            "labels": batch["labels"][self.places],
            "weights": batch["weights"][self.places],
        }


def runs_of(batch: Feeds) -> list[Run]:
    """Put the texts of a batch into runs of like length, none of more than `MOST_TOKENS`.

    Args:
        batch: `tokens` (B, S), padded at their right, and `rows` (R,).

    Returns:
        Runs that together hold every row once; a text without a row is in none.
    """
    B, S = batch["tokens"].shape
    places, within = np.divmod(np.asarray(batch["rows"]), S)
    lengths = np.zeros(B, dtype=np.int64)
    np.maximum.at(lengths, places, within + 1)
    made: list[Run] = []
    for group in groups_by_length(lengths.tolist()):
        length = int(lengths[group].max())
        number = np.full(B, -1, dtype=np.int64)
        number[group] = np.arange(len(group))
        mine = np.flatnonzero(number[places] >= 0)
        rows = number[places[mine]] * length + within[mine]
        made.append(Run(texts=np.array(group), length=length, places=mine, rows=rows))
    return made


def by_length(batch: Feeds) -> list[Feeds]:
    """Take a batch of texts apart, into runs of like length.

    Args:
        batch: `tokens` (B, S), padded at their right, `rows` (R,), `labels` and `weights` (R, K).

    Returns:
        Batches whose losses sum to that of the whole; itself where one run computes it as it is.
    """
    B, S = batch["tokens"].shape
    runs = runs_of(batch)
    if len(runs) == 1 and runs[0].length == S and len(runs[0].texts) == B:
        return [batch]
    return [run.feeds(batch) for run in runs]


def examples_by_length(batch: Feeds) -> list[tuple[np.ndarray, Feeds]]:
    """Take a classifier's batch apart, of an encoder's texts into runs of like length.

    Args:
        batch: one row for each example; texts have an `attention_mask` (B, S).

    Returns:
        Numbers of examples and their batch, whose losses sum to that of the whole; all at once
        where one run computes it, and of what is no text.
    """
    everyone, mask = np.arange(len(batch["labels"])), batch.get(_MASK)
    if mask is None or mask.ndim != 2:
        return [(everyone, batch)]
    S = mask.shape[1]
    lengths = S - np.argmax(mask[:, ::-1] != 0, axis=1)  # (B,), S of a text without any token
    groups = groups_by_length(lengths.tolist())
    if len(groups) == 1:
        return [(everyone, batch)]
    made: list[tuple[np.ndarray, Feeds]] = []
    for group in groups:
        length = int(lengths[group].max())
        feeds = {
            name: np.ascontiguousarray(
                array[group, :length] if _is_of_tokens(array, S) else array[group]
            )
            for name, array in batch.items()
        }
        made.append((np.array(group), feeds))
    return made


def _is_of_tokens(array: np.ndarray, length: int) -> bool:
    """Say whether a batch's array has a place for each token: numbers of tokens, or vectors."""
    return array.shape[1:2] == (length,) and (array.ndim > 2 or array.dtype.kind in "iub")


def answered_rows(teachable: Teachable, values: Values, batch: Feeds) -> FloatArray:
    """Return the log-probability of every label of a batch of texts, run by run.

    Args:
        teachable: a lesson of tokens.
        values: of every trainable.
        batch: as in `by_length`; its weights change nothing.

    Returns:
        (R, K) float32, nat.

    Raises:
        InputError: if the batch does not fit the lesson.
        EngineError: if the lesson's graph fails.
    """
    found = np.zeros(batch["labels"].shape, dtype=np.float32)
    # Not every lesson can leave its gradients out.
    answer = teachable.answer if isinstance(teachable, Answering) else teachable.teach
    for run in runs_of(batch):
        feeds = run.feeds(batch)
        feeds = {**feeds, "weights": np.zeros_like(feeds["weights"])}
        found[run.places] = answer(values, feeds).outputs["logprobs"]
    return found


def groups_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Put texts into groups, so that padding and runs together cost least.

    Args:
        lengths: tokens of each; those of 0 are in no group.

    Returns:
        Numbers of texts, short ones first; each group has at most `MOST_TOKENS` with its padding,
        or a single text.
    """
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    # Of the first n texts: what they cost at least, and how many the last group has.
    best: list[tuple[int, int]] = [(0, 0)]
    for n in range(1, len(order) + 1):
        longest = lengths[order[n - 1]]
        most = min(n, max(1, MOST_TOKENS // longest))
        best.append(min((best[n - k][0] + k * longest + RUN_TOKENS, k) for k in range(1, most + 1)))
    groups: list[list[int]] = []
    n = len(order)
    while n:
        k = best[n][1]
        groups.append(sorted(order[n - k : n]))
        n -= k
    return groups[::-1]
