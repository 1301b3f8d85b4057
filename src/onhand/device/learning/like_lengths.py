"""Texts of like length are computed together: padding costs what tokens cost."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from onhand.device.learning.base import Feeds

__all__ = ["by_length", "groups_by_length"]

RUN_TOKENS: Final = 128
"""What one more run of a graph costs, in tokens: matrices become floats in each."""


def by_length(batch: Feeds) -> list[Feeds]:
    """Take a batch of texts apart, into runs of like length.

    Args:
        batch: `tokens` (B, S), padded at their right, `rows` (R,), `labels` and `weights` (R, K).

    Returns:
        Batches whose losses sum to that of the whole; itself where no padding is saved. What
        follows the last scored place of a text decides nothing, and is left out.
    """
    B, S = batch["tokens"].shape
    places, within = np.divmod(np.asarray(batch["rows"]), S)
    lengths = np.zeros(B, dtype=np.int64)
    np.maximum.at(lengths, places, within + 1)
    groups = groups_by_length(lengths.tolist())
    if len(groups) == 1 and max(lengths) == S and len(groups[0]) == B:
        return [batch]
    made: list[Feeds] = []
    for group in groups:
        length = int(lengths[group].max())
        number = np.full(B, -1, dtype=np.int64)
        number[group] = np.arange(len(group))
        mine = number[places] >= 0
        made.append({
            "tokens": np.ascontiguousarray(batch["tokens"][group, :length]),
            "rows": number[places[mine]] * length + within[mine],
            "labels": batch["labels"][mine],
            "weights": batch["weights"][mine],
        })
    return made


def groups_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Put texts into groups, so that padding and runs together cost least.

    Args:
        lengths: tokens of each; those of 0 are in no group.

    Returns:
        Numbers of texts, short ones first.
    """
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    # Of the first n texts: what they cost at least, and how many the last group has.
    best: list[tuple[int, int]] = [(0, 0)]
    for n in range(1, len(order) + 1):
        longest = lengths[order[n - 1]]
        best.append(min((best[n - k][0] + k * longest + RUN_TOKENS, k) for k in range(1, n + 1)))
    groups: list[list[int]] = []
    n = len(order)
    while n:
        k = best[n][1]
        groups.append(sorted(order[n - k : n]))
        n -= k
    return groups[::-1]
