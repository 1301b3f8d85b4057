"""What a store of blocks did."""

from dataclasses import dataclass

__all__ = ["BlockCounts"]


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What happened since the store was opened.

    Attributes:
        hits: prompts of which something was read.
        misses: prompts of which nothing was there, neither in memory nor here.
        restored_tokens: tokens that were read.
        written: blocks.
        evicted: blocks that made room for others.
        damaged: blocks that were not what was written, and were removed.
        skipped: conversations that were not kept, since too many waited or the disk was full.
    """

    hits: int = 0
    misses: int = 0
    restored_tokens: int = 0
    written: int = 0
    evicted: int = 0
    damaged: int = 0
    skipped: int = 0
