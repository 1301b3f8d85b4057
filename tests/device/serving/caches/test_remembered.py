"""What ended conversations remember: found by its beginning, within bounds, by its owner."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.test_generate import FakeLoaded, mixing
from tests.device.toy_model import ToySession

from onhand.core.arrays import TokenArray
from onhand.device.serving.caches.remembered import Remembered


def remembered(most_bytes: int = 10_000) -> Remembered:
    return Remembered(FakeLoaded(mixing), context=200, token_bytes=10, most_bytes=most_bytes)


def ended(store: Remembered, tenant: str, tokens: TokenArray, *, generation: int = 0) -> ToySession:
    """An answer ended whose session remembers all tokens but the last."""
    session = store.take(tenant, tokens)
    assert isinstance(session, ToySession)
    session.tokens += tokens[session.length : -1].tolist()
    store.give_back(tenant, session, tokens, generation=generation)
    return session


def test_the_next_turn_finds_its_own_session() -> None:
    """The same one, with all that it remembers."""
    store = remembered()
    session = ended(store, "a", np.arange(30))

    found = store.take("a", np.arange(50))

    assert found is session
    assert found.length == 29
    assert store.n_bytes == 0


def test_another_beginning_gets_a_fork() -> None:
    """The first one stays for whoever goes on with it."""
    store = remembered()
    ended(store, "a", np.arange(30))
    other = np.concatenate((np.arange(20), np.arange(100, 110)))

    assert store.take("a", other).length == 20
    assert store.take("a", np.arange(40)).length == 29


def test_the_last_token_is_always_fed() -> None:
    """A prompt that is known in full still needs scores."""
    store = remembered()
    ended(store, "a", np.arange(31))

    assert store.take("a", np.arange(30)).length == 29


def test_attack_other_tenants_find_nothing() -> None:
    """Not even where the texts are the same."""
    store = remembered()
    ended(store, "a", np.arange(30))

    assert store.take("b", np.arange(30)).length == 0


def test_short_beginnings_are_not_kept() -> None:
    """They are computed sooner than found."""
    store = remembered()
    session = ended(store, "a", np.arange(10))

    assert store.n_bytes == 0
    assert session.is_closed


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    """Nor does it drive out what was there."""
    store = remembered(most_bytes=300)
    ended(store, "a", np.arange(30))
    ended(store, "a", np.arange(100, 140))

    assert store.n_bytes == 290
    assert store.take("a", np.arange(40)).length == 29


@given(sizes=st.lists(st.integers(2, 60), max_size=12), most=st.integers(0, 1000))
def test_the_budget_holds(sizes: list[int], most: int) -> None:
    """Whatever comes; and what was dropped is closed."""
    store = remembered(most_bytes=most)
    made = [ended(store, "a", np.arange(i * 100, i * 100 + n)) for i, n in enumerate(sizes)]

    assert store.n_bytes <= most
    assert store.n_bytes == sum(10 * session.length for session in made)
    store.close()
    assert all(session.is_closed for session in made)


@pytest.mark.parametrize("n_shared", [15, 16])
def test_few_shared_tokens_are_not_worth_a_fork(n_shared: int) -> None:
    """From 16 on they are."""
    store = remembered()
    ended(store, "a", np.arange(30))
    other = np.concatenate((np.arange(n_shared), np.arange(100, 110)))

    assert store.take("a", other).length == (n_shared if n_shared > 15 else 0)


def test_what_was_computed_without_what_was_learned_is_kept_apart() -> None:
    """The same tokens, and other memories."""
    kinds: list[bool] = []

    def begin(is_inside: bool) -> ToySession:
        kinds.append(is_inside)
        return ToySession(200)

    store = remembered()
    store.adapt(begin)
    ended(store, "a", np.arange(30), generation=1)
    outside = store.take("a", np.arange(50), is_inside=False)
    store.give_back("a", outside, np.arange(50), generation=1, is_inside=False)

    assert outside.length == 0
    assert store.take("a", np.arange(50), is_inside=True).length == 29
    assert kinds == [True, False]
