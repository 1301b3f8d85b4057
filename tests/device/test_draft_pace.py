"""How many tokens to draft: by hand, by brute force, and against worst cases on a fake clock."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.draft_pace import (
    MOST_DRAFTED,
    Acceptance,
    DraftPace,
    StepCosts,
    best_length,
    expected_tokens,
)

# Seconds of a step by rows, as a share of one row's: weights are read once, then sums count.
FLAT = [1, 1.06, 1.11, 1.16, 1.22, 1.3, 1.43, 1.5, 1.64, 1.78, 2.02, 2.26, 2.42, 2.58, 2.74, 2.9]
LINEAR = [float(rows) for rows in range(1, 17)]
curves = st.lists(st.floats(0, 1), min_size=15, max_size=15).map(
    lambda steps: (1 + np.cumsum([0, *steps])).tolist()
)
shares = st.floats(0, 1)


def test_expected_tokens_by_hand() -> None:
    """Half right: one token and a half with one draft, one and three quarters with two."""
    assert [expected_tokens(0.5, n) for n in (0, 1, 2)] == [1, 1.5, 1.75]
    assert expected_tokens(1, 7) == 8


@given(share=shares, step_s=curves)
def test_the_best_length_has_the_highest_rate(share: float, step_s: list[float]) -> None:
    """No other length yields more tokens per second; no draft is made for under 2 %."""
    found = best_length(share, step_s)

    tokens = [expected_tokens(share, n) for n in range(16)]
    rates = [t / s for t, s in zip(tokens, step_s, strict=True)]
    if found:
        assert rates[found] == pytest.approx(max(rates))
        assert rates[found] > 1.019 * rates[0]
    else:
        assert max(rates) <= 1.021 * rates[0]


def test_better_guesses_are_longer_and_dear_steps_shorten_them() -> None:
    """At a flat cost of rows a good guess is long; where rows cost in full there is none."""
    lengths = [best_length(share, FLAT) for share in (0, 0.3, 0.5, 0.7, 0.9, 1)]

    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert lengths[1] >= 1
    assert lengths[-1] >= 8
    assert best_length(0.95, LINEAR) == 0
    assert best_length(1, FLAT, reach=3) == 3


def test_acceptance_follows_what_happens() -> None:
    """It begins at one of two, and older tokens count less."""
    share = Acceptance()
    begun = share.share()
    share.record(0, 40)
    low = share.share()
    for _ in range(40):
        share.record(1, 1)

    assert begun == 0.5
    assert low < 0.05
    assert share.share() > 0.5


@given(samples=st.lists(st.tuples(st.integers(1, 16), st.floats(0.1, 9)), min_size=1, max_size=60))
def test_costs_never_fall_and_none_is_missing(samples: list[tuple[int, float]]) -> None:
    """Whatever was timed, there is a time for every number of rows, once one row was timed."""
    costs = StepCosts()
    for rows, seconds in samples:
        costs.record(rows, seconds)
    found = list(costs.seconds())

    if any(rows == 1 for rows, _ in samples):
        assert len(found) == MOST_DRAFTED + 1
        assert all(a <= b * 1.000001 for a, b in pairwise(found))
    else:
        assert found == []


def test_one_slow_step_does_not_count() -> None:
    """The median stands where something else took the processor for a moment."""
    costs = StepCosts()
    for seconds in (1.0, 1.0, 50.0, 1.0):
        costs.record(1, seconds)
    for seconds in (90.0, 1.4, 1.4):
        costs.record(3, seconds)

    assert costs.seconds()[:3] == pytest.approx([1, 1.2, 1.4])


def test_a_width_is_not_given_up_after_one_slow_step() -> None:
    """The first step of two rows meets cold caches and takes long; drafts go on all the same."""
    pace = DraftPace()
    for _ in range(60):
        pace.step(0, 1, step_s=1.0)
    pace.step(1, 1, step_s=80.0)
    pace.compared(0, 90, 100)

    assert pace.decide(0, is_free=True).why == "pays"
    assert pace.balance_s == -1  # as if each row had taken a step of its own


def test_a_prompt_tells_what_a_row_more_may_cost() -> None:
    """Without any step of several rows, prompts do; a cold one is not believed."""
    known, cold = StepCosts(), StepCosts()
    for costs, prompt_s in ((known, 10.0), (cold, 1000.0)):
        costs.prompt(100, prompt_s)
        costs.record(1, 1.0)

    assert known.seconds()[:2] == pytest.approx([1, 1.1])
    assert cold.seconds()[:2] == pytest.approx([1, 1.25])


def test_old_times_are_forgotten() -> None:
    """What a wider step cost long ago is guessed anew, so that it may be tried again."""
    costs = StepCosts()
    costs.record(1, 1.0)
    for _ in range(3):
        costs.record(2, 9.0)
    before = costs.seconds()[1]
    for _ in range(600):
        costs.record(1, 1.0)

    assert before == 9
    assert costs.seconds()[1] == 1.25
    assert not costs.is_measured(2)


Right = Callable[[int], bool]


def spend(
    pace: DraftPace,
    curve: Sequence[float],
    right: Right,
    *,
    n_tokens: int,
    draft_s: float = 0.0,
    is_free: bool = True,
) -> tuple[float, list[int]]:
    """Generate on a fake clock: `right` says of each token of the text if its guess is right.

    Returns:
        Seconds, where plain decoding takes one for each token; and the lengths of the drafts.
    """
    seconds, done, lengths = 0.0, 0, []
    while done < n_tokens:
        choice = pace.decide(0, most=min(MOST_DRAFTED, n_tokens - done - 1), is_free=is_free)
        n = choice.n_tokens
        n_right = 0
        while n_right < n and right(done + n_right):
            n_right += 1
        step_s = curve[n] + n * draft_s
        seconds += step_s
        pace.step(n, n_right + 1, step_s=step_s)
        if n:
            pace.compared(0, n_right, min(n, n_right + 1))
        elif is_free and choice.why != "nothing":
            pace.compared(0, int(right(done)), 1)
        if choice.why == "trial":
            pace.tried(n_right)
        done += n_right + 1
        lengths.append(n)
    return seconds, lengths


def chance(share: float, seed: int = 0) -> Right:
    table = np.random.default_rng(seed).random(20000) < share
    return lambda place: bool(table[place])


@pytest.mark.parametrize(
    ("share", "least"), [(0.0, 0.97), (0.3, 1.15), (0.5, 1.5), (0.7, 2.0), (0.9, 2.5)]
)
def test_it_wins_what_the_curve_gives(share: float, least: float) -> None:
    """On the cost of rows of the native kernels, from the first token on."""
    seconds, _ = spend(DraftPace(), FLAT, chance(share), n_tokens=2000)

    assert 2000 / seconds >= least


@pytest.mark.parametrize("is_free", [True, False])
@pytest.mark.parametrize("curve", [FLAT, LINEAR], ids=["flat", "linear"])
def test_wrong_guesses_cost_at_most_a_twentieth(curve: list[float], is_free: bool) -> None:
    """Nothing is ever right: at any time the whole takes at most 1 / 0.95 of plain decoding."""
    pace, seconds = DraftPace(), 0.0
    for done in range(100, 3000, 100):
        more, _ = spend(pace, curve, lambda _: False, n_tokens=100, draft_s=0.3, is_free=is_free)
        seconds += more
        assert seconds <= done / 0.95


@given(
    runs=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=30),
    curve=curves,
    is_free=st.booleans(),
)
def test_no_pattern_costs_more_than_its_price(
    runs: list[tuple[int, bool]], curve: list[float], is_free: bool
) -> None:
    """Guesses that turn right and wrong as they like: the bound is kept but for first trials."""
    table = [is_right for n, is_right in runs for _ in range(n)]
    table *= 1 + 1000 // len(table)

    seconds, _ = spend(
        DraftPace(), curve, lambda place: table[place], n_tokens=1000, is_free=is_free
    )

    # A width that was never timed may surprise, once: 4 widths, up to 15 tokens' time for all.
    assert seconds <= 1000 / 0.96 + 15


def test_wins_are_not_gambled_away() -> None:
    """However much was won, a later answer of wrong guesses loses little by itself."""
    pace = DraftPace()
    spend(pace, FLAT, lambda _: True, n_tokens=20000)
    seconds, _ = spend(pace, FLAT, lambda _: False, n_tokens=500)

    assert seconds < 500 / 0.9


def test_it_comes_back_when_guesses_turn_right() -> None:
    """Off while nothing is right, on a little later when it is, for free or by trials."""
    for is_free, late in ((True, 60), (False, 700)):
        pace = DraftPace()
        _, lengths = spend(pace, FLAT, lambda _: False, n_tokens=1000, is_free=is_free)
        seconds, _ = spend(pace, FLAT, lambda _: True, n_tokens=3000, is_free=is_free)

        assert sum(lengths) < 60
        assert seconds < late + 3000 / 4


def test_a_plain_step_is_timed_now_and_then() -> None:
    """However well drafts do, what they are compared with does not grow old."""
    _, lengths = spend(DraftPace(), FLAT, lambda _: True, n_tokens=5000)

    assert 1 < lengths[20:].count(0) <= len(lengths) / 50


def test_what_a_choice_is_for() -> None:
    """Nothing to guess, nothing timed, a draft that pays, and none that does."""
    pace = DraftPace()
    assert pace.decide(None, is_free=True).why == "nothing"
    assert pace.decide(3, most=0, is_free=True).why == "nothing"
    assert pace.decide(3, is_free=True).why == "timing"
    pace.step(0, 1, step_s=1.0)
    assert pace.decide(3, is_free=True).why == "price"
    for _ in range(20):
        pace.step(0, 1, step_s=1.0)
    assert pace.decide(3, is_free=True).why == "pays"
    pace.compared(3, 0, 100)
    assert pace.decide(3, is_free=True).why == "off"
    assert pace.acceptance(3) < 0.01
    assert pace.acceptance(2) == 0.5


def test_a_trial_pays_for_what_has_to_be_read_first() -> None:
    """A draft model that fell behind is not tried where reading would cost too much."""
    pace = DraftPace()
    for _ in range(100):
        pace.step(0, 1, step_s=1.0)
    pace.compared(0, 0, 100)
    trial = pace.decide(0, is_free=False, backlog=100)
    assert trial.why == "trial"
    pace.read(100, 10.0, choice=trial)

    assert pace.balance_s == -10
    assert pace.decide(0, is_free=False, backlog=100).why == "price"
