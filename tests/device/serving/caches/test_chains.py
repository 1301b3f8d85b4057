"""Names of blocks: the same for the same beginning of the same tenant, and no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.serving.caches.chains import Chains, Link, block_tokens, n_shared

CHAINS = Chains(b"s" * 32)
START = CHAINS.start("a", b"model", 64)


def links(*tokens: int, start: bytes = START) -> list[Link]:
    return list(CHAINS.links(start, np.array(tokens, dtype=np.int64), 64))


def test_a_conversation_is_cut_into_blocks() -> None:
    """The last has what is left; each names the one before."""
    found = links(*range(150))

    assert [(link.begin, link.end) for link in found] == [(0, 64), (64, 128), (128, 150)]
    assert [link.parent for link in found] == [START, found[0].key, found[1].key]
    assert links() == []


def test_a_name_says_the_whole_beginning() -> None:
    """Another first token changes every name; another last one only the last."""
    plain = [link.key for link in links(*range(150))]
    other_first = [link.key for link in links(9, *range(1, 150))]
    other_last = [link.key for link in links(*range(149), 9)]

    assert not set(plain) & set(other_first)
    assert plain[:2] == other_last[:2]
    assert plain[2] != other_last[2]


@pytest.mark.parametrize(
    "other",
    [
        CHAINS.start("b", b"model", 64),
        CHAINS.start("a", b"other", 64),
        Chains(b"t" * 32).start("a", b"model", 64),
        CHAINS.start("am", b"odel", 64),
        CHAINS.start("a", b"model", 128),
    ],
)
def test_attack_other_tenants_have_other_names(other: bytes) -> None:
    """So do other models and servers: nothing of one is ever looked for by another."""
    assert not {link.key for link in links(*range(100))} & {
        link.key for link in links(*range(100), start=other)
    }


@settings(max_examples=40)
@given(
    some=st.lists(st.integers(0, 2), max_size=64),
    others=st.lists(st.integers(0, 2), max_size=64),
)
def test_tags_tell_how_far_blocks_are_alike(some: list[int], others: list[int]) -> None:
    """As far as comparing the tokens themselves does."""
    tags = [CHAINS.tags(START, np.array(row, dtype=np.int64)) for row in (some, others)]
    pairs = zip(some, others, strict=False)
    expected = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(some), len(others)))

    assert n_shared(*tags) == expected


def test_attack_tags_of_other_parents_say_nothing() -> None:
    """The same tokens elsewhere have other tags."""
    row = np.arange(8)

    assert n_shared(CHAINS.tags(START, row), CHAINS.tags(b"x" * 32, row)) == 0


@pytest.mark.parametrize(
    ("token_bytes", "size"), [(1, 1024), (3072, 512), (16383, 128), (16384, 64), (10**6, 64)]
)
def test_blocks_are_of_a_size_that_is_worth_a_file(token_bytes: int, size: int) -> None:
    """About a megabyte, within bounds."""
    assert block_tokens(token_bytes) == size
