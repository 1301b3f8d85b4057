"""Parts of a memory saved as bytes: loaded in turn they are the same memory, or an error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.conftest import NAMES, Pack
from tests.contract.test_engine_adapters import make_adapter
from tests.contract.test_engine_states import answer, cut, infinite, longer, nan, nothing
from tests.models import DECODER, VOCAB, varied_decoder

from onhand.core.errors import ContextOverflow, InputError
from onhand.device.engines.base import Engine, KvEngine, KvKind, Loaded
from onhand.device.engines.named import named_engine
from onhand.device.engines.span_session import SpanSession

N = 120  # tokens: more than a page of the native engine, and room for an answer


def remembering(loaded: Loaded, n: int = N, *, context: int | None = None) -> SpanSession:
    """What has read `n` tokens."""
    session = loaded.session(context=context)
    assert isinstance(session, SpanSession)
    if n:
        loaded.step([(session, np.random.default_rng(5).integers(0, VOCAB, n))])
    return session


@pytest.mark.parametrize("ends", [(N,), (64, N), (1, 2, 65, N), (40, 40, N)], ids=repr)
def test_spans_in_turn_are_the_memory(engine: Engine, pack: Pack, ends: tuple[int, ...]) -> None:
    """Wherever it is cut, also for layers that differ: the same bytes, the same answer."""
    loaded = engine.open(pack(varied_decoder()), variant="small", threads=1)
    session, other = remembering(loaded), remembering(loaded, 0)

    for begin, end in zip((0, *ends), ends, strict=False):
        other.load_span(session.save_span(begin, end))

    assert other.length == N
    assert other.save_state() == session.save_state()
    np.testing.assert_array_equal(answer(loaded, other), answer(loaded, session))


def test_spans_of_layers_that_look_at_a_window_are_the_memory(engine: Engine, pack: Pack) -> None:
    """What lies before the window is saved as well: all of it is used again, not a part."""
    near = tuple(
        replace(layer, window=window) for layer, window in zip(DECODER.layers, (5, 70), strict=True)
    )
    decoder = replace(DECODER, layers=near)
    loaded = engine.open(pack(decoder), variant="small", threads=1)
    session, other = remembering(loaded), remembering(loaded, 0)

    for begin, end in ((0, 64), (64, N)):
        other.load_span(session.save_span(begin, end))

    assert other.length == N
    np.testing.assert_array_equal(answer(loaded, other), answer(loaded, session))


def test_a_span_follows_what_was_computed(loaded: Loaded) -> None:
    """A session that has read the beginning goes on with the saved rest; forks are left alone."""
    session, other = remembering(loaded), remembering(loaded)
    other.rewind(70)
    fork = other.fork()
    before = fork.save_state()

    other.load_span(session.save_span(70, N))

    np.testing.assert_array_equal(answer(loaded, other), answer(loaded, session))
    assert fork.save_state() == before


def test_spans_of_another_process_fit(engine: Engine, pack: Pack) -> None:
    """Weights opened again have the same key; bytes may lie anywhere, also in a view."""
    first = engine.open(pack(), variant="small", threads=1)
    again = engine.open(pack(), variant="small", threads=1)
    session, other = remembering(first), remembering(again, 0)

    other.load_span(memoryview(b"x" + session.save_span(0, N))[1:])

    np.testing.assert_array_equal(answer(again, other), answer(first, session))


@pytest.mark.parametrize(("begin", "end"), [(-1, 4), (5, 4), (0, N + 1), (N + 1, N + 1)])
def test_what_is_not_remembered_is_not_saved(loaded: Loaded, begin: int, end: int) -> None:
    """Said with both numbers."""
    with pytest.raises(InputError, match=f"tokens {begin} to {end} are no part of the {N}"):
        remembering(loaded).save_span(begin, end)


@pytest.mark.parametrize("length", [0, 63, 65, N])
def test_a_span_has_one_place(loaded: Loaded, length: int) -> None:
    """Behind other lengths it is refused, and the session is as before."""
    other = remembering(loaded)
    other.rewind(length)
    before = other.save_state()

    with pytest.raises(InputError, match=f"from 64 on cannot follow {length} tokens"):
        other.load_span(remembering(loaded).save_span(64, N))

    assert other.save_state() == before


def test_a_span_that_does_not_fit_is_refused(loaded: Loaded) -> None:
    """A session of a smaller context keeps what it has."""
    small = remembering(loaded, 0, context=100)
    small.load_span(remembering(loaded).save_span(0, 64))

    with pytest.raises(ContextOverflow, match="up to 120, the session's context is 100"):
        small.load_span(remembering(loaded).save_span(64, N))

    assert small.length == 64


def test_spans_of_others_are_refused(
    engine: Engine, loaded: Loaded, pack: Pack, tmp_path: Path
) -> None:
    """Another bundle, variant, engine, adapter or kind of keys and values."""
    plain = next(name for name in NAMES if name != engine.name)
    adapter = make_adapter(tmp_path / "a", DECODER)
    strangers = [
        engine.open(pack(seed=1), variant="small", threads=1),
        engine.open(pack(), variant="int8", threads=1),
        engine.open(pack(), variant="small", threads=1, adapter=adapter),
        named_engine(plain).open(pack(), variant="small", threads=1),
    ]
    if isinstance(engine, KvEngine):
        kinds: tuple[KvKind, ...] = engine.kv_kinds[1:]
        strangers += [engine.open(pack(), variant="small", threads=1, kv=kv) for kv in kinds]
    session = remembering(loaded, 0)

    for stranger in strangers:
        with pytest.raises(InputError, match="another bundle, variant, engine or adapter"):
            session.load_span(remembering(stranger).save_span(0, 64))

    assert session.length == 0


def test_a_kind_of_keys_and_values_comes_back(engine: Engine, pack: Pack) -> None:
    """In int8, scales included."""
    if not isinstance(engine, KvEngine):
        pytest.skip("one kind only")
    loaded = engine.open(pack(varied_decoder()), variant="small", threads=1, kv="int8")
    session, other = remembering(loaded), remembering(loaded, 0)

    for begin, end in ((0, 64), (64, N)):
        other.load_span(session.save_span(begin, end))

    assert other.save_state() == session.save_state()


def other_begin(span: bytes) -> bytes:
    """Another place is claimed."""
    return span[:48] + (1).to_bytes(8, "little") + span[56:]


def other_end(span: bytes) -> bytes:
    """One token more is claimed."""
    return span[:56] + (65).to_bytes(8, "little") + span[64:]


def endless(span: bytes) -> bytes:
    """An impossible number of tokens is claimed."""
    return span[:56] + b"\xff" * 8 + span[64:]


def backwards(span: bytes) -> bytes:
    """It ends before it begins."""
    return span[:48] + (70).to_bytes(8, "little") + span[56:]


@pytest.mark.parametrize(
    "damage", [cut, longer, nan, infinite, nothing, other_begin, other_end, endless, backwards]
)
def test_attack_damaged_spans(loaded: Loaded, damage: Callable[[bytes], bytes]) -> None:
    """Refused in one sentence; the session is as before."""
    session = remembering(loaded, 0)

    with pytest.raises(InputError):
        session.load_span(damage(remembering(loaded).save_span(0, 64)))

    assert session.length == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 63), value=st.integers(0, 255))
def test_attack_any_byte_of_the_head(loaded: Loaded, place: int, value: int) -> None:
    """Whatever is changed before the numbers, the span is refused."""
    span = remembering(loaded, 3).save_span(0, 3)
    damaged = span[:place] + bytes([value]) + span[place + 1 :]
    session = remembering(loaded, 0)

    if damaged == span:
        session.load_span(damaged)
    else:
        with pytest.raises(InputError):
            session.load_span(damaged)


def test_closed_sessions_say_so(loaded: Loaded) -> None:
    """Both ways."""
    session = remembering(loaded)
    span = session.save_span(0, 64)
    session.close()

    with pytest.raises(InputError, match="closed"):
        session.save_span(0, 0)
    with pytest.raises(InputError, match="closed"):
        session.load_span(span)
