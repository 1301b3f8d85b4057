"""The figures of the routing benchmark, by hand."""

import numpy as np
import pytest
from benchmarks.routing import NOT_REPLAYED, curve_of, quality_at, recovered, replayed
from benchmarks.routing_scores import (
    Questions,
    by_length,
    by_neighbours,
    by_topic,
    by_words,
    learned_logistic,
    word_vectors,
)

from onhand.device.serving.routing.policies import POLICIES

FOUR = Questions(
    ["a", "bb", "ccc", "dddd"],
    ["x", "x", "y", "y"],
    np.array([1.0, 1.0, 0.0, 0.0]),
    np.array([1.0, 0.0, 1.0, 1.0]),
)


def test_a_curve_by_hand() -> None:
    """The lowest score is sent first: the long questions, which the large model gets right."""
    curve = curve_of(FOUR, by_length(FOUR))

    np.testing.assert_allclose(curve, [0.5, 0.75, 1.0, 0.75, 0.75])
    np.testing.assert_allclose(recovered(curve), [0, 1, 2, 1, 1])
    assert quality_at(curve, 0.125) == pytest.approx(0.625)


def test_equal_scores_win_nothing_by_their_order() -> None:
    """All alike is a straight line."""
    np.testing.assert_allclose(
        curve_of(FOUR, np.zeros(4)), [0.5, 0.5625, 0.625, 0.6875, 0.75], atol=1e-12
    )


def test_a_score_is_learned_from_other_questions() -> None:
    """What only the large model gets right about one thing is found about the same thing."""
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    texts = [f"prove {i} theorem" if one else f"spell {i} word" for i, one in enumerate(hard)]
    questions = Questions(
        texts,
        ["proofs" if one else "words" for one in hard],
        np.where(hard, 0.0, 1.0),
        np.ones(400),
    )
    is_seen = np.arange(400) < 200
    seen, judged = questions.part(is_seen), questions.part(~is_seen)

    for score in (by_topic, by_words, by_neighbours):
        found = score(seen, judged)
        hard_ones, easy_ones = found[judged.weak == 0], found[judged.weak == 1]
        assert np.mean(hard_ones[:, None] < easy_ones) > 0.99, score


def test_a_logistic_regression_follows_its_examples() -> None:
    """One word decides."""
    vectors, scale = word_vectors(["yes it is"] * 20 + ["no it is not"] * 20, None)
    weights = learned_logistic(vectors, np.repeat([1.0, 0.0], 20))

    asked, _ = word_vectors(["yes it is", "no it is not"], scale)
    assert (asked @ weights > 0).tolist() == [True, False]


def test_a_replay_holds_what_it_should() -> None:
    """The oracle is best, chance is a half, and both ends are the same for all."""
    rng = np.random.default_rng(1)
    n = 400
    weak = (rng.random(n) < 0.5).astype(float)
    strong = np.maximum(weak, (rng.random(n) < 0.7).astype(float))
    texts = [f"question {i}" for i in range(n)]
    found = replayed(Questions(texts, ["t"] * n, weak, strong), seed=0, most=0)

    policies = found["policies"]
    assert isinstance(policies, dict)
    assert policies["oracle"]["apgr"] > 0.8
    assert policies["random"]["apgr"] == pytest.approx(0.5, abs=0.1)
    for one in policies.values():
        assert one["curve"][0]["recovered"] == pytest.approx(0.0)
        assert one["curve"][-1]["recovered"] == pytest.approx(1.0)
        assert one["apgr_low"] <= one["apgr"] <= one["apgr_high"]
    assert found["questions"] == {"learned_from": 200, "judged": 200}


def test_every_policy_is_replayed_or_its_reason_is_given() -> None:
    """Nothing is left out in silence."""
    assert set(POLICIES) - {"local-only"} <= set(NOT_REPLAYED)
