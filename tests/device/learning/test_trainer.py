"""Training: it learns, it is durable to the step, and it goes on as if nothing had happened."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.learning.models import Naive, Points, three_clouds
from tests.device.learning.trainers import PLAN, Noting, trainer_of

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.ceilings import GO, Ceilings, Gauges, Permission, Spent, Watch
from onhand.device.learning.methods.kept import Kept, Part
from onhand.device.learning.trainer import Trainer, interrupts


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
        state = kept.facts["draws"]
        assert isinstance(state, dict)
        self.draws.bit_generator.state = state


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
    plan = replace(PLAN, n_steps=5, accumulate=accumulate, batch=5, n_averaged=3, n_repeats=3)
    whole = trainer_of(three_clouds(13), plan, method=Remembering())
    expected = whole.run().training
    folder = tmp_path_factory.mktemp("training")

    found = expected
    for n in [*cuts, plan.n_all + 1]:
        trainer = trainer_of(
            three_clouds(13), plan, method=Remembering(), folder=folder, fingerprint="one"
        )
        asked = iter([*[False] * n, True])
        found = trainer.run(is_interrupted=partial(next, asked)).training
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
    assert found.n_means == expected.n_means == 9


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
    youngest = max(tmp_path.glob("st*.bin"), key=lambda path: path.stat().st_mtime_ns)
    youngest.write_bytes(b"nothing")

    again = trainer_of(folder=tmp_path)

    assert again.training.step == 3
    assert "damaged" in again.notes[0]


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
    # A second for each step, and one for writing the first one's state.
    assert ended.training.step == again.training.step == 2
    assert again.training.seconds == 3


def test_energy_is_counted_where_somebody_measures() -> None:
    """And is a ceiling."""
    joules = iter(range(0, 1000, 5))
    trainer = trainer_of(energy_j=lambda: float(next(joules)))
    watch = Watch(Ceilings(energy_j=12), Gauges(memory_bytes=lambda: 0, battery=lambda: None))

    ended = trainer.run(permit=watch)

    assert ended.why == "it took its 12 J"
    assert ended.training.energy_j == 15


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
