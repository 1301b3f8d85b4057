"""One step: what it takes, what it skips, and what it refuses."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.models import LinearTeachable, Naive, Points, three_clouds
from tests.device.learning.trainers import PLAN, Noting, trainer_of

from onhand.core.errors import EngineError, InputError
from onhand.device.learning.base import Taught
from onhand.device.learning.clipping import Clipping
from onhand.device.learning.guards import Guard, why_not_finite
from onhand.device.learning.optimizers import Sgd
from onhand.device.learning.order import Place, take
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.training import Training, take_step


class Poisoned(Points):
    """Points of which some are no numbers."""

    def __init__(self, bad: Sequence[int]) -> None:
        """Spoil some."""
        clouds = three_clouds()
        x = clouds.x.copy()
        x[list(bad)] = np.nan
        super().__init__(x, clouds.labels)


def test_a_step_without_finite_numbers_changes_nothing_and_is_counted() -> None:
    """The others go on; the loss of it is told as none."""
    shown = Noting()
    trainer = trainer_of(Poisoned([7]), replace(PLAN, n_steps=8))
    ended = trainer.run(progress=shown).training

    assert ended.guard.skipped == 1
    assert np.isnan(ended.losses).sum() == 1
    assert all(np.isfinite(value).all() for value in ended.values.values())
    assert shown.notes == [
        f"step {1 + int(np.isnan(ended.losses).argmax())} was skipped: " + ("the loss was nan")
    ]


def test_a_skipped_step_leaves_the_values_as_they_were() -> None:
    """To the bit."""
    training = Training(values=LinearTeachable().start())
    after, stepped = take_step(
        training,
        teachable=LinearTeachable(),
        source=Poisoned(range(60)),
        plan=PLAN,
        method=Naive(),
    )

    assert "loss" in stepped.skipped
    assert (after.step, after.guard.skipped) == (1, 1)
    np.testing.assert_array_equal(after.values["head.weight"], training.values["head.weight"])


def test_too_many_skipped_steps_in_a_row_end_it() -> None:
    """In one sentence that says what to do."""
    with pytest.raises(EngineError, match=r"5 steps in a row.*lower the learning rate"):
        trainer_of(Poisoned(range(60))).run()


def test_a_step_beyond_float32_is_skipped() -> None:
    """A rate that is far too high never reaches the values."""
    unbound = Clipping(norm=None)
    plan = replace(PLAN, optimizer=Sgd(), schedule=Schedule(rate=100), clipping=unbound)
    points = Points(np.full((4, 4), 1e38, np.float32), [0, 1, 2, 0])
    training = Training(values=LinearTeachable().start())
    with np.errstate(all="ignore"):
        after, stepped = take_step(
            training, teachable=LinearTeachable(), source=points, plan=plan, method=Naive()
        )

    assert stepped.skipped
    assert np.isfinite(after.values["head.weight"]).all()


def test_a_guard_counts_rows_anew() -> None:
    """A good step in between begins the row again."""
    guard = Guard(most_in_row=2)
    guard = guard.skip("x").passed().skip("x")

    assert (guard.skipped, guard.in_row) == (2, 1)
    with pytest.raises(EngineError, match="x in 2 steps"):
        guard.skip("x")
    with pytest.raises(InputError, match="1 or more"):
        Guard(most_in_row=0)


def test_what_is_not_finite_is_named() -> None:
    """Loss or gradient; a sum beyond float32 is none."""
    fine = Taught(loss=1.0, outputs={}, gradients={"a": np.full(4, 3e38, np.float32)})

    assert not why_not_finite(fine)
    assert "loss" in why_not_finite(replace(fine, loss=float("inf")))
    bad = {"a": np.array([1, np.nan], np.float32)}
    assert "'a'" in why_not_finite(replace(fine, gradients=bad))


@given(
    n=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 5), more=st.integers(0, 5)
)
def test_every_round_takes_each_example_once(n: int, batch: int, seed: int, more: int) -> None:
    """Those that came meanwhile belong to the next round."""
    place, rounds = Place(), []
    ever: set[int] = set()
    available = n
    for _ in range(2):
        seen: list[int] = []
        while True:
            numbers, place, first = take(place, batch, available=available, seed=seed)
            assert all((number in ever) is not first for number in numbers)
            ever |= set(numbers)
            seen += numbers
            available = n + more
            if place.taken == place.size:
                break
        rounds.append(sorted(seen))

    assert rounds == [list(range(n)), list(range(n + more))]


def test_an_order_without_examples_is_refused() -> None:
    """There is nothing to take."""
    with pytest.raises(InputError, match="0 examples"):
        take(Place(), 4, available=0, seed=0)


@pytest.mark.parametrize(
    "plan", [{"n_steps": 0}, {"batch": 0}, {"accumulate": 0}, {"seed": -1}, {"n_repeats": 0}]
)
def test_plans_that_cannot_be_are_refused(plan: dict[str, int]) -> None:
    """With the value."""
    with pytest.raises(InputError, match="or more"):
        replace(PLAN, **plan)  # type: ignore[arg-type]


def test_the_last_steps_are_averaged() -> None:
    """What is learned is the mean of the values after each of them."""
    plan = replace(PLAN, n_steps=6, n_averaged=3)
    training, seen = Training(values=LinearTeachable().start()), []
    for _ in range(6):
        training, _ = take_step(
            training,
            teachable=LinearTeachable(),
            source=three_clouds(),
            plan=plan,
            method=Naive(),
        )
        seen.append(training.values["head.weight"])
    ended = trainer_of(plan=plan).run().training

    mean = np.mean(seen[3:], axis=0)
    np.testing.assert_allclose(training.learned["head.weight"], mean, atol=1e-6)
    np.testing.assert_array_equal(ended.values["head.weight"], training.learned["head.weight"])


def test_without_an_average_the_last_values_are_learned() -> None:
    """And where a training ends before the steps that would be averaged."""
    training = Training(values=LinearTeachable().start())
    after, _ = take_step(
        training,
        teachable=LinearTeachable(),
        source=three_clouds(),
        plan=replace(PLAN, n_averaged=39),
        method=Naive(),
    )

    assert after.learned is after.values


def test_repeats_begin_where_the_first_one_did() -> None:
    """With other draws, and a rate and an optimizer that begin anew; their mean is learned."""
    plan = replace(PLAN, n_steps=4, n_repeats=3)
    start = LinearTeachable().start()
    training, ends = Training(values=start, begun=start), []
    for number in range(12):
        training, _ = take_step(
            training,
            teachable=LinearTeachable(),
            source=three_clouds(),
            plan=plan,
            method=Naive(),
        )
        assert max(float(training.kept[name][0]) for name in _counts(training)) == number % 4 + 1
        if number % 4 == 3:
            ends.append(training.values["head.weight"])
    ended = trainer_of(plan=plan).run().training

    assert not np.array_equal(ends[0], ends[1])
    np.testing.assert_allclose(training.learned["head.weight"], np.mean(ends, axis=0), atol=1e-6)
    np.testing.assert_array_equal(ended.values["head.weight"], training.learned["head.weight"])
    assert (ended.step, ended.n_means) == (12, 3)


def _counts(training: Training) -> list[str]:
    """Names of what the optimizer counts its steps by."""
    return [name for name in training.kept if name.startswith("steps.")]


@pytest.mark.parametrize("n", [-1, 41])
def test_averages_of_no_steps_of_a_training_are_refused(n: int) -> None:
    """With the number."""
    with pytest.raises(InputError, match=f"{n} steps are averaged"):
        replace(PLAN, n_averaged=n)


def test_accumulated_runs_make_the_step_of_one_large_run() -> None:
    """Each example counts the same, in whichever run it is."""
    large = replace(PLAN, batch=12, n_steps=5)
    parts = replace(large, batch=4, accumulate=3)
    one, three = LinearTeachable(), LinearTeachable()

    whole = trainer_of(three_clouds(20), large, teachable=one).run().training
    split = trainer_of(three_clouds(20), parts, teachable=three).run().training

    assert one.n_runs < three.n_runs
    np.testing.assert_allclose(whole.losses, split.losses, rtol=1e-5)
    for name, value in whole.values.items():
        np.testing.assert_allclose(value, split.values[name], atol=1e-5)
