"""How sure an answer is, and what is enough."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.serving.asks import Score
from onhand.device.serving.routing.confidence import (
    MEASURES,
    Judge,
    Judged,
    calibrate,
    confidence,
    threshold_for_share,
)


def score(probability: float, *others: float) -> Score:
    """A token's score."""
    listed = tuple(Score(b"o", math.log(other)) for other in others)
    return Score(b"t", math.log(probability), listed)


def test_by_hand() -> None:
    """Two tokens, of 0.8 and of 0.2."""
    scores = [score(0.8, 0.8, 0.1), score(0.2, 0.5, 0.2)]

    assert confidence(scores, "mean") == pytest.approx(0.4)
    assert confidence(scores, "least") == pytest.approx(0.2)
    assert confidence(scores, "margin") == pytest.approx((0.7 + 0.3) / 2)


def test_length_alone_changes_nothing() -> None:
    """A long answer is not less sure than a short one for its length."""
    for measure in MEASURES:
        short = confidence([score(0.7, 0.7, 0.2)], measure)
        assert confidence([score(0.7, 0.7, 0.2)] * 50, measure) == pytest.approx(short)


probabilities = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40)


@given(given=probabilities, measure=st.sampled_from(MEASURES))
def test_every_measure_is_from_0_to_1(given: list[float], measure: str) -> None:
    """Whatever the scores."""
    scores = [score(one, one, 1e-9) for one in given]

    assert -1e-12 <= confidence(scores, measure) <= 1 + 1e-12  # type: ignore[arg-type]


@given(given=probabilities, threshold=st.floats(0, 1))
def test_a_judge_decides_in_the_end(given: list[float], threshold: float) -> None:
    """Within the window, or with the answer; and never for an answer of no tokens."""
    judge = Judge(threshold=threshold)
    scores = [score(one) for one in given]

    assert judge.verdict(scores, is_end=True) != "open"
    assert judge.verdict(scores * 30, is_end=False) != "open"
    assert judge.verdict([], is_end=True) == "unsure"
    assert judge.verdict([], is_end=False) == "open"


def test_a_judge_waits_for_its_window_unless_it_is_sure_early() -> None:
    """A few tokens say little, unless they say a lot."""
    judge = Judge(threshold=0.5, window_tokens=8, early_tokens=3, early=0.9)

    assert judge.verdict([score(0.7)] * 7, is_end=False) == "open"
    assert judge.verdict([score(0.7)] * 8, is_end=False) == "sure"
    assert judge.verdict([score(0.3)] * 8, is_end=False) == "unsure"
    assert judge.verdict([score(0.95)] * 2, is_end=False) == "open"
    assert judge.verdict([score(0.95)] * 3, is_end=False) == "sure"


def test_a_threshold_for_a_share() -> None:
    """So much of what is like the examples lies below it."""
    confidences = [0.1, 0.2, 0.3, 0.4]

    assert threshold_for_share(confidences, 0.0) == 0.1
    assert threshold_for_share(confidences, 0.5) == 0.3
    assert threshold_for_share(confidences, 1.0) > 0.4


@given(confidences=st.lists(st.floats(0, 1), min_size=1), share=st.floats(0, 1))
def test_no_more_than_the_share_is_sent(confidences: list[float], share: float) -> None:
    """Equal ones are sent together or not at all."""
    threshold = threshold_for_share(confidences, share)
    sent = sum(one < threshold for one in confidences)

    assert sent <= share * len(confidences) + 1e-6


EXAMPLES = [
    Judged(confidence=0.1, local=0, cloud=1),
    Judged(confidence=0.3, local=0, cloud=1),
    Judged(confidence=0.5, local=1, cloud=1),
    Judged(confidence=0.9, local=1, cloud=1),
]


@pytest.mark.parametrize(
    ("kept", "threshold", "share", "quality"),
    [(0.0, 0.1, 0.0, 0.5), (0.5, 0.3, 0.25, 0.75), (1.0, 0.5, 0.5, 1.0)],
)
def test_calibration_by_hand(kept: float, threshold: float, share: float, quality: float) -> None:
    """Both wrong answers are the least sure ones: half of them sent keeps everything."""
    found = calibrate(EXAMPLES, kept=kept)

    assert (found.threshold, found.cloud_share, found.quality) == (threshold, share, quality)


judged = st.builds(
    Judged, confidence=st.floats(0, 1), local=st.integers(0, 1), cloud=st.integers(0, 1)
)


@given(examples=st.lists(judged, min_size=1, max_size=30), kept=st.floats(0, 1))
def test_a_calibration_says_what_its_threshold_does(examples: list[Judged], kept: float) -> None:
    """Replayed on the same examples; where the other is the better one, enough is kept."""
    found = calibrate(examples, kept=kept)
    shown = [one.cloud if one.confidence < found.threshold else one.local for one in examples]
    sent = sum(one.confidence < found.threshold for one in examples)
    local = sum(one.local for one in examples)
    cloud = sum(one.cloud for one in examples)

    assert found.cloud_share == pytest.approx(sent / len(examples))
    assert found.quality == pytest.approx(sum(shown) / len(examples))
    assert sum(shown) >= local + kept * (cloud - local) - 1e-6


def test_nothing_is_calibrated_on_nothing() -> None:
    """Nor to more than everything."""
    with pytest.raises(InputError, match="0 examples"):
        calibrate([], kept=0.5)
    with pytest.raises(InputError, match=r"kept = 1\.5"):
        calibrate(EXAMPLES, kept=1.5)
    with pytest.raises(InputError, match="0 confidences"):
        threshold_for_share([], 0.5)
