"""Recorded arrivals, made small, and the best that a prefix cache can do with them.

Both traces say when requests came and how long they were. Mooncake's also names each block of 512
tokens by a hash of all tokens so far, so what requests share is known; Azure's says nothing of it.
A block of 512 tokens becomes one of `BLOCK` tokens, and answers are made shorter likewise.
"""

import csv
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

__all__ = ["BLOCK", "Arrival", "at_rate", "best_hit_rate", "read_azure", "read_mooncake"]

BLOCK: Final = 16
_RECORDED_BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request.

    Attributes:
        at_s: when it comes, from the first one on.
        blocks: names of its blocks of `BLOCK` tokens; the same name is the same text, and what
            comes before it is the same too.
        n_answer: tokens to answer.
    """

    at_s: float
    blocks: tuple[int, ...]
    n_answer: int


def read_mooncake(path: Path, n: int) -> list[Arrival]:
    """Read the first requests of a trace of Mooncake.

    Args:
        path: its JSON lines.
        n: how many.

    Returns:
        The requests, as they came.
    """
    found = []
    with path.open(encoding="utf-8") as file:
        for line in islice(file, n):
            row = json.loads(line)
            answer = max(1, row["output_length"] * BLOCK // _RECORDED_BLOCK)
            found.append(Arrival(row["timestamp"] / 1000, tuple(row["hash_ids"]), answer))
    return found


def read_azure(path: Path, n: int) -> list[Arrival]:
    """Read the first requests of a trace of Azure; every block has a name of its own.

    Args:
        path: its CSV file.
        n: how many.

    Returns:
        The requests, as they came.
    """
    found: list[Arrival] = []
    n_blocks = 0
    with path.open(encoding="utf-8", newline="") as file:
        for row in islice(csv.DictReader(file), n):
            # More digits than a datetime keeps.
            at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            size = -(-int(row["ContextTokens"]) // _RECORDED_BLOCK)
            blocks = tuple(range(n_blocks, n_blocks + size))
            n_blocks += size
            answer = max(1, int(row["GeneratedTokens"]) * BLOCK // _RECORDED_BLOCK)
            found.append(Arrival(at_s, blocks, answer))
    return [replace(one, at_s=one.at_s - found[0].at_s) for one in found]


def at_rate(arrivals: Sequence[Arrival], per_s: float) -> list[Arrival]:
    """Return the requests stretched in time, so that so many come each second on average."""
    whole_s = arrivals[-1].at_s or 1.0
    stretch = (len(arrivals) - 1) / per_s / whole_s
    return [replace(one, at_s=one.at_s * stretch) for one in arrivals]


def best_hit_rate(arrivals: Sequence[Arrival], *, most_tokens: int | None) -> float:
    """Return the share of prompt tokens that need not be computed, at best.

    Each request ends before the next comes, and of every prompt at least the last token is
    computed.

    Args:
        arrivals: the requests.
        most_tokens: that are kept, the longest unused blocks going first; None for all.

    Returns:
        0 to 1.
    """
    kept: OrderedDict[int, None] = OrderedDict()
    n_hits = n_tokens = 0
    for arrival in arrivals:
        n_known = next(
            (i for i, name in enumerate(arrival.blocks) if name not in kept), len(arrival.blocks)
        )
        size = BLOCK * len(arrival.blocks)
        n_hits += min(BLOCK * n_known, size - 1)
        n_tokens += size
        for name in reversed(arrival.blocks):  # so that ends are older than beginnings
            kept[name] = None
            kept.move_to_end(name)
        while most_tokens is not None and BLOCK * len(kept) > most_tokens:
            kept.popitem(last=False)
    return n_hits / n_tokens if n_tokens else 0.0
