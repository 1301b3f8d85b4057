"""Rotary tables that grow with the conversations: a long context costs nothing until it is used."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.rope import Rope

__all__ = ["LayerTables", "RotaryBlocks"]


@dataclass(slots=True)
class _Table:
    """One table: how it turns, and how many blocks of it there are."""

    rope: Rope
    head_dim: int
    long: bool
    n_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTables:
    """Which tables a layer uses, by number; -1 for none.

    Attributes:
        plain: of conversations of up to `limit` tokens, or of all.
        stretched: of longer ones; -1 where the length changes nothing.
        limit: tokens.
    """

    plain: int = -1
    stretched: int = -1
    limit: int = 0


class RotaryBlocks:
    """The rotary tables of a decoder, those that are alike once. Threads may share it."""

    def __init__(
        self, decoder: Decoder, *, block: int, add: Callable[[int, FloatArray], None]
    ) -> None:
        """Prepare, without work.

        Args:
            decoder: the model.
            block: positions that are computed at once.
            add: told a table's number and its next (block, 2 * pairs) cosines and sines.
        """
        self._block = block
        self._add = add
        self._growing = threading.Lock()
        self._tables: list[_Table] = []
        places: dict[str | None, LayerTables] = {None: LayerTables()}
        for name, (rope, head_dim) in decoder.rotary_tables().items():
            first = len(self._tables)
            self._tables.append(_Table(rope, head_dim, long=False))
            changes = rope.is_long(decoder.context)
            if changes:
                self._tables.append(_Table(rope, head_dim, long=True))
            places[name] = LayerTables(
                plain=first,
                stretched=first + 1 if changes else -1,
                limit=rope.original_context if changes else 0,
            )
        self.layers = [places[decoder.rotary_name(i)] for i in range(len(decoder.layers))]

    @property
    def halves(self) -> list[int]:
        """Pairs of a head that turn, of each table."""
        return [table.rope.rotated(table.head_dim) // 2 for table in self._tables]

    def reach(self, length: int) -> None:
        """Have every position of a conversation of so many tokens, the new ones included."""
        for number, table in enumerate(self._tables):
            if table.long != table.rope.is_long(length):
                continue
            while table.n_blocks * self._block < length:
                self._grow(number, table)

    def _grow(self, number: int, table: _Table) -> None:
        there = table.n_blocks
        start = there * self._block
        cosines, sines = table.rope.tables(
            table.head_dim, start + self._block, long=table.long, start=start
        )
        with self._growing:
            # Another step may have been quicker.
            if table.n_blocks == there:
                self._add(number, np.concatenate([cosines, sines], axis=1))
                table.n_blocks += 1
