"""What blocks on the disk bring back is what every engine would compute: the same answers."""

from pathlib import Path

import numpy as np
from tests.contract.conftest import Pack
from tests.models import VOCAB

from onhand.core.arrays import FloatArray, TokenArray
from onhand.device.engines.base import Engine, Loaded
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.model_blocks import ModelBlocks
from onhand.device.serving.caches.remembered import Remembered

ROW: TokenArray = np.random.default_rng(8).integers(0, VOCAB, 110)


def opened(engine: Engine, pack: Pack, store: BlockStore) -> tuple[Loaded, Remembered]:
    """The model as a new process has it, and what it remembers: nothing."""
    loaded = engine.open(pack(), variant="small", threads=1)
    blocks = ModelBlocks(store=store, way="exact", size=64)
    return loaded, Remembered(loaded, context=128, token_bytes=1, most_bytes=1000, blocks=blocks)


def answered(loaded: Loaded, remembered: Remembered, row: TokenArray) -> tuple[int, FloatArray]:
    """Read a prompt; return how much of it was known, and what is scored after it and a step."""
    session = remembered.take("a", row)
    remembered.restore("a", session, row)
    n_known = session.length
    first = loaded.step([(session, row[n_known:])])[0]
    more = loaded.step([(session, np.array([int(first.argmax())]))])[0]
    remembered.give_back("a", session, np.append(row, first.argmax()))
    return n_known, np.stack([first, more])


def test_a_restart_changes_no_bit(engine: Engine, pack: Pack, tmp_path: Path) -> None:
    """A page from the disk, a part of the next, the last token computed."""
    store = BlockStore(tmp_path, secret=b"s" * 32, most_bytes=2**24)
    first = answered(*opened(engine, pack, store), ROW)
    store.flush()

    second = answered(*opened(engine, pack, store), ROW)
    other = answered(*opened(engine, pack, store), np.append(ROW[:90], ROW[:10]))

    assert [first[0], second[0], other[0]] == [0, ROW.size - 1, 90]
    plain = engine.open(pack(), variant="small", threads=1)
    fresh = plain.score(plain.session(), np.append(ROW[:90], ROW[:10]))[-1]
    if engine.name == "native":  # a token's bits do not depend on what is computed beside it
        np.testing.assert_array_equal(second[1], first[1])
        np.testing.assert_array_equal(other[1][0], fresh)
    np.testing.assert_allclose(second[1], first[1], atol=1e-4)
    np.testing.assert_allclose(other[1][0], fresh, atol=1e-4)
    store.close()
