"""Answers from common steps: the same tokens, each error to its own request, bounds kept."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.toy_model import ToySession
from tests.device.watched import Gate, WatchedLoaded, alone, prompt, row

from onhand.core.arrays import TokenArray
from onhand.core.errors import ContextOverflow, EngineBusy, EngineError, InputError
from onhand.device.batching import Batcher
from onhand.device.sampling import Sampling
from onhand.device.schedule import Limits

FEW = Limits(max_active=2, max_waiting=1, max_prompt_tokens=16, max_ahead=4)


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 20), st.booleans()), min_size=1, max_size=12
    )
)
def test_answers_are_those_computed_alone(asked: list[tuple[int, int, bool]]) -> None:
    """Read by as many threads as there are requests, in whatever order these run."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=Limits(max_active=3, max_prompt_tokens=16, max_ahead=2))

    def answer(i: int) -> list[int]:
        n_prompt, n, is_drawn = asked[i]
        sampling = Sampling(temperature=float(is_drawn), seed=i)
        request = batcher.submit(
            loaded.session(), prompt(n_prompt, i), max_tokens=n, sampling=sampling
        )
        found = list(request)
        assert request.finish_reason == "length"
        return found

    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(answer, range(len(asked))))
    batcher.close()

    for i, (n_prompt, n, is_drawn) in enumerate(asked):
        sampling = Sampling(temperature=float(is_drawn), seed=i)
        assert found[i] == alone(prompt(n_prompt, i), n, sampling)
    assert all(len(rows) <= 3 for rows in loaded.steps)
    assert batcher.n_requests == 0


def test_a_request_alone_is_computed_by_its_reader() -> None:
    """Token by token as it is asked for, and by no other thread."""
    loaded = WatchedLoaded()
    request = Batcher(loaded).submit(loaded.session(), prompt(5))
    assert loaded.steps == []

    assert list(islice(request, 3)) == alone(prompt(5), 3)

    assert loaded.steps == [[5], [1], [1]]
    assert loaded.threads == {threading.get_ident()}


def test_requests_share_steps() -> None:
    """Both prompts in the first, then a token of each; the longer answer ends by itself."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    first = batcher.submit(loaded.session(), prompt(5, 1), max_tokens=3)
    second = batcher.submit(loaded.session(), prompt(7, 2), max_tokens=5)

    assert list(first) == alone(prompt(5, 1), 3)
    assert list(second) == alone(prompt(7, 2), 5)
    assert loaded.steps == [[5, 7], [1, 1], [1, 1], [1], [1]]


def test_prompts_go_in_pieces_beside_answers() -> None:
    """As many tokens as leave the answer its pace, once it is known."""
    loaded = WatchedLoaded()
    clock = count()  # every step takes one second
    batcher = Batcher(loaded, limits=Limits(max_prompt_tokens=16), clock=lambda: float(next(clock)))
    first = batcher.submit(loaded.session(), prompt(40, 1), max_tokens=9)
    assert next(first) == alone(prompt(40, 1), 1)[0]
    assert loaded.steps == [[16], [16], [8]]

    second = batcher.submit(loaded.session(), prompt(30, 2), max_tokens=2)

    assert list(first) == alone(prompt(40, 1), 9)[1:]
    assert list(second) == alone(prompt(30, 2), 2)
    # 8 tokens while nothing is known of answers; then twice a step's second holds 16 and more.
    assert loaded.steps[3:6] == [[1, 8], [1, 16], [1, 6]]


def test_an_answer_that_nobody_reads_rests() -> None:
    """It runs a little ahead of its reader, and leaves its place to others."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    left = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=50) for i in (1, 2)]
    third = batcher.submit(loaded.session(), prompt(5, 3), max_tokens=30)

    assert list(third) == alone(prompt(5, 3), 30)
    assert sum(map(sum, loaded.steps)) == 5 + 29 + 2 * (5 + 3)
    assert [list(one) for one in left] == [alone(prompt(5, i), 50) for i in (1, 2)]


def test_more_requests_than_may_wait_are_refused() -> None:
    """By number, and not for good."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    gate = Gate(loaded)
    requests = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=2) for i in range(3)]

    with pytest.raises(EngineBusy, match="3 requests are open, of which 2 may run and 1 wait"):
        batcher.submit(loaded.session(), prompt(5))

    gate.open(100)
    assert list(requests[0]) == alone(prompt(5, 0), 2)
    later = batcher.submit(loaded.session(), prompt(5), max_tokens=2)
    assert list(later) == alone(prompt(5), 2)


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        (row(), InputError, "non-empty row"),
        (row(3, 260), InputError, "token 260 is outside the vocabulary of 260"),
        (prompt(21), ContextOverflow, "do not fit a context of 20"),
    ],
)
def test_a_bad_prompt_is_refused_at_once(
    tokens: TokenArray, error: type[InputError], words: str
) -> None:
    """And disturbs nobody."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    other = batcher.submit(loaded.session(), prompt(5), max_tokens=9)
    next(other)

    with pytest.raises(error, match=words):
        batcher.submit(loaded.session(context=20), tokens)

    assert list(other) == alone(prompt(5), 9)[1:]


def test_a_bad_step_fails_for_its_own_request() -> None:
    """A session that its owner closed meanwhile; the others' answers do not change."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    sessions = [loaded.session(), loaded.session()]
    bad, good = (
        batcher.submit(session, prompt(5, i), max_tokens=40) for i, session in enumerate(sessions)
    )
    assert next(bad) == alone(prompt(5, 0), 1)[0]
    sessions[0].close()

    with pytest.raises(InputError, match="a session is closed"):
        list(bad)
    assert bad.finish_reason == "error"
    assert list(bad) == []
    assert list(good) == alone(prompt(5, 1), 40)


def test_a_step_that_fails_ends_all_that_were_in_it() -> None:
    """Their memories cannot be trusted; what comes later can."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    gate = Gate(loaded)
    requests = [batcher.submit(loaded.session(), prompt(5, i)) for i in range(2)]
    gate.wait()

    def fail() -> None:
        raise ZeroDivisionError("a slip")

    loaded.before = fail
    gate.open()

    for request in requests:
        with pytest.raises(EngineError, match="a step failed: a slip") as raised:
            list(request)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
    loaded.before = lambda: None
    later = batcher.submit(loaded.session(), prompt(5), max_tokens=4)
    assert list(later) == alone(prompt(5), 4)


def test_an_interrupted_reader_leaves_the_batcher_usable() -> None:
    """As by Ctrl-C while a token is computed."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    request = batcher.submit(loaded.session(), prompt(5))

    def interrupt() -> None:
        raise KeyboardInterrupt

    loaded.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        next(request)
    loaded.before = lambda: None

    assert request.finish_reason == "error"
    with pytest.raises(EngineError, match="the step was interrupted"):
        next(request)
    later = batcher.submit(loaded.session(), prompt(5), max_tokens=4)
    assert list(later) == alone(prompt(5), 4)


@pytest.mark.parametrize("n_read", [0, 1, 7])
def test_a_closed_request_leaves_a_beginning_in_its_session(n_read: int) -> None:
    """Of prompt and answer, to go on from; and others go on beside it."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    session = loaded.session()
    request = batcher.submit(session, prompt(40, 1))
    other = batcher.submit(loaded.session(), prompt(5, 2), max_tokens=20)
    for _ in range(n_read):
        next(request)

    request.close()
    request.close()

    assert request.finish_reason == "cancelled"
    assert list(request) == []
    whole = [*prompt(40, 1).tolist(), *alone(prompt(40, 1), 60)]
    assert isinstance(session, ToySession)
    remembered = list(session.tokens)
    assert remembered == whole[: len(remembered)]
    assert len(remembered) >= 40 + n_read - 1 or n_read == 0
    assert list(other) == alone(prompt(5, 2), 20)
    end = max(40, len(remembered) + 1)
    later = batcher.submit(session, row(*whole[len(remembered) : end]), max_tokens=3)
    assert list(later) == whole[end : end + 3]


def test_a_request_is_closed_from_another_thread() -> None:
    """Its reader, who waits for a token, is told that there are no more."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    gate = Gate(loaded)
    request, other = (batcher.submit(loaded.session(), prompt(5, i)) for i in range(2))
    with ThreadPoolExecutor(2) as pool:
        gate.wait()
        reader = pool.submit(list, request)
        closing = pool.submit(request.close)
        gate.open()
        closing.result(timeout=60)

        assert reader.result(timeout=60) in ([], alone(prompt(5, 0), 1))
        loaded.before = lambda: None
        gate.open()
        other.close()


def test_one_session_has_one_request() -> None:
    """Until that one ends."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    session = loaded.session()
    first = batcher.submit(session, prompt(5))

    with pytest.raises(InputError, match="the session has a request"):
        batcher.submit(session, prompt(5))

    first.close()
    assert len(list(batcher.submit(session, prompt(5), max_tokens=2))) == 2


@pytest.mark.parametrize("n_requests", [1, 3])
def test_drain_computes_what_is_open(n_requests: int) -> None:
    """To the end, whoever reads; later requests are refused."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    requests = [
        batcher.submit(loaded.session(), prompt(5, i), max_tokens=30) for i in range(n_requests)
    ]

    batcher.drain()

    assert [one.finish_reason for one in requests] == ["length"] * n_requests
    assert [list(one) for one in requests] == [alone(prompt(5, i), 30) for i in range(n_requests)]
    with pytest.raises(InputError, match="the batcher is closed"):
        batcher.submit(loaded.session(), prompt(5))


@pytest.mark.parametrize("n_requests", [0, 1, 3])
def test_close_cancels_what_is_open(n_requests: int) -> None:
    """A step that runs is waited for, and its readers are told."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    requests = [batcher.submit(loaded.session(), prompt(5, i)) for i in range(n_requests)]

    batcher.close()
    batcher.close()

    assert [one.finish_reason for one in requests] == ["cancelled"] * n_requests
    for one in requests:
        list(one)
    n_steps = len(loaded.steps)
    with pytest.raises(InputError, match="the batcher is closed"):
        batcher.submit(loaded.session(), prompt(5))
    assert len(loaded.steps) == n_steps


def test_answers_end_for_their_reasons() -> None:
    """A stop token, the length, and a context that is full."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    tokens = alone(prompt(5), 9)
    stop = next(token for token in tokens[1:] if token != tokens[0])

    stopped = batcher.submit(loaded.session(), prompt(5), stop_ids={stop})
    full = batcher.submit(loaded.session(context=9), prompt(5))

    assert list(stopped) == tokens[: tokens.index(stop) + 1]
    assert stopped.finish_reason == "stop"
    assert list(full) == tokens[:5]
    assert full.finish_reason == "context"
    with pytest.raises(InputError, match="max_tokens is 0"):
        batcher.submit(loaded.session(), prompt(5), max_tokens=0)


def test_a_generator_submits_when_it_is_read() -> None:
    """And closes its request with itself."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded)
    tokens = batcher.generate(loaded.session(), prompt(5))
    assert batcher.n_requests == 0

    assert next(tokens) == alone(prompt(5), 1)[0]
    assert batcher.n_requests == 1

    tokens.close()
    assert batcher.n_requests == 0
