"""Who gets a request: tables, and what holds of any load."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.serving.asks import Ask
from onhand.device.serving.backends.choosing import (
    Candidate,
    affine,
    least_outstanding,
    power_of_two,
    prefix_key,
    ranked,
)
from onhand.device.template import Message

candidates = st.lists(
    st.builds(
        Candidate,
        name=st.uuids().map(str),
        weight=st.floats(0.1, 10),
        n_active=st.integers(0, 20),
        first_s=st.floats(0, 5),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.name,
)


@pytest.mark.parametrize(
    ("loads", "weights", "chosen"),
    [
        ((2, 1, 3), (1, 1, 1), "1"),
        ((2, 1, 3), (1, 1, 4), "2"),
        ((0, 0, 0), (1, 2, 1), "1"),
    ],
)
def test_least_outstanding(loads: tuple[int, ...], weights: tuple[float, ...], chosen: str) -> None:
    """What is open, one more included, by weight."""
    given_ = [
        Candidate(name=str(i), n_active=load, weight=weight)
        for i, (load, weight) in enumerate(zip(loads, weights, strict=True))
    ]

    assert least_outstanding(given_, lambda: 0.5).name == chosen


@settings(max_examples=40)
@given(candidates, st.randoms(use_true_random=False))
def test_the_worst_of_all_is_never_taken(given_: list[Candidate], drawn: random.Random) -> None:
    """Of any two the better one is, so with two or more the one that is worst in all is not."""
    worst = Candidate(name="worst", weight=0.1, n_active=99, first_s=60)

    assert power_of_two([*given_, worst], drawn.random).name != "worst"


def test_power_of_two_spreads_by_weight() -> None:
    """Among equals, three times the weight is about three times the requests."""
    drawn = np.random.default_rng(0)
    counts = {"a": 0, "b": 0, "c": 0}
    for _ in range(4000):
        open_ = [
            Candidate(name=name, weight=weight, n_active=counts[name], first_s=0.1)
            for name, weight in (("a", 1.0), ("b", 1.0), ("c", 3.0))
        ]
        counts[power_of_two(open_, drawn.random).name] += 1

    assert 0.55 < counts["c"] / 4000 < 0.65
    assert abs(counts["a"] - counts["b"]) < 100


@settings(max_examples=40)
@given(candidates, st.binary(max_size=8))
def test_one_that_goes_moves_only_its_own_keys(given_: list[Candidate], key: bytes) -> None:
    """The order of the others stays."""
    order = ranked(key, given_)

    assert ranked(key, given_[::-1]) == order
    assert ranked(key, [one for one in given_ if one is not order[0]]) == order[1:]


def test_keys_spread_by_weight() -> None:
    """Twice the weight, about twice the keys."""
    given_ = [Candidate(name="a"), Candidate(name="b", weight=2)]
    n_first = sum(ranked(str(i).encode(), given_)[0].name == "b" for i in range(3000))

    assert 0.62 < n_first / 3000 < 0.71


@settings(max_examples=40)
@given(candidates, st.binary(max_size=8))
def test_affinity_never_overloads(given_: list[Candidate], key: bytes) -> None:
    """Whoever is chosen has at most a quarter more than its share, and one."""
    chosen = affine(key, given_)
    if chosen is None:
        return
    total = sum(one.n_active for one in given_) + 1
    share = total * chosen.weight / sum(one.weight for one in given_)

    assert chosen.n_active < 1.25 * share + 1


def test_affinity_leaves_one_that_hangs() -> None:
    """The next in its order gets the key until it is well."""
    key = b"a prompt"
    first, second = ranked(key, [Candidate(name="a"), Candidate(name="b")])
    slow = Candidate(name=first.name, first_s=3.0)

    chosen = affine(key, [slow, second])

    assert chosen is second


def test_later_turns_have_the_key_of_the_first() -> None:
    """And another tenant, or another beginning, has another."""
    begin = (Message("system", "be brief"), Message("user", "hello"))
    turn = Ask(tenant="a", prompt=begin)
    later = Ask(
        tenant="a", prompt=(*begin, Message("assistant", "hi"), Message("user", "and now?"))
    )
    others = [
        Ask(tenant="b", prompt=begin),
        Ask(tenant="a", prompt=begin[1:]),
        Ask(tenant="a", prompt="be brief"),
    ]

    assert prefix_key(turn) == prefix_key(later)
    assert len({prefix_key(ask) for ask in [turn, *others]}) == 4
