"""Names of key/value blocks: a chain of hashes over the tokens of a conversation.

    key 0 = HMAC(secret, tenant, model);  key i = HMAC(secret, key i-1, tokens of block i)

So a name says what the whole beginning was, whose, and for which model, to whoever has the server's
secret, and nothing to others: not even a guessed text can be tried.
"""

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import TokenArray
from onhand.device.serving.secret import derived

__all__ = ["BLOCK_TOKENS", "Chains", "Link", "Tags", "n_shared"]

BLOCK_TOKENS: Final = 64
"""Tokens of a block: a page of the native engine's memory, so a full block fills one."""

Tags = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Link:
    """One block of a chain.

    Attributes:
        key: 32 bytes, its name.
        parent: the name of the block before; the chain's start for the first.
        number: its place, counted from 0.
        tokens: (n,) int64, n <= `BLOCK_TOKENS`; fewer in the last block alone.
    """

    key: bytes
    parent: bytes
    number: int
    tokens: TokenArray

    @property
    def begin(self) -> int:
        """Tokens that come before it."""
        return self.number * BLOCK_TOKENS

    @property
    def end(self) -> int:
        """Tokens up to its last."""
        return self.begin + self.tokens.size


class Chains:
    """Makes names from a server's secret. May be shared between threads."""

    def __init__(self, secret: bytes) -> None:
        """Derive what it needs.

        Args:
            secret: of `onhand.device.serving.secret.server_secret`.
        """
        self._keys = derived(secret, "names of key/value blocks")
        self._tags = derived(secret, "tags of key/value blocks")

    def start(self, tenant: str, model: bytes) -> bytes:
        """Return the start of a tenant's chains.

        Args:
            tenant: whose.
            model: names all that the bits of a memory depend on.

        Returns:
            32 bytes.
        """
        name = json.dumps([tenant, model.hex()]).encode()
        return hmac.digest(self._keys, name, "sha256")

    def links(self, start: bytes, tokens: TokenArray) -> Iterator[Link]:
        """Name the blocks of a conversation, each when it is asked for.

        Args:
            start: as of `start`.
            tokens: (T,) int64.

        Yields:
            The blocks; the last has fewer tokens where T is no multiple.
        """
        parent = start
        for number, begin in enumerate(range(0, tokens.size, BLOCK_TOKENS)):
            part = tokens[begin : begin + BLOCK_TOKENS]
            key = hmac.digest(self._keys, parent + _as_bytes(part), "sha256")
            yield Link(key, parent, number, part)
            parent = key

    def tags(self, parent: bytes, tokens: TokenArray) -> Tags:
        """Return what tells how far two blocks of one parent begin alike, without their tokens.

        Args:
            parent: the block before.
            tokens: (n,) int64.

        Returns:
            (n,) uint32; number i depends on the first i + 1 tokens.
        """
        running = hmac.new(self._tags, parent, "sha256")
        found = np.empty(tokens.size, dtype="<u4")
        for i, token in enumerate(tokens.tolist()):
            running.update(int(token).to_bytes(8, "little"))
            found[i] = int.from_bytes(running.copy().digest()[:4], "little")
        return found


def n_shared(some: Tags, others: Tags) -> int:
    """Return how many tokens two blocks of one parent begin with alike, by their tags."""
    n = min(some.size, others.size)
    differs = np.flatnonzero(some[:n] != others[:n])
    return int(differs[0]) if differs.size else n


def _as_bytes(tokens: TokenArray) -> bytes:
    return np.ascontiguousarray(tokens, dtype="<i8").tobytes()
