"""Key/value blocks as one model sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import ContextOverflow, InputError
from onhand.device.engines.base import Session
from onhand.device.engines.span_session import SpanSession
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.chains import block_tokens
from onhand.device.serving.caches.warm_blocks import WarmChain

__all__ = ["Begun", "ModelBlocks", "blocks_of"]

_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A conversation of an earlier process, remembered before anybody goes on with it.

    Attributes:
        start: of its tenant's chains: who asks finds it by that, and nothing says who it is.
        session: it.
        tokens: (T,) int64, all that it remembers.
    """

    start: bytes
    session: SpanSession
    tokens: TokenArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBlocks:
    """A store as one model sees it: its tenants' chains.

    Attributes:
        store: where blocks are.
        way: how it computes, beside what `SpanSession.span_key` names.
        size: tokens of a block.
    """

    store: BlockStore
    way: str
    size: int

    def restore(self, tenant: str, session: Session, tokens: TokenArray) -> int:
        """Do as `BlockStore.restore`; nothing where the engine saves no spans.

        Args:
            tenant: who asks.
            session: as there.
            tokens: as there.

        Returns:
            As there.
        """
        if not isinstance(session, SpanSession):
            return 0
        return self.store.restore(self._start(tenant, session), session, tokens, size=self.size)

    def keep(self, tenant: str, session: Session, tokens: TokenArray) -> None:
        """Do as `BlockStore.keep`; nothing where the engine saves no spans.

        Args:
            tenant: whose it was.
            session: as there.
            tokens: as there.
        """
        if isinstance(session, SpanSession):
            self.store.keep(self._start(tenant, session), session, tokens, size=self.size)

    def begun(self, new_session: Callable[[], Session], *, most_tokens: int) -> list[Begun]:
        """Remember the latest conversations again, as far as their blocks are in memory.

        Args:
            new_session: makes an empty session.
            most_tokens: of all together, each counted in full.

        Returns:
            They, the latest first; the sessions are the caller's.
        """
        found: list[Begun] = []
        left = most_tokens
        for chain in self.store.warm.chains(wait_s=_WAIT_S):
            tokens = chain.tokens
            if tokens.size > left:
                continue
            session = _begun(chain, found, new_session)
            if session is not None:
                found.append(Begun(chain.start, session, tokens))
                left -= tokens.size
        # They lie in the sessions now, and on the disk.
        for one in found:
            for block in self._links(one):
                self.store.warm.pop(block)
        return found

    def _links(self, begun: Begun) -> list[bytes]:
        links = self.store.chains.links(begun.start, begun.tokens, self.size)
        return [link.key for link in links]

    def is_of(self, begun: Begun, tenant: str) -> bool:
        """Say whether a conversation is a tenant's, and of this model."""
        return begun.start == self._start(tenant, begun.session)

    def _start(self, tenant: str, session: SpanSession) -> bytes:
        return self.store.chains.start(tenant, session.span_key + self.way.encode(), self.size)


def _begun(
    chain: WarmChain, others: Sequence[Begun], new_session: Callable[[], Session]
) -> SpanSession | None:
    """Return a session that remembers a conversation; None where it is another model's."""
    known = {one.start: one for one in others}.get(chain.start)
    session = new_session() if known is None else known.session.fork()
    if not isinstance(session, SpanSession):
        session.close()
        return None
    try:
        if known is not None:
            session.rewind(_shared(known.tokens, chain))
        for block in chain.blocks:
            if block.begin == session.length:
                session.load_span(block.span)
    except (InputError, ContextOverflow):
        session.close()
        return None
    return session


def _shared(tokens: TokenArray, chain: WarmChain) -> int:
    """Return how many tokens of whole blocks a conversation has in common with another."""
    n = 0
    for block in chain.blocks:
        if not np.array_equal(tokens[n : n + block.tokens.size], block.tokens):
            break
        n += block.tokens.size
    return n


def blocks_of(store: BlockStore | None, *, way: str, token_bytes: int) -> ModelBlocks | None:
    """Return a model's blocks.

    Args:
        store: where they are; None for nowhere.
        way: as in `ModelBlocks`.
        token_bytes: what the memory of one token takes.

    Returns:
        The blocks; None where there is no store.
    """
    if store is None:
        return None
    return ModelBlocks(store=store, way=way, size=block_tokens(token_bytes))
