"""What every engine promises of sessions and steps."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.models import DECODER, VOCAB

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Rope
from onhand.core.errors import ContextOverflow, InputError
from onhand.device.engines.base import Engine, Loaded, Session
from onhand.device.engines.onnx import OnnxSession
from onhand.device.engines.reference import ReferenceSession
from onhand.host.engines.torch_session import TorchSession


def tokens(*ids: int) -> TokenArray:
    """A row of tokens."""
    return np.array(ids, dtype=np.int64)


def some(n: int, *, seed: int = 1) -> TokenArray:
    """Random tokens."""
    return np.random.default_rng(seed).integers(0, VOCAB, n)


def step(loaded: Loaded, session: Session, row: TokenArray) -> FloatArray:
    """One session, one row: (V,)."""
    logits: FloatArray = loaded.step([(session, row)])[0]
    return logits


def assert_close(found: FloatArray, expected: FloatArray) -> None:
    """Equal but for the order of sums: float32 rounding of a few hundred terms of size 1."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_logits_are_a_row_for_each_session(loaded: Loaded) -> None:
    """Float32, finite, as wide as the vocabulary."""
    session = loaded.session()

    stepped = loaded.step([(session, some(3))])
    scored = loaded.score(session, some(4))

    assert loaded.vocab_size == VOCAB
    assert loaded.context == session.context == DECODER.context
    assert (stepped.dtype, stepped.shape) == (np.dtype(np.float32), (1, VOCAB))
    assert (scored.dtype, scored.shape) == (np.dtype(np.float32), (4, VOCAB))
    assert np.isfinite(stepped).all()
    assert np.isfinite(scored).all()
    assert session.length == 7


def test_one_by_one_equals_all_at_once(loaded: Loaded) -> None:
    """A prompt in one step, in pieces, or token by token: the same answers."""
    row = some(20)
    scored = loaded.score(loaded.session(), row)
    single, pieces = loaded.session(), loaded.session()

    one_by_one = [step(loaded, single, row[t : t + 1]) for t in range(20)]
    in_pieces = [step(loaded, pieces, part) for part in np.split(row, [7, 8, 15])]

    assert_close(np.stack(one_by_one), scored)
    assert_close(np.stack(in_pieces), scored[[6, 7, 14, 19]])
    assert_close(step(loaded, loaded.session(), row), scored[-1])


def test_a_batch_equals_its_rows_alone(loaded: Loaded) -> None:
    """Sessions of different lengths, rows of different lengths."""
    before = [some(n, seed=n) for n in (5, 1, 12)]
    rows = [some(n, seed=n) for n in (2, 9, 1)]
    together, alone = ([loaded.session() for _ in rows] for _ in range(2))
    for first, second, row in zip(together, alone, before, strict=True):
        loaded.step([(first, row)])
        loaded.step([(second, row)])

    batched = loaded.step(list(zip(together, rows, strict=True)))

    for logits, session, row in zip(batched, alone, rows, strict=True):
        assert_close(logits, step(loaded, session, row))
    assert [session.length for session in together] == [7, 10, 13]


def test_rewind_forgets(loaded: Loaded) -> None:
    """Forgotten tokens leave no trace."""
    session, fresh = loaded.session(), loaded.session()
    step(loaded, session, some(6))
    step(loaded, session, some(30, seed=2))
    step(loaded, fresh, some(6))

    session.rewind(6)

    assert session.length == 6
    np.testing.assert_array_equal(
        step(loaded, session, some(4, seed=3)), step(loaded, fresh, some(4, seed=3))
    )


@pytest.mark.parametrize("length", [-1, 7])
def test_a_rewind_to_nowhere_is_refused(loaded: Loaded, length: int) -> None:
    """Only to where the session has been."""
    session = loaded.session()
    step(loaded, session, some(6))

    with pytest.raises(InputError, match="remembers 6 tokens"):
        session.rewind(length)

    assert session.length == 6


def test_a_fork_remembers_and_goes_its_own_way(loaded: Loaded) -> None:
    """What one learns afterwards, the other does not know."""
    session, fresh = loaded.session(), loaded.session()
    step(loaded, session, some(6))
    step(loaded, fresh, some(6))

    fork = session.fork()
    step(loaded, session, tokens(1, 2, 3))

    assert fork.length == 6
    expected = step(loaded, fresh, tokens(9, 8))
    np.testing.assert_array_equal(step(loaded, fork, tokens(9, 8)), expected)
    session.close()
    step(loaded, fork, tokens(7))


def test_the_last_token_fits_and_no_more(loaded: Loaded) -> None:
    """Too much is an error that changes no session of the batch."""
    full, other = loaded.session(context=8), loaded.session(context=8)
    step(loaded, full, some(6))
    step(loaded, other, some(3))

    with pytest.raises(ContextOverflow, match="6 tokens remembered and 3 new ones"):
        loaded.step([(other, some(2)), (full, some(3))])
    with pytest.raises(ContextOverflow):
        loaded.score(full, some(3))

    assert (full.length, other.length, full.context) == (6, 3, 8)
    fresh = loaded.session()
    step(loaded, fresh, some(6))
    assert_close(step(loaded, full, tokens(4, 5)), step(loaded, fresh, tokens(4, 5)))


@pytest.mark.parametrize("context", [0, -3, 129])
def test_a_context_outside_the_models_is_refused(loaded: Loaded, context: int) -> None:
    """From 1 to what the model was made for."""
    with pytest.raises(InputError, match=f"context is {context}, must be 1 to 128"):
        loaded.session(context=context)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (np.array([], dtype=np.int64), "non-empty"),
        (np.array([[1, 2]]), "non-empty row"),
        (np.array([1.0]), "integers, found float64"),
        (np.array([True]), "integers, found bool"),
        (tokens(0, VOCAB), f"token {VOCAB} is outside"),
        (tokens(-1, 0), "token -1 is outside"),
        (np.array([2**63], dtype=np.uint64), "is outside"),
    ],
    ids=["empty", "table", "floats", "booleans", "too high", "negative", "huge"],
)
def test_rows_that_are_no_tokens_are_refused(loaded: Loaded, row: TokenArray, reason: str) -> None:
    """And change nothing, in `step` and in `score`."""
    session, other = loaded.session(), loaded.session()

    with pytest.raises(InputError, match=reason):
        loaded.step([(other, tokens(1)), (session, row)])
    with pytest.raises(InputError, match=reason):
        loaded.score(session, row)

    assert session.length == other.length == 0


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16, np.dtype(">i8")])
def test_any_integers_are_tokens(loaded: Loaded, kind: type) -> None:
    """Whatever their width, byte order or stride."""
    expected = step(loaded, loaded.session(), tokens(5, 6, 7))

    np.testing.assert_array_equal(
        step(loaded, loaded.session(), np.array([5, 6, 7], dtype=kind)), expected
    )
    np.testing.assert_array_equal(
        step(loaded, loaded.session(), np.array([7, 0, 6, 0, 5], dtype=kind)[::-2]), expected
    )


def test_sessions_that_do_not_belong_are_refused(
    engine: Engine, loaded: Loaded, pack: Pack
) -> None:
    """Given twice, closed, of other weights, none at all."""
    session, closed = loaded.session(), loaded.session()
    closed.close()
    foreign = engine.open(pack(), variant="small", threads=1).session()

    for batch in (
        [(session, tokens(1)), (session, tokens(2))],
        [(session, tokens(1)), (closed, tokens(2))],
        [(session, tokens(1)), (foreign, tokens(2))],
        [],
    ):
        with pytest.raises(InputError):
            loaded.step(batch)

    with pytest.raises(InputError):
        loaded.score(closed, tokens(1))
    assert session.length == foreign.length == 0


def test_closing_twice_is_safe_and_final(loaded: Loaded) -> None:
    """A closed session does nothing but close; closed weights score nothing."""
    session, kept = loaded.session(), loaded.session()
    step(loaded, session, tokens(1, 2))
    state = session.save_state()

    session.close()
    session.close()

    with pytest.raises(InputError, match="closed"):
        session.fork()
    with pytest.raises(InputError, match="closed"):
        session.save_state()
    with pytest.raises(InputError, match="closed"):
        session.load_state(state)
    step(loaded, kept, tokens(1))
    loaded.close()
    loaded.close()
    with pytest.raises(InputError, match="closed"):
        loaded.step([(kept, tokens(1))])
    with pytest.raises(InputError, match="closed"):
        loaded.score(kept, tokens(1))
    with pytest.raises(InputError, match="closed"):
        loaded.session()
    kept.close()


def test_a_step_grows_the_memory_where_it_is(engine: Engine, loaded: Loaded) -> None:
    """No step, rewind or load moves or copies the keys and values."""
    if engine.name == "native":
        pytest.skip("its pages lie where no test sees them")
    session = loaded.session()
    before = places(session)

    step(loaded, session, some(9))
    state = session.save_state()
    session.rewind(3)
    step(loaded, session, some(30))
    session.load_state(state)
    step(loaded, session, some(1))

    assert len(before) == 2 * len(DECODER.layers)
    assert places(session) == before


def places(session: Session) -> list[int]:
    """Addresses of the keys and values of our own engines."""
    if isinstance(session, ReferenceSession):
        parts = [part for layer in session.memory for part in (layer.keys, layer.values)]
    elif isinstance(session, TorchSession):
        return [part.data_ptr() for part in (*session.keys, *session.values)]
    else:
        assert isinstance(session, OnnxSession), "name the arrays of the new engine here"
        assert session.memory is not None
        return session.memory.places()
    return [part.ctypes.data for part in parts]


def test_two_threads_share_the_weights(engine: Engine, pack: Pack) -> None:
    """Each with a session of its own, from the first moment on."""
    loaded = engine.open(pack(), variant="small", threads=1)
    rows = [some(40, seed=seed) for seed in (1, 2)]
    calm = engine.open(pack(), variant="small", threads=1)
    expected = [calm.score(calm.session(), row) for row in rows]
    found: dict[int, list[FloatArray]] = {0: [], 1: []}
    start = threading.Barrier(2)

    def work(number: int) -> None:
        start.wait()
        for _ in range(5):
            session = loaded.session(context=64)
            logits = [step(loaded, session, rows[number][t : t + 1]) for t in range(40)]
            found[number].append(np.stack(logits))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in (0, 1):
        assert len(found[number]) == 5
        for logits in found[number]:
            assert_close(logits, expected[number])


def test_tables_made_twice_at_once_live_as_long_as_their_sessions(
    engine: Engine, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One first step begins and ends in the middle of another's: both sessions stay right."""
    calm = engine.open(pack(), variant="small", threads=1)
    expected = calm.score(calm.session(), tokens(1, 2))
    loaded = engine.open(pack(), variant="small", threads=1)
    early, late = loaded.session(), loaded.session()
    waiting, plain = [early], Rope.tables

    def interrupted(
        rope: Rope, head_dim: int, context: int, *, long: bool, start: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        if waiting:
            step(loaded, waiting.pop(), tokens(1))
        return plain(rope, head_dim, context, long=long, start=start)

    monkeypatch.setattr(Rope, "tables", interrupted)
    step(loaded, late, tokens(1))
    # Whatever was freed is written over now.
    kept = [np.full((128, 8), np.nan, dtype=np.float32) for _ in range(100)]

    for session in (early, late):
        assert_close(step(loaded, session, tokens(2)), expected[1])
    assert len(kept) == 100


def test_rotary_tables_outlive_other_sessions(engine: Engine, pack: Pack) -> None:
    """Sessions of many contexts, opened and closed in between, disturb none that lives."""
    decoder = replace(DECODER, context=512)
    loaded = engine.open(pack(decoder), variant="small", threads=1)
    row = some(12)
    expected = loaded.score(loaded.session(), row)
    session = loaded.session(context=16)
    step(loaded, session, row[:1])
    for context in range(17, 60):
        other = loaded.session(context=context)
        step(loaded, other, row[:2])
        other.close()

    assert_close(loaded.score(session, row[1:]), expected[1:])
