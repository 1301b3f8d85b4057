"""Training: it learns, it is durable to the step, and it goes on as if nothing had happened."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.learning.models import LinearTeachable, Naive, Points, three_clouds

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError
from onhand.core.progress import Quiet
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.ceilings import (
    GO,
    Ceilings,
    Gauges,
    Permission,
    Spent,
    Watch,
    all_of,
)
from onhand.device.learning.clipping import Clipping
from onhand.device.learning.guards import Guard, why_not_finite
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.kept import Kept, Part
from onhand.device.learning.optimizers import Sgd
from onhand.device.learning.order import Place, take
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.trainer import Trainer, interrupts
from onhand.device.learning.training import Plan, Training, take_step

PLAN = Plan(n_steps=40, batch=8, schedule=Schedule(rate=0.1), seed=3)


class Noting(Quiet):
    """Keeps what it was told."""

    def __init__(self) -> None:
        """Start empty."""
        self.notes: list[str] = []
        self.done = 0.0

    def advance(self, amount: float) -> None:
        """Count."""
        self.done += amount

    def note(self, text: str) -> None:
        """Keep."""
        self.notes.append(text)


class Remembering(Naive):
    """A method with a memory and with chance: what a resumed training must restore."""

    def __init__(self) -> None:
        """Start without a memory."""
        self.memory = np.zeros(0, np.float32)
        self.draws = np.random.default_rng(4)

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Add what is remembered."""
        pull = np.float32(self.memory.sum() * 1e-3)
        return {name: gradient + pull for name, gradient in gradients.items()}

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """Remember a little of what is new, by chance."""
        assert taught is not None
        if first:
            self.memory = np.append(self.memory, np.float32(taught.loss * self.draws.random()))

    def save(self) -> Kept:
        """The memory, and what chance will bring."""
        state = dict(self.draws.bit_generator.state)
        part = Part(len(self.memory), {"memory": self.memory})
        return Kept(facts={"draws": state}, parts={"memory": part})

    def load(self, kept: Kept) -> None:
        """Take it."""
        self.memory = kept.parts["memory"].arrays["memory"]
        self.draws.bit_generator.state = kept.facts["draws"]


class Counting(Naive):
    """A method that does not train: it counts classes."""

    def __init__(self) -> None:
        """Start from nothing."""
        self.seen: list[int] = []
        self.was_first: list[bool] = []

    @property
    def trains(self) -> bool:
        """It does not."""
        return False

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """Count."""
        assert taught is None
        self.seen += batch["labels"].tolist()
        self.was_first.append(first)

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """The counts are the bias."""
        counts = np.bincount(self.seen, minlength=3).astype(np.float32)
        return {**values, "head.bias": counts}


def trainer_of(
    source: Points | None = None,
    plan: Plan = PLAN,
    *,
    teachable: LinearTeachable | None = None,
    method: Method | None = None,
    folder: Path | None = None,
    fingerprint: str = "",
    clock: Callable[[], float] = time.monotonic,
    energy_j: Callable[[], float] | None = None,
) -> Trainer:
    """A trainer of the linear classifier."""
    return Trainer(
        teachable or LinearTeachable(),
        source or three_clouds(),
        plan,
        method=method or Naive(),
        width=3,
        folder=folder,
        fingerprint=fingerprint,
        clock=clock,
        energy_j=energy_j,
    )


def accuracy(values: Values, points: Points) -> float:
    """Share of points that are told right."""
    logits = points.x @ values["head.weight"].T + values["head.bias"]
    return float((logits.argmax(axis=1) == points.labels).mean())


def test_it_learns_what_it_is_taught() -> None:
    """Three clouds, told apart after forty steps."""
    trainer = trainer_of()
    ended = trainer.run()

    assert ended.kind == "done"
    assert ended.training.step == 40
    assert ended.training.losses[-1] < ended.training.losses[0] / 3
    assert accuracy(ended.training.values, three_clouds(seed=9)) > 0.95


@given(cuts=st.lists(st.integers(1, 6), max_size=6), accumulate=st.integers(1, 3))
@settings(max_examples=8)
def test_a_training_that_was_broken_off_ends_as_one_that_was_not(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], accumulate: int
) -> None:
    """Bit for bit: values, losses, optimizer and the method's memory."""
    plan = replace(PLAN, n_steps=15, accumulate=accumulate, batch=5)
    whole = trainer_of(three_clouds(13), plan, method=Remembering())
    expected = whole.run().training
    folder = tmp_path_factory.mktemp("training")

    for n in [*cuts, plan.n_steps]:
        trainer = trainer_of(
            three_clouds(13), plan, method=Remembering(), folder=folder, fingerprint="one"
        )
        left = [n]
        trainer.run(is_interrupted=lambda left=left: left.append(left.pop() - 1) or left[0] < 0)
    found = trainer.training
    assert found.is_ended

    assert (found.step, found.place, found.n_examples) == (
        expected.step,
        expected.place,
        expected.n_examples,
    )
    np.testing.assert_array_equal(found.losses, expected.losses)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(found.values[name], value)
    for name, value in expected.kept.items():
        np.testing.assert_array_equal(found.kept[name], value)


def test_resuming_is_said_and_another_training_begins_anew(tmp_path: Path) -> None:
    """The fingerprint decides."""

    def trainer(fingerprint: str) -> Trainer:
        return trainer_of(folder=tmp_path, fingerprint=fingerprint)

    first = trainer("one")
    first.step()
    same, other = trainer("one"), trainer("two")

    assert (first.is_resumed, same.is_resumed, other.is_resumed) == (False, True, False)
    assert (same.training.step, other.training.step) == (1, 0)
    assert not same.notes
    assert "another training" in other.notes[0]


def test_a_damaged_state_goes_on_from_the_step_before(tmp_path: Path) -> None:
    """And says so."""
    first = trainer_of(folder=tmp_path)
    for _ in range(4):
        first.step()
    (tmp_path / "state-0.bin").write_bytes(b"nothing")

    again = trainer_of(folder=tmp_path)

    assert again.training.step == 3
    assert "damaged" in again.notes[0]


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
    assert shown.notes == [f"step {1 + int(np.isnan(ended.losses).argmax())} was skipped: " + (
        "the loss was nan"
    )]


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
    with pytest.raises(EngineError, match="5 steps in a row.*lower the learning rate"):
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


def test_a_method_that_does_not_train_sees_each_example_once(tmp_path: Path) -> None:
    """And gives what it has learned at the end; resumed after that, nothing is done again."""
    method = Counting()
    ended = trainer_of(method=method, folder=tmp_path).run()

    assert ended.kind == "done"
    assert sorted(method.seen) == sorted(three_clouds().labels.tolist())
    assert all(method.was_first)
    np.testing.assert_array_equal(ended.training.values["head.bias"], [20, 20, 20])
    again = trainer_of(method=Counting(), folder=tmp_path)
    assert again.is_done
    assert again.run().training.values["head.bias"].tolist() == [20, 20, 20]


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
    for available in (n, n + more):
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


def test_it_waits_and_goes_on_and_says_why_once() -> None:
    """A pause of the governor's, a rest without a word."""
    asked = [
        GO,
        Permission("wait", "a request is answered", 0.5),
        Permission("wait", "a request is answered", 0.5),
        Permission("wait", "", 0.25),
        GO,
    ]
    slept: list[float] = []
    shown = Noting()

    ended = trainer_of(plan=replace(PLAN, n_steps=2)).run(
        permit=lambda _: asked.pop(0), sleep=slept.append, progress=shown
    )

    assert ended.kind == "done"
    assert slept == [0.5, 0.5, 0.25]
    assert shown.notes == ["learning waits: a request is answered"]
    assert shown.done == 2


def test_a_ceiling_ends_it_with_all_that_was_learned(tmp_path: Path) -> None:
    """The time of steps counts, over all runs."""
    ticks = iter(range(1000))

    def trainer() -> Trainer:
        return trainer_of(folder=tmp_path, clock=lambda: float(next(ticks)))

    watch = Watch(Ceilings(seconds=3), Gauges(memory_bytes=lambda: 0, battery=lambda: None))
    ended, again = trainer().run(permit=watch), trainer().run(permit=watch)

    assert (ended.kind, ended.why) == ("ceiling", "it took its 3 s")
    assert ended.training.step == again.training.step == 3
    assert again.training.seconds == 3


def test_energy_is_counted_where_somebody_measures() -> None:
    """And is a ceiling."""
    joules = iter(range(0, 1000, 5))
    trainer = trainer_of(energy_j=lambda: float(next(joules)))
    watch = Watch(Ceilings(energy_j=12), Gauges(memory_bytes=lambda: 0, battery=lambda: None))

    ended = trainer.run(permit=watch)

    assert ended.why == "it took its 12 J"
    assert ended.training.energy_j == 15


def gauges(*, held: int = 0, battery: tuple[float, bool | None] | None = None) -> Gauges:
    """What a device would say."""
    return Gauges(memory_bytes=lambda: held, battery=lambda: battery)


def test_a_watch_holds_memory_and_battery() -> None:
    """Memory ends it, a low battery makes it wait unless the device is on mains."""
    spent = Spent()

    assert Watch(Ceilings(memory_bytes=100), gauges(held=101))(spent).kind == "end"
    assert Watch(Ceilings(memory_bytes=100), gauges(held=99))(spent) == GO
    low = Ceilings(battery_percent=30)
    assert Watch(low, gauges(battery=(0.2, False)))(spent).kind == "wait"
    assert Watch(low, gauges(battery=(0.2, None)))(spent).kind == "wait"
    assert Watch(low, gauges(battery=(0.2, True)))(spent) == GO
    assert Watch(low, gauges(battery=(0.4, False)))(spent) == GO
    assert Watch(low, gauges())(spent) == GO


def test_a_share_of_the_time_is_kept_by_resting() -> None:
    """After a second of work at a quarter, three seconds of rest, in pieces."""
    watch = Watch(Ceilings(cpu_share=0.25), gauges())
    spent = Spent(seconds=1.0, last_step_s=1.0)
    rests = [watch(spent) for _ in range(4)]

    assert [one.wait_s for one in rests] == [1.0, 1.0, 1.0, 0.0]
    assert [one.kind for one in rests] == ["wait", "wait", "wait", "go"]
    assert watch(replace(spent, seconds=1.5, last_step_s=0.5)).wait_s == 1.0
    assert Watch(Ceilings(cpu_share=1), gauges())(spent) == GO


def test_several_permits_are_all_asked() -> None:
    """The first that is not given decides."""
    assert all_of([])(Spent()) == GO
    stop = Permission("end", "enough")
    assert all_of([lambda _: GO, lambda _: stop])(Spent()) == stop


@pytest.mark.parametrize(
    "ceilings",
    [
        {"seconds": 0},
        {"memory_bytes": -1},
        {"energy_j": float("inf")},
        {"battery_percent": 101},
        {"cpu_share": 0},
    ],
)
def test_ceilings_that_cannot_be_are_refused(ceilings: dict[str, float]) -> None:
    """With the value."""
    with pytest.raises(InputError, match=next(iter(ceilings))):
        Ceilings(**ceilings)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [{"n_steps": 0}, {"batch": 0}, {"accumulate": 0}, {"seed": -1}])
def test_plans_that_cannot_be_are_refused(plan: dict[str, int]) -> None:
    """With the value."""
    with pytest.raises(InputError, match="or more"):
        replace(PLAN, **plan)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_an_interrupt_ends_it_after_the_step(tmp_path: Path) -> None:
    """The state is kept, and the next run goes on from it."""
    trainer = trainer_of(folder=tmp_path)

    def permit(spent: Spent) -> Permission:
        if trainer.training.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return GO

    before = signal.getsignal(signal.SIGINT)
    with interrupts() as is_interrupted:
        ended = trainer.run(permit=permit, is_interrupted=is_interrupted)

    assert signal.getsignal(signal.SIGINT) is before
    assert ended.kind == "interrupted"
    assert ended.training.step == 3
    assert trainer_of(folder=tmp_path).training.step == 3


def test_learning_imports_no_torch(tmp_path: Path) -> None:
    """Nor anything else that a device need not have: a whole training, in a process of its own."""
    script = """
import sys
from pathlib import Path
from tests.device.learning.bundles import write_bundle
from tests.device.learning.models import Naive, three_clouds
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan
class Latents:
    def __init__(self): self.points = three_clouds()
    def __len__(self): return len(self.points)
    def weight(self, number): return 1.0
    def feeds(self, numbers, *, scale):
        feeds = dict(self.points.feeds(numbers, scale=scale))
        return {"latent": feeds.pop("x"), **feeds}
bundle = write_bundle(Path(sys.argv[1]) / "things")
opened = open_lesson(bundle, threads=1)
folder = Path(sys.argv[1]) / "state"
trainer = Trainer(opened, Latents(), Plan(n_steps=5), method=Naive(), width=3, folder=folder)
ended = trainer.run()
print(ended.training.losses[0] > ended.training.losses[-1])
print(sorted({"torch", "onnx", "scipy", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )

    assert done.stdout.split("\n")[:2] == ["True", "[]"]
