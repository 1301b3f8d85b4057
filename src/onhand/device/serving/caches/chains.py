"""Names of key/value blocks: a chain of hashes over the tokens of a conversation.

    key 0 = HMAC(secret, tenant, model);  key i = HMAC(secret, key i-1, tokens of block i)

So a name says what the whole beginning was, whose, and for which model, to whoever has the server's
secret, and nothing to others: not even a guessed text can be tried.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import TokenArray
from onhand.device.serving.secret import derived

__all__ = [
    "LEAST_BLOCK_TOKENS",
    "MOST_BLOCK_TOKENS",
    "Chains",
    "Link",
    "Tags",
    "block_tokens",
    "n_shared",
]

LEAST_BLOCK_TOKENS: Final = 64
"""Tokens of the smallest blocks: a page of the native engine's memory, which a block fills."""

MOST_BLOCK_TOKENS: Final = 1024
"""Tokens of the largest."""

# Of a block, if it has no more tokens than the most: what is smaller takes longer to find and to
# open than to read.
_BLOCK_BYTES: Final = 2**20

Tags = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Link:
    """One block of a chain.

    Attributes:
        key: 32 bytes, its name.
        parent: the name of the block before; the chain's start for the first.
        begin: tokens that come before it.
        tokens: (n,) int64; fewer than a block's in the last one alone.
    """

    key: bytes
    parent: bytes
    begin: int
    tokens: TokenArray

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

    def start(self, tenant: str, model: bytes, size: int) -> bytes:
        """Return the start of a tenant's chains.

        Args:
            tenant: whose.
            model: names all that the bits of a memory depend on.
            size: tokens of its blocks.

        Returns:
            32 bytes.
        """
        name = json.dumps([tenant, model.hex(), size]).encode()
        return hmac.digest(self._keys, name, "sha256")

    def links(self, start: bytes, tokens: TokenArray, size: int) -> Iterator[Link]:
        """Name the blocks of a conversation, each when it is asked for.

        Args:
            start: as of `start`.
            tokens: (T,) int64.
            size: tokens of a block.

        Yields:
            The blocks; the last has fewer tokens where T is no multiple.
        """
        parent = start
        for begin in range(0, tokens.size, size):
            part = tokens[begin : begin + size]
            key = hmac.digest(self._keys, parent + _as_bytes(part), "sha256")
            yield Link(key, parent, begin, part)
            parent = key

    def tags(self, parent: bytes, tokens: TokenArray) -> Tags:
        """Return what tells how far two blocks of one parent begin alike, without their tokens.

        Args:
            parent: the block before.
            tokens: (n,) int64.

        Returns:
            (n,) uint32; number i depends on the first i + 1 tokens.
        """
        running = hashlib.blake2b(parent, key=self._tags, digest_size=4)
        whole = _as_bytes(tokens)
        parts: list[bytes] = []
        for place in range(0, len(whole), 8):
            running.update(whole[place : place + 8])
            parts.append(running.copy().digest())
        return np.frombuffer(b"".join(parts), dtype="<u4")


def block_tokens(token_bytes: int) -> int:
    """Return how many tokens the blocks of a model have.

    Args:
        token_bytes: what the memory of one takes.

    Returns:
        A power of two.
    """
    size = LEAST_BLOCK_TOKENS
    while size * token_bytes < _BLOCK_BYTES and size < MOST_BLOCK_TOKENS:
        size *= 2
    return size


def n_shared(some: Tags, others: Tags) -> int:
    """Return how many tokens two blocks of one parent begin with alike, by their tags."""
    n = min(some.size, others.size)
    differs = np.flatnonzero(some[:n] != others[:n])
    return int(differs[0]) if differs.size else n


def _as_bytes(tokens: TokenArray) -> bytes:
    return np.ascontiguousarray(tokens, dtype="<i8").tobytes()
