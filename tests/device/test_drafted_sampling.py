"""Speculative sampling: whatever is drafted, tokens are distributed as the model alone has it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.device.sampling import Distribution, Sampler, Sampling, acceptance, residual

V = 6


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    """Some of V tokens, with probabilities."""
    ids = sorted(draw(st.sets(st.integers(0, V - 1), min_size=1)))
    weights = np.asarray(draw(st.lists(st.integers(1, 50), min_size=len(ids), max_size=len(ids))))
    return np.asarray(ids), weights / weights.sum()


def dense(distribution: Distribution) -> FloatArray:
    row = np.zeros(V)
    row[distribution[0]] = distribution[1]
    return row.astype(np.float32)


@given(target=distributions(), proposal=distributions())
def test_all_outcomes_together_are_the_target(target: Distribution, proposal: Distribution) -> None:
    """Taken drafts and what replaces refused ones sum up to the target, for every token."""
    found = np.zeros(V)
    for token, drafted in zip(*proposal, strict=True):
        taken = acceptance(target, proposal, int(token))
        assert 0 <= taken <= 1
        found[token] += drafted * taken
        if taken < 1:
            found += drafted * (1 - taken) * dense(residual(target, proposal))

    np.testing.assert_allclose(found, dense(target), atol=1e-7)  # float32


@given(target=distributions(), proposal=distributions())
def test_a_refused_token_is_not_drawn_again(target: Distribution, proposal: Distribution) -> None:
    """What replaces it is another token, so a refused draft is seen to be refused."""
    for token in proposal[0]:
        if acceptance(target, proposal, int(token)) < 1:
            assert token not in residual(target, proposal)[0]


def test_the_rule_by_hand() -> None:
    """Three quarters against one are always taken, one against three one time of three."""
    ids = np.asarray([2, 5])
    target, proposal = (ids, np.asarray([0.75, 0.25])), (ids, np.asarray([0.25, 0.75]))

    assert acceptance(target, proposal, 2) == 1
    assert acceptance(target, proposal, 5) == pytest.approx(1 / 3)
    assert acceptance((ids[:1], np.ones(1)), proposal, 5) == 0
    assert residual(target, proposal)[0].tolist() == [2]
    assert residual(target, target) is target


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.3),
        Sampling(temperature=1, top_k=4, min_p=0.05),
        Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.5),
    ],
    ids=["temperature", "top-k, min-p", "top-p, penalty"],
)
def test_drawn_tokens_are_distributed_as_without_drafts(sampling: Sampling) -> None:
    """By chi-square over many draws, with every option on both distributions."""
    random = np.random.default_rng(0)
    logits, guesses = random.normal(size=(2, V)).astype(np.float32)
    ids, probabilities = Sampler(sampling, seen=[1, 4]).distribution(logits)
    n, counts = 4000, np.zeros(V)
    for seed in range(n):
        # A new one each time, because a token that was chosen counts for the penalty of the next.
        sampler = Sampler(replace(sampling, seed=seed), seen=[1, 4])
        proposal = sampler.distribution(guesses)
        drafted = int(random.choice(proposal[0], p=proposal[1]))
        counts[sampler.sample_drafted(logits, drafted, proposal)] += 1

    expected = probabilities * n
    squares = float(((counts[ids] - expected) ** 2 / expected).sum())
    assert counts.sum() == counts[ids].sum()
    assert squares < 22  # 5 degrees of freedom at most: one time in 2000


def test_a_fork_has_seen_the_same_and_tells_nothing_back() -> None:
    """A draft's own choices count for its next, and not for the model's."""
    sampler = Sampler(Sampling(repetition_penalty=100), seen=[0])
    fork = sampler.fork(temperature=0, forbidden=np.asarray([False, False, True]))
    row = np.asarray([5, 4, 4.5], dtype=np.float32)

    assert [fork.sample(row), fork.sample(row)] == [1, 0]
    assert sampler.sample(row) == 2


def test_numbers_given_back_are_drawn_again() -> None:
    """In their order, and then the ones that follow."""
    sampler, other = Sampler(Sampling(seed=4)), Sampler(Sampling(seed=4))
    drawn = [sampler.draw() for _ in range(5)]
    sampler.put_back(drawn[2:])
    expected = [other.draw() for _ in range(9)]

    assert drawn[:2] + [sampler.draw() for _ in range(7)] == expected
