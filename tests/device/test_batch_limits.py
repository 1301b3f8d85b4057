"""Limits that change while answers are computed, and what a batcher says of its work."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.test_schedule import limits, paces, turns
from tests.device.watched import Gate, WatchedLoaded, alone, prompt

from onhand.core.errors import EngineBusy
from onhand.device.batching import Batcher
from onhand.device.schedule import Limits, Pace, Turn, plan_step
from onhand.device.step_log import BatchLoad

MANY = Limits(max_active=4, max_waiting=4, max_ahead=64)
FEW = Limits(max_active=1, max_waiting=7, max_ahead=64)


def test_answers_that_run_go_on_under_a_lower_limit() -> None:
    """None of them stands still; who waits does so until fewer run than may; all end whole."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=MANY)
    gate = Gate(loaded)
    first = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=6 + i) for i in range(3)]
    gate.wait()
    gate.open(2)
    for _ in range(2):
        gate.wait()
    batcher.use_limits(FEW)
    later = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=3) for i in (7, 8)]
    gate.open(100)

    assert [list(one) for one in first] == [alone(prompt(5, i), 6 + i) for i in range(3)]
    assert [list(one) for one in later] == [alone(prompt(5, i), 3) for i in (7, 8)]
    begun = loaded.steps[2:]
    assert begun[0] == [1, 1, 1]
    assert all(5 not in rows or rows == [5] for rows in begun)
    # Three, then two of them, then one; only then the next one's prompt.
    sizes = [len(rows) for rows in begun]
    assert sizes == sorted(sizes, reverse=True)
    batcher.close()


def test_a_higher_limit_lets_those_in_that_wait() -> None:
    """From the next step on."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=FEW)
    gate = Gate(loaded)
    asked = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=4) for i in range(3)]
    gate.wait()
    batcher.use_limits(MANY)
    gate.open(100)

    assert [list(one) for one in asked] == [alone(prompt(5, i), 4) for i in range(3)]
    assert [len(rows) for rows in loaded.steps[:2]] == [1, 3]
    batcher.close()


def test_the_new_limits_count_for_new_requests() -> None:
    """One more than may run and wait is refused, with the numbers of now."""
    loaded = WatchedLoaded()
    batcher = Batcher(loaded, limits=MANY)
    Gate(loaded)
    batcher.use_limits(Limits(max_active=1, max_waiting=0))
    assert batcher.limits.max_waiting == 0
    batcher.submit(loaded.session(), prompt(5), max_tokens=4)

    with pytest.raises(EngineBusy, match="of which 1 may run and 0 wait"):
        batcher.submit(loaded.session(), prompt(5), max_tokens=4)


@given(asked=turns, limits=limits, pace=paces, n_begun=st.integers(0, 20))
def test_begun_answers_are_in_every_step(
    asked: list[Turn], limits: Limits, pace: Pace, n_begun: int
) -> None:
    """As many as had begun, whatever prompts came before them; prompts within the limit alone."""
    plan = plan_step(asked, limits, pace, n_begun=n_begun)
    answers = [n for n, turn in zip(plan, asked, strict=True) if turn == Turn(1, False)]
    n_prompts = sum(n > 0 for n, turn in zip(plan, asked, strict=True) if turn.is_prompt)

    if n_begun > limits.max_active:
        assert answers[:n_begun] == [1] * min(n_begun, len(answers))
        assert sum(answers) <= n_begun
        assert n_prompts == 0 or n_prompts + len(answers) <= limits.max_active
    else:
        assert plan == plan_step(asked, limits, pace)


def test_a_batcher_says_how_fast_it_was() -> None:
    """From token to token, prompts of others included; once each."""
    loaded = WatchedLoaded()
    clock = count()  # every look at the clock takes a second, every step so from begin to end
    batcher = Batcher(loaded, clock=lambda: float(next(clock)))
    assert batcher.load() == BatchLoad()

    assert len(list(batcher.submit(loaded.session(), prompt(5), max_tokens=4))) == 4
    # Two looks for each step.
    assert batcher.load() == BatchLoad(token_s=(2.0, 2.0, 2.0), step_s={1: 1.0})
    assert batcher.load() == BatchLoad()


def test_a_batcher_says_who_runs_and_waits() -> None:
    """As many as may run do; what its reader left to rest is not counted as slow."""
    loaded = WatchedLoaded()
    clock = count()
    limits = Limits(max_active=2, max_ahead=2)
    batcher = Batcher(loaded, limits=limits, clock=lambda: float(next(clock)))
    gate = Gate(loaded)
    asked = [batcher.submit(loaded.session(), prompt(5, i), max_tokens=9) for i in range(3)]
    gate.wait()
    load = batcher.load()
    assert (load.n_active, load.n_waiting) == (2, 1)

    gate.open(1000)
    assert [len(list(one)) for one in asked] == [9, 9, 9]
    assert max(batcher.load().token_s) <= 4
    batcher.close()
