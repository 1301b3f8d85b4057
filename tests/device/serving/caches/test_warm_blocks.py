"""What was read ahead becomes conversations again, each of its own tenant and model."""

from pathlib import Path

import numpy as np
import pytest
from tests.device.serving.caches.kept_blocks import keep, opened
from tests.device.serving.caches.span_toys import SpanLoaded, SpanToy
from tests.device.test_generate import mixing

from onhand.core.arrays import TokenArray
from onhand.device.engines.base import Session
from onhand.device.serving.caches.model_blocks import ModelBlocks
from onhand.device.serving.caches.remembered import Remembered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def again(folder: Path, *, warm_bytes: int = 2**20, way: str = "") -> ModelBlocks:
    """The store as the next process has it."""
    return ModelBlocks(store=opened(folder, warm_bytes=warm_bytes), way=way, size=64)


def ended(folder: Path, *conversations: list[int], tenant: str = "a") -> None:
    """A process had these conversations, the last one last."""
    store = opened(folder)
    for tokens in conversations:
        keep(store, tokens, tenant=tenant)
    store.close()


def toy() -> SpanToy:
    return SpanToy(10_000)


def remembered(blocks: ModelBlocks, *, most_bytes: int = 10_000) -> Remembered:
    store = Remembered(
        SpanLoaded(mixing, context=10_000),
        context=10_000,
        token_bytes=1,
        most_bytes=most_bytes,
        blocks=blocks,
    )
    store.begin()
    return store


def test_conversations_that_begin_alike_share_it(folder: Path) -> None:
    """The second is a fork of the first, and each remembers its own end."""
    first, second = [*range(150)], [*range(128), *range(500, 540)]
    ended(folder, first, second)
    blocks = again(folder)

    begun = blocks.begun(toy, most_tokens=10_000)

    assert [one.tokens.tolist() for one in begun] == [second, first]
    assert [getattr(one.session, "tokens") for one in begun] == [second, first]  # noqa: B009 (of a toy)
    assert blocks.store.warm.n_bytes == 0
    blocks.store.close()


def test_another_models_conversations_stay_where_they_are(folder: Path) -> None:
    """Its own model may ask for them."""
    ended(folder, [*range(100)])
    blocks = again(folder)

    assert blocks.begun(lambda: SpanToy(10_000, "other"), most_tokens=10_000) == []
    assert blocks.store.warm.n_bytes > 0
    blocks.store.close()


def test_an_engine_without_spans_begins_with_nothing(folder: Path) -> None:
    """Its sessions cannot be loaded in parts."""
    ended(folder, [*range(100)])
    blocks = again(folder)

    class Plain:
        def close(self) -> None:
            """See `Session`."""

    def plain() -> Session:
        return Plain()  # type: ignore[return-value] # all that is asked of it

    assert blocks.begun(plain, most_tokens=10_000) == []
    blocks.store.close()


def test_no_more_is_remembered_than_may_be(folder: Path) -> None:
    """The latest that fit."""
    ended(folder, [*range(100)], [*range(1000, 1300)], [*range(2000, 2080)])
    blocks = again(folder)

    begun = blocks.begun(toy, most_tokens=200)

    assert [one.tokens[0] for one in begun] == [2000, 0]
    blocks.store.close()


def test_a_tenant_goes_on_where_the_process_before_ended(folder: Path) -> None:
    """It alone, and only until its memory is needed."""
    ended(folder, [*range(100)], tenant="a")
    blocks = again(folder)
    store = remembered(blocks)
    row: TokenArray = np.arange(150)

    assert store.n_bytes == 100
    assert store.take("b", row).length == 0
    assert store.take("a", row).length == 100
    assert store.n_bytes == 0
    blocks.store.close()


def test_a_conversation_of_this_process_comes_before_one_of_the_last(folder: Path) -> None:
    """What does not fit beside it goes."""
    ended(folder, [*range(100)])
    blocks = again(folder)
    store = remembered(blocks, most_bytes=120)
    session = toy()
    session.tokens = [*range(1000, 1030)]

    store.give_back("b", session, np.array(session.tokens))

    assert store.n_bytes == 30
    assert store.take("a", np.arange(150)).length == 0
    blocks.store.close()


def test_another_way_to_compute_finds_nothing(folder: Path) -> None:
    """Its bits would be others."""
    ended(folder, [*range(100)])
    blocks = again(folder, way="bf16")
    store = remembered(blocks)

    assert store.take("a", np.arange(150)).length == 0
    blocks.store.close()


def test_a_beginning_that_was_not_read_ahead_gives_no_conversation(folder: Path) -> None:
    """The latest blocks alone fit; what they follow did not."""
    ended(folder, [*range(300)])
    blocks = again(folder, warm_bytes=0)

    assert blocks.begun(toy, most_tokens=10_000) == []
    blocks.store.close()
