"""Blocks on the disk: found by their beginning, and within bounds."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.device.serving.caches.kept_blocks import files, keep, opened, orphans, restored
from tests.device.serving.caches.span_toys import SpanToy

from onhand.device.serving.caches.block_index import ROW_BYTES
from onhand.device.serving.caches.model_blocks import ModelBlocks

LEAST = 16


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of blocks."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "blocks"


def test_a_conversation_outlives_the_process(folder: Path) -> None:
    """All of it, also the end that fills no block."""
    store = opened(folder)
    keep(store, range(220))
    store.close()

    again = opened(folder)

    assert restored(again, range(500)) == 220
    assert again.counts.hits == 1
    assert again.counts.restored_tokens == 220
    again.close()


def test_a_prompt_parts_within_a_block(folder: Path) -> None:
    """The tokens before it parts are found, of the nearest of several."""
    store = opened(folder)
    keep(store, [*range(100), 7, 7, 7])
    keep(store, [*range(110), 8, 8])
    keep(store, [*range(90), 9])

    assert restored(store, range(300)) == 110
    assert restored(store, [*range(95), 1, 1]) == 95
    store.close()


def test_what_memory_knows_is_not_read(folder: Path) -> None:
    """Blocks go on where the session ends; where they know little more, nothing is done."""
    store = opened(folder)
    keep(store, range(220))

    assert restored(store, range(300), known=70) == 220
    assert restored(store, range(300), known=210) == 210
    assert restored(store, range(220), known=220) == 220
    assert store.counts.hits == 1
    assert store.counts.misses == 0
    store.close()


def test_a_block_beyond_the_context_is_left_out(folder: Path) -> None:
    """A smaller session takes the blocks that fit."""
    store = opened(folder)
    keep(store, range(220))
    session = SpanToy(150)

    ModelBlocks(store=store, way="", size=64).restore("a", session, np.arange(149))

    assert session.tokens == list(range(128))
    store.close()


def test_an_end_is_replaced_by_what_it_became(folder: Path) -> None:
    """One file each for the block and its longer end; nothing is there twice."""
    store = opened(folder)
    for n in (90, 100, 128, 128, 150):
        keep(store, range(n))

    assert store.n_blocks == len(files(folder)) == 3
    assert store.counts.written == 5
    keep(store, range(140))  # the beginning of what is there
    assert store.counts.written == 5
    store.close()


def test_the_latest_are_read_before_anybody_asks(folder: Path) -> None:
    """Within their bytes, beginnings first; each is given up when it is used."""
    store = opened(folder)
    keep(store, range(192))
    keep(store, range(1000, 1192))
    sizes = {path.stat().st_size for path in files(folder)}
    store.close()

    again = opened(folder, warm_bytes=2 * (max(sizes) + ROW_BYTES))
    again.flush()
    keep(again, range(5000, 5100))  # the thread has warmed up by then
    held = again.warm.n_bytes
    chains = again.warm.chains(wait_s=10)

    assert [chain.tokens.tolist() for chain in chains] == [list(range(1000, 1128))]
    assert 0 < held <= 2 * max(sizes)
    assert restored(again, range(192)) == 192
    assert again.warm.n_bytes == held
    assert restored(again, range(1000, 1192)) == 192
    assert again.warm.n_bytes == 0
    again.close()


def test_few_tokens_are_not_worth_a_file(folder: Path) -> None:
    """Neither to write nor to read."""
    store = opened(folder)
    keep(store, range(LEAST - 1))
    assert store.n_blocks == 0

    keep(store, range(LEAST))

    assert restored(store, range(LEAST)) == LEAST
    assert restored(store, [*range(LEAST - 1), 99]) == 0
    assert store.counts.misses == 1
    store.close()


Talks = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 200), st.lists(st.integers(0, 1), max_size=80)),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(talks=Talks, asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 280)), max_size=5))
def test_the_longest_beginning_is_found(
    talks: list[tuple[int, int, list[int]]], asked: list[tuple[int, int]]
) -> None:
    """As comparing with every conversation does; each goes on from a part of an earlier one."""
    said: list[list[int]] = [[i % 7 for i in range(200)]]
    for of, n, more in talks:
        said.append(said[of % len(said)][:n] + more)
    with tempfile.TemporaryDirectory() as place:
        store = opened(Path(place))
        for talk in said[1:]:
            keep(store, talk)
        for of, n in asked:
            prompt = said[of % len(said)][:n] + [5] * 20
            expected = max((_shared(_kept(talk), prompt) for talk in said[1:]), default=0)

            assert restored(store, prompt) == (expected if expected >= LEAST else 0)
        store.close()


def _kept(talk: list[int]) -> list[int]:
    end = len(talk) % 64
    return talk if end >= LEAST else talk[: len(talk) - end]


def _shared(some: list[int], others: list[int]) -> int:
    n = min(len(some), len(others))
    return next((i for i in range(n) if some[i] != others[i]), n)


def test_the_longest_unused_goes(folder: Path) -> None:
    """From its end on; what was read last stays."""
    store = opened(folder, most_bytes=6 * 1750)  # a block here takes some 1,700 bytes
    keep(store, range(128))
    keep(store, range(1000, 1128))
    assert restored(store, range(128)) == 128

    keep(store, range(2000, 2192))

    assert restored(store, range(2000, 2192)) == 192
    assert restored(store, range(128)) == 128
    assert restored(store, range(1000, 1128)) == 64
    assert store.counts.evicted == 1
    store.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), max_size=10),
    most=st.integers(0, 9000),
)
def test_the_budget_holds(lengths: list[tuple[int, int]], most: int) -> None:
    """Whatever comes; and no block is without those before it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = opened(folder, most_bytes=most)
        for first, n in lengths:
            keep(store, [first, *range(n)])
            on_disk = sum(path.stat().st_size for path in files(folder))

            assert on_disk + ROW_BYTES * store.n_blocks == store.n_bytes <= most
            assert orphans(folder) == 0
        store.close()
        smaller = opened(folder, most_bytes=most // 2)
        assert smaller.n_bytes <= most // 2
        assert orphans(folder) == 0
        smaller.close()
