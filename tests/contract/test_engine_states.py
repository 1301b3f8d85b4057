"""A conversation saved as bytes is the same conversation again, or an error; never another."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.conftest import NAMES, Pack
from tests.models import VOCAB, varied_decoder

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import ContextOverflow, InputError
from onhand.core.plugins import ENGINES, load_plugin
from onhand.device.engines.base import Engine, Loaded, Session


def answer(loaded: Loaded, session: Session) -> FloatArray:
    """What a session says to a fixed question."""
    return loaded.step([(session, np.array([3, 1, 4]))])


def told(loaded: Loaded, n: int = 9) -> Session:
    """A session that remembers `n` tokens."""
    row: TokenArray = np.random.default_rng(5).integers(0, VOCAB, n)
    session = loaded.session()
    loaded.step([(session, row)])
    return session


def test_a_state_comes_back(loaded: Loaded) -> None:
    """Into a fresh session, one that remembers more, and one of a smaller context."""
    session = told(loaded)
    state = session.save_state()
    expected = answer(loaded, session)

    for other in (loaded.session(), told(loaded, 40), loaded.session(context=12)):
        other.load_state(state)

        assert other.length == 9
        np.testing.assert_array_equal(answer(loaded, other), expected)


def test_a_state_of_layers_that_differ_comes_back(engine: Engine, pack: Pack) -> None:
    """Each layer's part has a shape of its own; a fork copies them all."""
    loaded = engine.open(pack(varied_decoder()), variant="small", threads=1)
    session = told(loaded)
    state, fork, other = session.save_state(), session.fork(), loaded.session(context=20)
    other.load_state(state)

    expected = answer(loaded, session)

    np.testing.assert_array_equal(answer(loaded, fork), expected)
    np.testing.assert_array_equal(answer(loaded, other), expected)


def test_an_empty_state_comes_back(loaded: Loaded) -> None:
    """Nothing remembered is a state too."""
    session = told(loaded)

    session.load_state(loaded.session().save_state())

    assert session.length == 0
    np.testing.assert_array_equal(answer(loaded, session), answer(loaded, loaded.session()))


def test_saving_and_loading_give_the_same_bytes(loaded: Loaded) -> None:
    """The state says all that the session knows, and later steps do not change it."""
    session = told(loaded)
    state = session.save_state()
    answer(loaded, session)
    other = loaded.session()

    other.load_state(state)

    assert other.save_state() == state


def test_a_state_that_does_not_fit_is_refused(loaded: Loaded) -> None:
    """A session of a smaller context keeps what it has."""
    small = loaded.session(context=8)
    loaded.step([(small, np.array([1, 2]))])

    with pytest.raises(ContextOverflow, match="9 tokens, the session's context is 8"):
        small.load_state(told(loaded).save_state())

    assert small.length == 2


def test_states_of_others_are_refused(engine: Engine, loaded: Loaded, pack: Pack) -> None:
    """Another bundle, variant or engine: the same shapes, other numbers."""
    other_name = next(name for name in NAMES if name != engine.name)
    other: Callable[[], Engine] = load_plugin(ENGINES, other_name)  # type: ignore[assignment] # a class from outside
    strangers = [
        engine.open(pack(seed=1), variant="small", threads=1),
        engine.open(pack(), variant="int8", threads=1),
        other().open(pack(), variant="small", threads=1),
    ]
    session = told(loaded)
    expected = session.save_state()

    for stranger in strangers:
        with pytest.raises(InputError, match="another bundle, variant, engine or adapter"):
            session.load_state(told(stranger).save_state())

    assert session.save_state() == expected
    again = engine.open(pack(), variant="small", threads=1)
    again.session().load_state(expected)


def cut(state: bytes) -> bytes:
    """The last byte is missing."""
    return state[:-1]


def longer(state: bytes) -> bytes:
    """A byte too many."""
    return state + b"\0"


def nan(state: bytes) -> bytes:
    """The last number is none."""
    return state[:-4] + np.array([np.nan], dtype="<f4").tobytes()


def infinite(state: bytes) -> bytes:
    """The last number is beyond all."""
    return state[:-4] + np.array([np.inf], dtype="<f4").tobytes()


def lying(state: bytes) -> bytes:
    """Another length is claimed."""
    place = state.index((9).to_bytes(8, "little"))
    return state[:place] + (10).to_bytes(8, "little") + state[place + 8 :]


def endless(state: bytes) -> bytes:
    """An impossible length is claimed."""
    place = state.index((9).to_bytes(8, "little"))
    return state[:place] + b"\xff" * 8 + state[place + 8 :]


def other_format(state: bytes) -> bytes:
    """The first byte is another."""
    return b"X" + state[1:]


def nothing(state: bytes) -> bytes:
    """No bytes at all."""
    return state[:0]


DAMAGES = [cut, longer, nan, infinite, lying, endless, other_format, nothing]


@pytest.mark.parametrize("damage", DAMAGES)
def test_attack_damaged_state(loaded: Loaded, damage: Callable[[bytes], bytes]) -> None:
    """Refused in one sentence; the session is as before."""
    session = told(loaded)
    state = session.save_state()

    with pytest.raises(InputError):
        session.load_state(damage(state))

    assert session.save_state() == state


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 49), value=st.integers(0, 255))
def test_attack_any_byte_of_the_head(loaded: Loaded, place: int, value: int) -> None:
    """Whatever is changed before the numbers, the state is refused."""
    state = told(loaded, 2).save_state()
    damaged = state[:place] + bytes([value]) + state[place + 1 :]
    session = loaded.session()

    if damaged == state:
        session.load_state(damaged)
    else:
        with pytest.raises(InputError):
            session.load_state(damaged)
