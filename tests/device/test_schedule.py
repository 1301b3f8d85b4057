"""What a step carries: every running answer, and a bounded part of the prompts, in their order."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.schedule import LEAST_PROMPT_TOKENS, Limits, Pace, Turn, plan_step

LIMITS = Limits(max_active=4, max_prompt_tokens=100, max_stall=3)
# 20 prompt tokens take as long as two steps of answers alone.
PACE = Pace(answer_step_s=0.010, prompt_token_s=0.001)
ANSWER, RESTS = Turn(1, False), Turn(0, False)

turns = st.lists(
    st.one_of(
        st.just(ANSWER), st.just(RESTS), st.integers(1, 3000).map(lambda n: Turn(n, is_prompt=True))
    ),
    max_size=20,
)
seconds = st.one_of(st.none(), st.floats(0, 10))
paces = st.builds(Pace, answer_step_s=seconds, prompt_token_s=seconds)
limits = st.builds(
    Limits,
    max_active=st.integers(1, 10),
    max_prompt_tokens=st.integers(LEAST_PROMPT_TOKENS, 600),
    max_stall=st.floats(1, 20),
)


def prompt(n: int) -> Turn:
    return Turn(n, is_prompt=True)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], []),
        ([ANSWER, ANSWER], [1, 1]),
        ([RESTS, ANSWER], [0, 1]),
        ([prompt(70)], [70]),
        ([prompt(300)], [100]),
        ([prompt(60), prompt(60)], [60, 40]),
        ([ANSWER, prompt(60)], [1, 20]),
        ([prompt(15), ANSWER, prompt(60)], [15, 1, 5]),
        ([prompt(60), prompt(60), ANSWER], [20, 0, 1]),
        ([ANSWER] * 5, [1, 1, 1, 1, 0]),
        ([RESTS] + [ANSWER] * 4, [0, 1, 1, 1, 1]),
        ([*[prompt(60)] * 4, ANSWER], [60, 40, 0, 0, 0]),
    ],
)
def test_plans_by_hand(asked: list[Turn], expected: list[int]) -> None:
    """Answers first, then prompts as they came; four at a time."""
    assert plan_step(asked, LIMITS, PACE) == expected


@given(asked=turns, limits=limits, pace=paces)
def test_a_plan_keeps_its_bounds_and_its_order(
    asked: list[Turn], limits: Limits, pace: Pace
) -> None:
    """Active answers take one, nobody more than asked; no prompt overtakes another."""
    plan = plan_step(asked, limits, pace)

    wanting = [i for i, turn in enumerate(asked) if turn.n_tokens > 0]
    active, late = wanting[: limits.max_active], wanting[limits.max_active :]
    answers = [i for i in active if not asked[i].is_prompt]
    prompts = [i for i in active if asked[i].is_prompt]
    most = pace.prompt_tokens(limits) if answers else limits.max_prompt_tokens
    assert len(plan) == len(asked)
    assert all(0 <= n <= turn.n_tokens for n, turn in zip(plan, asked, strict=True))
    assert all(plan[i] == 1 for i in answers)
    assert all(plan[i] == 0 for i in late)
    assert sum(plan[i] for i in prompts) == min(most, sum(asked[i].n_tokens for i in prompts))
    cut = [i for i in prompts if plan[i] < asked[i].n_tokens]
    assert all(plan[i] == 0 for i in cut[1:])


@given(
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 30)), min_size=1, max_size=12),
    limits=limits,
    pace=paces,
)
def test_nobody_starves(lengths: list[tuple[int, int]], limits: Limits, pace: Pace) -> None:
    """Prompts end in the order they came, and a running answer is in every step."""
    left = [Turn(n, is_prompt=True) for n, _ in lengths]
    answers = [n for _, n in lengths]
    begun: list[int] = []
    n_steps = 0
    while any(turn.n_tokens for turn in left):
        plan = plan_step(left, limits, pace)
        n_steps += 1
        for i, (turn, n) in enumerate(zip(left, plan, strict=True)):
            assert n == 1 or turn.is_prompt or turn.n_tokens == 0
            if n == 0:
                continue
            if turn.is_prompt and n < turn.n_tokens:
                left[i] = replace(turn, n_tokens=turn.n_tokens - n)
                continue
            if turn.is_prompt:
                begun.append(i)
            answers[i] -= 1
            left[i] = Turn(int(answers[i] > 0), is_prompt=False)

    assert begun == list(range(len(lengths)))
    prompt_steps = sum(-(-n // LEAST_PROMPT_TOKENS) for n, _ in lengths)
    assert n_steps <= prompt_steps + sum(n for _, n in lengths)


@given(limits=limits, pace=paces)
def test_prompts_hold_answers_up_by_the_stated_multiple(limits: Limits, pace: Pace) -> None:
    """As far as was measured; but the least of a prompt is always in."""
    n = pace.prompt_tokens(limits)

    assert LEAST_PROMPT_TOKENS <= n <= limits.max_prompt_tokens
    if pace.answer_step_s is None or pace.prompt_token_s is None:
        assert n == LEAST_PROMPT_TOKENS
    elif n > LEAST_PROMPT_TOKENS:
        step_s = pace.answer_step_s + n * pace.prompt_token_s
        assert step_s <= limits.max_stall * pace.answer_step_s * (1 + 1e-9)


def test_a_pace_is_measured() -> None:
    """From a prompt alone, then beside an answer, then from answers alone."""
    pace = Pace().after(0.2, n_answers=0, n_prompt_tokens=100)
    assert pace == Pace(answer_step_s=None, prompt_token_s=0.002)

    pace = pace.after(0.02, n_answers=1, n_prompt_tokens=8)
    assert pace == Pace(answer_step_s=0.02, prompt_token_s=0.002)

    pace = pace.after(0.01, n_answers=2, n_prompt_tokens=0)
    assert pace.answer_step_s == pytest.approx(0.018)
    pace = pace.after(0.038, n_answers=2, n_prompt_tokens=5)
    assert pace.prompt_token_s == pytest.approx(0.002 + 0.2 * (0.004 - 0.002))


def test_a_pace_follows_an_engine_that_became_faster() -> None:
    """So that what once was slow does not bound prompts for good."""
    pace = Pace(answer_step_s=0.01, prompt_token_s=0.01)
    for _ in range(40):
        n = pace.prompt_tokens(LIMITS)
        pace = pace.after(0.01 + 0.001 * n, n_answers=3, n_prompt_tokens=n)

    assert pace.prompt_tokens(LIMITS) in range(19, 21)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Limits(max_active=0), "max_active is 0"),
        (lambda: Limits(max_waiting=-1), "max_waiting is -1"),
        (lambda: Limits(max_prompt_tokens=7), "max_prompt_tokens is 7"),
        (lambda: Limits(max_stall=0.5), "max_stall is 0.5"),
        (lambda: Limits(max_stall=float("nan")), "max_stall is nan"),
        (lambda: Limits(max_ahead=0), "max_ahead is 0"),
    ],
)
def test_limits_are_checked(make: Callable[[], Limits], words: str) -> None:
    """A limit that would stop everything is refused by name."""
    with pytest.raises(InputError, match=f"limits: {words}, must be"):
        make()
