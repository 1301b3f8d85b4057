"""The latest blocks, read as soon as a process starts: whoever asks first finds them in memory."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.device.serving.caches.block_files import BlockFiles, Room
from onhand.device.serving.caches.block_index import BlockIndex

__all__ = ["WarmBlock", "WarmBlocks", "WarmChain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmBlock:
    """One block in memory.

    Attributes:
        key: its name.
        parent: the name of the block before; the chain's start for the first.
        begin: tokens that come before it.
        tokens: (n,) int64.
        span: what the session saved.
    """

    key: bytes
    parent: bytes
    begin: int
    tokens: TokenArray
    span: memoryview


@dataclass(frozen=True, slots=True)
class WarmChain:
    """What one conversation remembers, from its first token on.

    Attributes:
        blocks: each follows the one before.
    """

    blocks: Sequence[WarmBlock]

    @property
    def start(self) -> bytes:
        """Of the chain: it says whose it is, and of which model, to who can name it."""
        return self.blocks[0].parent

    @property
    def tokens(self) -> TokenArray:
        """All of them."""
        return np.concatenate([block.tokens for block in self.blocks])


class WarmBlocks:
    """Blocks in memory until somebody takes them. May be shared between threads."""

    def __init__(self, most_bytes: int) -> None:
        """Start with none.

        Args:
            most_bytes: of all, as they lie on the disk.
        """
        self._most_bytes = most_bytes
        self._blocks: dict[bytes, WarmBlock] = {}
        self._is_filled = threading.Event()

    @property
    def n_bytes(self) -> int:
        """Memory that they take."""
        return sum(block.span.nbytes for block in list(self._blocks.values()))

    def fill(self, index: BlockIndex, files: BlockFiles, *, is_closed: Callable[[], bool]) -> None:
        """Read the latest.

        Args:
            index: which blocks there are.
            files: where they lie.
            is_closed: whether nobody wants them any more.

        Raises:
            OSError: if one cannot be read; those before it stay.
            InputError: if one is damaged; likewise.
            sqlite3.Error: if the index fails.
        """
        left = self._most_bytes
        try:
            for latest in index.latest() if left else ():
                left -= latest.size
                if left < 0 or is_closed():
                    return
                tokens, span = files.read(latest.key, Room())
                self._blocks[latest.key] = WarmBlock(
                    key=latest.key,
                    parent=latest.parent,
                    begin=latest.begin,
                    tokens=tokens,
                    span=span,
                )
        finally:
            self._is_filled.set()

    def pop(self, key: bytes) -> WarmBlock | None:
        """Return a block, which is the caller's now; None where it is not here."""
        return self._blocks.pop(key, None)

    def clear(self) -> None:
        """Give all up."""
        self._blocks.clear()

    def chains(self, *, wait_s: float) -> list[WarmChain]:
        """Return the conversations that are here from their beginning on, the latest first.

        They stay here until they are popped.

        Args:
            wait_s: most seconds to wait until they are read; then there are none.
        """
        if not self._is_filled.wait(wait_s):
            return []
        blocks = dict(self._blocks)
        parents = {block.parent for block in blocks.values()}
        found: list[WarmChain] = []
        for last in blocks.values():
            if last.key in parents:
                continue
            chain = [last]
            while chain[-1].begin and (before := blocks.get(chain[-1].parent)) is not None:
                chain.append(before)
            if chain[-1].begin == 0:
                found.append(WarmChain(chain[::-1]))
        return found
