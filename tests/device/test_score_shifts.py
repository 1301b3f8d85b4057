"""Biases and penalties of what an answer has already: by hand, and in a sampler."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.sampling import Sampler, Sampling
from onhand.device.score_shifts import ScoreShifts

SCORES = np.asarray([1, 2, 3, 4], dtype=np.float32)


def test_shifts_by_hand() -> None:
    """A token said twice pays twice for its number, and once for being there."""
    shifts = ScoreShifts(frequency_penalty=0.5, presence_penalty=0.25, bias=[(0, 10.0), (9, 1.0)])
    for token in (3, 3, 1):
        shifts.chose(token)

    np.testing.assert_array_equal(shifts.added_to(SCORES), [11, 1.25, 3, 2.75])
    np.testing.assert_array_equal(shifts.copy().added_to(SCORES), [11, 1.25, 3, 2.75])
    np.testing.assert_array_equal(SCORES, [1, 2, 3, 4])


def test_what_is_not_asked_for_costs_nothing() -> None:
    """The very scores that were given."""
    shifts = ScoreShifts(frequency_penalty=0, presence_penalty=0, bias=())
    shifts.chose(1)

    assert shifts.is_idle
    assert shifts.added_to(SCORES) is SCORES


@given(frequency=st.floats(0.1, 2), n=st.integers(5, 30))
def test_a_penalty_spreads_what_is_chosen(frequency: float, n: int) -> None:
    """Tokens as likely as each other come in turn: their numbers differ by one at most."""
    sampler = Sampler(Sampling(frequency_penalty=frequency))
    chosen = [sampler.sample(np.zeros(4, dtype=np.float32)) for _ in range(n)]
    counts = np.bincount(chosen, minlength=4)

    assert counts.max() - counts.min() <= 1


def test_the_prompt_pays_nothing() -> None:
    """Penalties count the answer alone; a bias counts from the first token on."""
    sampling = Sampling(presence_penalty=2, logit_bias=((2, 1.5),))
    sampler = Sampler(sampling, seen=[3])

    assert [sampler.sample(SCORES) for _ in range(3)] == [2, 3, 2]
    assert sampler.needs_scores
    assert not Sampler(Sampling()).needs_scores


def test_a_draft_is_judged_by_what_was_said() -> None:
    """Who forks a sampler counts on from there."""
    sampler = Sampler(Sampling(frequency_penalty=2))
    sampler.sample(SCORES)
    forked = sampler.fork(temperature=0, forbidden=None)

    assert forked.sample(SCORES) == 2
    assert sampler.sample(SCORES) == 2


@pytest.mark.parametrize(
    "given_",
    [
        {"frequency_penalty": math.nan},
        {"presence_penalty": math.inf},
        {"logit_bias": ((1, math.nan),)},
        {"logit_bias": ((-1, 1.0),)},
    ],
)
def test_what_is_no_number_is_refused(given_: dict[str, object]) -> None:
    """By its name."""
    with pytest.raises(InputError, match=next(iter(given_))):
        Sampling(**given_)  # type: ignore[arg-type]
