"""Key/value blocks as one model sees them."""

from dataclasses import dataclass

from onhand.core.arrays import TokenArray
from onhand.device.engines.base import Session
from onhand.device.engines.span_session import SpanSession
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.chains import block_tokens

__all__ = ["ModelBlocks", "blocks_of"]


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

    def _start(self, tenant: str, session: SpanSession) -> bytes:
        return self.store.chains.start(tenant, session.span_key + self.way.encode(), self.size)


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
