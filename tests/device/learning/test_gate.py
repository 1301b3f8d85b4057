"""The gate: nothing that was good may become worse, and every reason is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.learning.gate import (
    Bounds,
    Marks,
    Sight,
    calibration_error,
    gate,
    is_degenerate,
    size_of_change,
)


def marks(n_right: int, n: int, *, loss: float = 1.0, confidence: float = 0.5) -> Marks:
    """Marks of n examples, of which the first are right."""
    return Marks(
        losses=np.full(n, loss, np.float32),
        is_right=np.arange(n) < n_right,
        confidences=np.full(n, confidence, np.float32),
        answers=tuple(i % 3 for i in range(n)),
    )


BEFORE = Sight(old=marks(190, 200), new=marks(2, 10, loss=3.0))
AFTER = Sight(old=marks(190, 200), new=marks(9, 10, loss=0.5))


def test_a_better_candidate_is_accepted() -> None:
    """All it learned is new and nothing is lost; the figures say how much."""
    verdict = gate(BEFORE, AFTER, Bounds(), change=0.5)

    assert (verdict.is_accepted, verdict.reasons) == (True, ())
    assert verdict.figures["new_accuracy_before"] == pytest.approx(0.2)
    assert verdict.figures["new_accuracy"] == pytest.approx(0.9)
    assert verdict.figures["old_lost_points"] == 0


@pytest.mark.parametrize(("n_right", "is_accepted"), [(190, True), (189, True), (188, False)])
def test_old_examples_may_be_lost_up_to_the_bound(n_right: int, is_accepted: bool) -> None:
    """Half a point of 200 examples is one of them."""
    after = Sight(old=marks(n_right, 200), new=AFTER.new)

    verdict = gate(BEFORE, after, Bounds(), change=0.5)

    assert verdict.is_accepted is is_accepted
    assert is_accepted or "lost 1.00 points on 200 old examples" in verdict.reasons[0]


def test_a_stated_loss_bound_is_held() -> None:
    """Texts are rarely right or wrong: their loss can be bounded."""
    after = Sight(old=marks(190, 200, loss=1.2), new=AFTER.new)

    assert gate(BEFORE, after, Bounds(), change=0.5).is_accepted
    verdict = gate(BEFORE, after, Bounds(most_lost_loss=0.1), change=0.5)
    assert "loss on 200 old examples rose by 0.2" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (marks(2, 10, loss=3.0), "it must fall"),
        (marks(2, 10, loss=3.5), "it must fall"),
        (marks(1, 10, loss=2.0), "right on 10.0% of 10 new examples, before on 20.0%"),
    ],
)
def test_new_examples_must_be_better(new: Marks, reason: str) -> None:
    """The same is not better, and a lower loss with fewer right answers is not either."""
    verdict = gate(BEFORE, Sight(old=BEFORE.old, new=new), Bounds(), change=0.5)

    assert not verdict.is_accepted
    assert reason in verdict.reasons[0]


def test_without_examples_nothing_can_be_said() -> None:
    """A candidate that nobody could look at is refused."""
    nothing = Sight()

    verdict = gate(nothing, nothing, Bounds(least_old=5), change=0.5)

    assert verdict.reasons == (
        "0 old examples are held out, 5 are needed",
        "0 new examples are held out, 1 are needed",
    )


def test_a_candidate_that_became_too_sure_is_refused() -> None:
    """It is as often right as before, and says it is certain."""
    before = Sight(old=marks(100, 200, confidence=0.5), new=BEFORE.new)
    after = Sight(old=marks(100, 200, confidence=0.99), new=AFTER.new)

    verdict = gate(before, after, Bounds(), change=0.5)

    assert "calibration error on 200 old examples rose from 0.000 to 0.490" in verdict.reasons[0]
    assert gate(before, after, Bounds(least_calibrated=201), change=0.5).is_accepted


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    """Of losses, probabilities and weights; the report still holds numbers only."""
    for after, change in (
        (Sight(old=AFTER.old, new=marks(9, 10, loss=bad)), 0.5),
        (Sight(old=marks(190, 200, confidence=bad), new=AFTER.new), 0.5),
        (AFTER, bad),
    ):
        verdict = gate(BEFORE, after, Bounds(), change=change)

        assert verdict.reasons == ("a loss, a probability or a weight is not finite",)
        assert np.isfinite(list(verdict.figures.values())).all()


def test_a_change_too_large_is_refused() -> None:
    """However good the figures look."""
    verdict = gate(BEFORE, AFTER, Bounds(most_change=2.0), change=2.5)

    assert verdict.reasons == ("the weights moved by 2.5, at most 2 is safe",)


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        ('{"a": 1}', "sure, I did", "1 of 2 fixed answers are not JSON any more"),
        ("the light is on", "on " * 20, "1 of 2 fixed answers repeat themselves"),
        ("灯已经打开了", "灯" * 30, "1 of 2 fixed answers repeat themselves"),
        ("the light is on", " ", "1 of 2 fixed answers are empty"),
    ],
)
def test_fixed_answers_stay_well_formed(was: str, now: str, reason: str) -> None:
    """What was JSON stays JSON, and nothing gets stuck or silent."""
    before = Sight(old=BEFORE.old, new=BEFORE.new, texts=("fine", was))
    after = Sight(old=AFTER.old, new=AFTER.new, texts=("fine", now))

    assert gate(before, after, Bounds(), change=0.5).reasons == (reason,)
    assert gate(after, after, Bounds(least_gain=0), change=0.5).reasons[0].endswith("must fall")


def test_one_class_for_all_is_refused() -> None:
    """Even where a sloppy bound would let it pass."""
    old = marks(70, 200)
    after = Marks(
        losses=old.losses, is_right=old.is_right, confidences=old.confidences, answers=(1,) * 200
    )

    verdict = gate(
        Sight(old=old, new=BEFORE.new), Sight(old=after, new=AFTER.new), Bounds(), change=0.5
    )

    assert verdict.reasons == ("it gives class 1 for all 200 old examples",)


def test_both_must_be_shown_the_same() -> None:
    """Figures of other examples say nothing."""
    with pytest.raises(InputError, match="200 examples of 'old' before and 10 after"):
        gate(BEFORE, Sight(old=marks(9, 10), new=AFTER.new), Bounds(), change=0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("ok ok ok", False),
        ("a b " * 12, True),
        ("the quick brown fox jumps over the lazy dog and then it sleeps for a while", False),
        ('{"action": "on", "device": "lamp", "room": "kitchen", "level": 3}', False),
        ("哈" * 40, True),
        ("今天天气很好我们一起去公园散步吧然后回家吃饭", False),
    ],
)
def test_what_repeats_itself(text: str, expected: bool) -> None:
    """One short part again and again, in words or in letters."""
    assert is_degenerate(text) is expected


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.9 sure and right every second time, 0.25 sure and right once in four."""
    found = calibration_error(
        Marks(
            losses=np.zeros(8, np.float32),
            is_right=np.array([1, 0, 1, 0, 1, 0, 0, 0], dtype=np.bool_),
            confidences=np.array([0.9] * 4 + [0.25] * 4, np.float32),
        )
    )

    assert found == pytest.approx(0.5 * 0.4 + 0.5 * 0.0, abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50))
def test_calibration_error_is_a_fraction(examples: list[tuple[bool, float]]) -> None:
    """Whatever was answered."""
    right, sure = zip(*examples, strict=True)
    found = calibration_error(
        Marks(
            losses=np.zeros(len(right), np.float32),
            is_right=np.array(right),
            confidences=np.array(sure, np.float32),
        )
    )

    assert 0 <= found <= 1 + 1e-6


def test_size_of_change_by_hand() -> None:
    """A matrix of norm 3 that moved by 4, and a class that was added with norm 3."""
    before = {"w": np.array([[3.0, 0.0]], np.float32)}
    after = {"w": np.array([[3.0, 4.0], [0.0, 3.0]], np.float32)}

    assert size_of_change(before, after) == pytest.approx(5 / 4)
    assert size_of_change(before, before) == 0


@pytest.mark.parametrize(
    "wrong", [{"most_lost_points": -1.0}, {"most_change": 0.0}, {"least_new": -1}]
)
def test_bounds_are_checked(wrong: dict[str, float]) -> None:
    """A slip in them is said where they are given."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Bounds(**wrong)  # type: ignore[arg-type] # wrong on purpose
