"""What tests of blocks share: a store, conversations that ended, and what is found again."""

import sqlite3
from pathlib import Path

import numpy as np
from tests.device.serving.caches.span_toys import SpanToy

from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.model_blocks import ModelBlocks

__all__ = ["SECRET", "files", "keep", "opened", "orphans", "restored"]

SECRET = b"s" * 32


def opened(folder: Path, **given: object) -> BlockStore:
    settings: dict[str, object] = {"secret": SECRET, "most_bytes": 2**20, **given}
    return BlockStore(folder, **settings)  # type: ignore[arg-type] # as given


def keep(store: BlockStore, tokens: list[int] | range, *, tenant: str = "a", way: str = "") -> None:
    """A conversation ended that remembers these tokens; wait until it is written."""
    session = SpanToy(10_000)
    session.tokens = list(tokens)
    ModelBlocks(store=store, way=way, size=64).keep(
        tenant, session, np.array(session.tokens, dtype=np.int64)
    )
    store.flush()


def restored(
    store: BlockStore,
    tokens: list[int] | range,
    *,
    tenant: str = "a",
    way: str = "",
    known: int = 0,
) -> int:
    """How many tokens a session knows that knew some; they are the right ones."""
    session = SpanToy(10_000)
    session.tokens = list(tokens[:known])
    row = np.array(tokens, dtype=np.int64)
    gained = ModelBlocks(store=store, way=way, size=64).restore(tenant, session, row)
    store.flush()
    assert session.tokens == list(tokens[: session.length])
    assert gained == session.length - known
    return session.length


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".block")


def orphans(folder: Path) -> int:
    with sqlite3.connect(folder / "index.sqlite") as rows:
        asked = (
            "SELECT count(*) FROM blocks WHERE place > 0 AND parent NOT IN (SELECT key FROM blocks)"
        )
        found = int(rows.execute(asked).fetchone()[0])
    rows.close()
    return found
