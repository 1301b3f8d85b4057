"""Ranks of its own for each session."""

import numpy as np
import pytest
from tests.device.learning.methods.models import LowRankTeachable

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.orthogonal import Orthogonal

OPTIONS = MethodOptions(olora_rank=2, olora_strength=0.5)
TEACHABLE = LowRankTeachable(rank=6)


def learned(
    values: dict[str, FloatArray], orthogonal: Orthogonal, seed: int
) -> dict[str, FloatArray]:
    """Return values after a session that moved everything it may move."""
    rng = np.random.default_rng(seed)
    moved = {
        name: value + rng.standard_normal(value.shape).astype(np.float32)
        for name, value in values.items()
    }
    return orthogonal.hold(values, moved)


def sessions(n: int) -> tuple[Orthogonal, list[dict[str, FloatArray]]]:
    """Return the values after each of some sessions."""
    orthogonal, values, found = Orthogonal(TEACHABLE.lesson, OPTIONS), TEACHABLE.start(), []
    for i in range(n):
        values = orthogonal.begin(values, np.random.default_rng(i))
        values = learned(values, orthogonal, i)
        found.append(values)
    return orthogonal, found


def test_new_rows_start_orthogonal_to_the_earlier_ones_and_do_nothing() -> None:
    """So a session begins where the last one ended."""
    orthogonal, found = sessions(2)
    values = orthogonal.begin(found[-1], np.random.default_rng(9))

    np.testing.assert_allclose(values["q.A"][4:] @ values["q.A"][:4].T, 0, atol=1e-5)
    assert np.abs(values["q.A"][4:]).max() > 0.01
    np.testing.assert_allclose(
        values["q.B"] @ values["q.A"], found[-1]["q.B"][:, :4] @ found[-1]["q.A"][:4], atol=1e-5
    )


def test_what_earlier_sessions_learned_stays_to_the_bit() -> None:
    """Whatever an optimizer does to it: decay and momentum move what has no gradient."""
    _, found = sessions(3)

    np.testing.assert_array_equal(found[2]["q.A"][:2], found[0]["q.A"][:2])
    np.testing.assert_array_equal(found[2]["q.B"][:, :2], found[0]["q.B"][:, :2])
    np.testing.assert_array_equal(found[2]["q.A"][2:4], found[1]["q.A"][2:4])


def test_only_this_sessions_ranks_have_a_gradient() -> None:
    """Clipping by the norm must not see the others."""
    orthogonal, found = sessions(2)
    ones = {name: np.ones_like(value) for name, value in found[-1].items()}
    made = orthogonal.adjust(found[-1], ones)

    assert not made["q.A"][:2].any()
    assert not made["q.A"][4:].any()
    assert (made["q.B"][:, 2:4] == 1).all()
    assert made["q.B"].sum() == 2 * TEACHABLE.n_classes


def test_the_penaltys_gradient_is_that_of_the_penalty() -> None:
    """By central differences in the rows that may move; the penalty is quadratic."""
    orthogonal, found = sessions(2)
    values = found[-1]
    nothing = {name: np.zeros_like(value) for name, value in values.items()}
    gradient = orthogonal.adjust(values, nothing)["q.A"]

    assert np.abs(gradient).max() > 0.1
    for place in [(2, 0), (2, 5), (3, 11)]:
        sides = []
        for step in (0.125, -0.125):
            moved = values["q.A"].copy()
            moved[place] += step
            sides.append(orthogonal.penalty(values | {"q.A": moved}))
        assert (sides[0] - sides[1]) / 0.25 == pytest.approx(float(gradient[place]), rel=1e-3)


def test_the_penalty_makes_rows_orthogonal() -> None:
    """Descending it alone leaves no overlap, whatever the length of the earlier rows."""
    orthogonal, found = sessions(2)
    values = dict(found[-1])
    nothing = {name: np.zeros_like(value) for name, value in values.items()}
    for _ in range(60):
        step = orthogonal.adjust(values, nothing)["q.A"]
        values["q.A"] = values["q.A"] - 0.3 * step

    assert orthogonal.penalty(values) < 1e-6


def test_where_no_ranks_are_left_what_was_learned_is_merged_as_well_as_can_be() -> None:
    """A product of rank 6 in 4 ranks: what is lost is what the singular values say."""
    orthogonal, found = sessions(3)
    before = found[-1]["q.B"].astype(float) @ found[-1]["q.A"].astype(float)
    values = orthogonal.begin(found[-1], np.random.default_rng(9))
    after = values["q.B"].astype(float) @ values["q.A"].astype(float)
    sizes = np.linalg.svd(before, compute_uv=False)

    gap = np.linalg.norm(before - after)
    assert gap == pytest.approx(np.sqrt(np.square(sizes[4:]).sum()), rel=1e-3)
    assert orthogonal.lost == pytest.approx(gap / np.linalg.norm(before), rel=1e-3)
    assert not values["q.B"][:, 4:].any()


def test_a_starting_point_that_does_something_is_merged_too() -> None:
    """An adapter that came with the bundle uses all of its ranks."""
    values = TEACHABLE.start()
    values["q.B"] = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    orthogonal = Orthogonal(TEACHABLE.lesson, OPTIONS)
    made = orthogonal.begin(values, np.random.default_rng(0))

    assert orthogonal.lost > 0
    assert not made["q.B"][:, 4:].any()


def test_another_process_finds_the_same_directions() -> None:
    """They are in the values; only which ranks are taken is kept."""
    orthogonal, found = sessions(2)
    ones = {name: np.ones_like(value) for name, value in found[-1].items()}
    other = Orthogonal(TEACHABLE.lesson, OPTIONS)
    other.load(orthogonal.save())

    for name, gradient in other.adjust(found[-1], ones).items():
        np.testing.assert_array_equal(gradient, orthogonal.adjust(found[-1], ones)[name])


def test_a_rank_too_low_for_two_sessions_is_refused() -> None:
    """It says what to do."""
    with pytest.raises(InputError, match="lower olora_rank, or build with a higher rank"):
        Orthogonal(LowRankTeachable(rank=3).lesson, OPTIONS)


def test_attack_ranks_that_the_lesson_does_not_have() -> None:
    """A damaged state names no other rows."""
    with pytest.raises(InputError, match="taken is 99"):
        Orthogonal(TEACHABLE.lesson, OPTIONS).load({"taken": 99})
