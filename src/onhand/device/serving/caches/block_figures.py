"""Figures of key/value blocks, for `/metrics`, and opening them from settings."""

from collections.abc import Callable
from pathlib import Path

from onhand.device.serving.caches.block_counts import BlockCounts
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.secret import server_secret
from onhand.device.serving.settings import CacheSettings
from onhand.device.vault.cells import FileSealer
from onhand.device.vault.vault import open_vault

__all__ = ["open_blocks", "show_blocks"]


def open_blocks(settings: CacheSettings, home: Path) -> BlockStore | None:
    """Open the blocks of a state folder.

    Args:
        settings: how much is kept.
        home: the state folder.

    Returns:
        The store; close it. None where none is wanted.

    Raises:
        OnhandError: if the folder or the server's secret cannot be used.
    """
    if not settings.blocks_bytes or not settings.on_disk:
        return None
    vault = open_vault(home)
    # Whoever has the secret can try which texts a block's tags stand for: it is the vault's, too.
    secret = server_secret(home) if vault is None else vault.first_key("prefix")
    return BlockStore(
        home / "cache" / ("blocks" if vault is None else "sealed-blocks"),
        secret=secret,
        sealer=None if vault is None else FileSealer(vault.keys("prefix")),
        most_bytes=settings.blocks_bytes,
        warm_bytes=settings.warm_bytes,
    )


def show_blocks(blocks: BlockStore, metrics: Metrics) -> None:
    """Show what a store keeps and did.

    Args:
        blocks: the store.
        metrics: where.
    """
    gauge = metrics.gauge
    gauge("onhand_blocks_bytes", "Key/value blocks on the disk.", lambda: blocks.n_bytes)
    gauge("onhand_blocks", "Key/value blocks on the disk.", lambda: blocks.n_blocks)
    gauge("onhand_blocks_warm_bytes", "Blocks read ahead.", lambda: blocks.warm.n_bytes)
    gauge("onhand_blocks_waiting", "Conversations to be written.", lambda: blocks.n_waiting)

    def count(name: str, text: str, of: Callable[[BlockCounts], int]) -> None:
        gauge(f"onhand_blocks_{name}", text, lambda: of(blocks.counts))

    count("hits", "Prompts of which blocks were read.", lambda counts: counts.hits)
    count("misses", "Prompts of which nothing was there.", lambda counts: counts.misses)
    count("restored_tokens", "Tokens that were read.", lambda counts: counts.restored_tokens)
    count("written", "Blocks written.", lambda counts: counts.written)
    count("evicted", "Blocks that made room.", lambda counts: counts.evicted)
    count("damaged", "Blocks that were damaged.", lambda counts: counts.damaged)
    count("skipped", "Conversations that were not kept.", lambda counts: counts.skipped)
