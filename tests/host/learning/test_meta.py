"""Meta-learning: tasks, adaptation, and starting values from which few examples are enough."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.models import LinearTeachable, log_softmax

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.host.learning.meta import Meta, meta_learn, refit_head
from onhand.host.learning.tasks import (
    Shape,
    adapt,
    draw_task,
    right_share,
    task_feeds,
    with_fresh_head,
)

N_INPUTS, WIDTH, KNOWN = 12, 6, 2


class TwoLayers:
    """logits = W tanh(V x) + b: something is learned before the head. See `Teachable`."""

    @property
    def lesson(self) -> Lesson:
        """Its lesson."""
        return Lesson(
            kind="last-block",
            feeds="classes",
            variant="plain",
            graph="learn.onnx",
            trunk=None,
            start="learn.safetensors",
            trainables={
                "body": Trainable(shape=(WIDTH, N_INPUTS), tensor="body"),
                "head.weight": Trainable(shape=(KNOWN, WIDTH), tensor="head.weight", grows=True),
                "head.bias": Trainable(shape=(KNOWN,), tensor="head.bias", grows=True),
            },
        )

    def start(self) -> dict[str, FloatArray]:
        """A body drawn by chance, under a head of zeros."""
        body = np.random.default_rng(0).standard_normal((WIDTH, N_INPUTS)) / 4
        return {
            "body": body.astype(np.float32),
            "head.weight": np.zeros((KNOWN, WIDTH), np.float32),
            "head.bias": np.zeros(KNOWN, np.float32),
        }

    def latent(self, inputs: Feeds) -> FloatArray:
        """There is no trunk."""
        raise InputError("the lesson has no trunk")

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        x, labels, weights = feeds["x"], feeds["labels"], feeds["weights"]
        hidden = np.tanh(x @ values["body"].T)  # (B, WIDTH)
        logits = hidden @ values["head.weight"].T + values["head.bias"]
        logs = log_softmax(logits)
        losses = -logs[np.arange(len(x)), labels]
        slope = weights[:, None] * (np.exp(logs) - np.eye(logits.shape[1], dtype="f4")[labels])
        inner = (slope @ values["head.weight"]) * (1 - hidden**2)
        return Taught(
            loss=float((weights * losses).sum()),
            outputs={"losses": losses, "logits": logits},
            gradients={
                "body": (inner.T @ x).astype("f4"),
                "head.weight": (slope.T @ hidden).astype("f4"),
                "head.bias": slope.sum(axis=0).astype("f4"),
            },
        )

    def close(self) -> None:
        """Nothing to release."""


class Clouds:
    """Points around a middle for each class; two of the inputs tell, the others are noise."""

    def __init__(self, n_classes: int = 24, each: int = 12) -> None:
        """Draw them."""
        rng = np.random.default_rng(1)
        self.labels = np.repeat(np.arange(n_classes), each)
        angles = rng.uniform(0, 2 * np.pi, n_classes)
        self.x = 2.0 * rng.standard_normal((len(self.labels), N_INPUTS))
        self.x[:, :2] = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)[self.labels]
        self.x[:, :2] += 0.2 * rng.standard_normal((len(self.labels), 2))
        self.x = self.x.astype(np.float32)

    def __len__(self) -> int:
        """Points."""
        return len(self.labels)

    def weight(self, number: int) -> float:
        """Each the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """One batch."""
        return {
            "x": self.x[numbers],
            "labels": self.labels[numbers],
            "weights": np.full(len(numbers), scale, np.float32),
        }


@given(ways=st.integers(2, 5), shots=st.integers(1, 4), queries=st.integers(1, 4))
def test_a_task_uses_no_example_twice(ways: int, shots: int, queries: int) -> None:
    """Classes differ, all examples differ, and each is of the class that its place says."""
    labels = Clouds().labels
    shape = Shape(ways=ways, shots=shots, queries=queries)
    task = draw_task(labels, shape, np.random.default_rng(0), among=np.arange(6))

    assert len(set(task.support + task.query)) == ways * (shots + queries)
    for numbers in (task.support, task.query):
        classes = np.array(task.classes)[task.labels(numbers)]
        np.testing.assert_array_equal(labels[list(numbers)], classes)
    assert set(task.classes) <= set(range(6))


def test_too_few_classes_say_how_many_there_are() -> None:
    """The number found, and what to do."""
    with pytest.raises(InputError, match="3 classes have 10 examples or more, a task needs 5"):
        draw_task(Clouds().labels, Shape(), np.random.default_rng(0), among=np.arange(3))


def test_classes_that_a_task_has_not_do_not_change() -> None:
    """Their rows get no gradient, and new rows begin at zero."""
    teachable, source = TwoLayers(), Clouds()
    values, first = with_fresh_head(teachable.lesson, teachable.start(), 3)
    shape = Shape(ways=3, shots=2, queries=1)
    task = draw_task(source.labels, shape, np.random.default_rng(0), among=np.arange(5))
    feeds = task_feeds(source, task, task.support, first=first)
    gradients = teachable.teach(values, feeds).gradients

    assert first == KNOWN
    assert not values["head.weight"].any()
    assert not gradients["head.weight"][:first].any()
    assert gradients["head.weight"][first:].any()


def test_adapting_moves_only_what_has_a_rate() -> None:
    """The body stays, the head learns the support by heart."""
    teachable, source = TwoLayers(), Clouds()
    values, first = with_fresh_head(teachable.lesson, teachable.start(), 2)
    shape = Shape(ways=2, shots=2, queries=1)
    task = draw_task(source.labels, shape, np.random.default_rng(0), among=np.arange(5))
    feeds = task_feeds(source, task, task.support, first=first)
    rates = {"head.weight": 1.0, "head.bias": 1.0}
    after, _ = adapt(teachable, values, feeds, steps=20, rates=rates)

    np.testing.assert_array_equal(after["body"], values["body"])
    assert right_share(teachable.teach(after, feeds), feeds["labels"]) == 1.0


@pytest.mark.parametrize("method", ["anil", "reptile"])
def test_new_classes_are_told_apart_better(method: str) -> None:
    """One example of each of four classes never seen: better than before by a fifth of all."""
    how = Meta(
        method=method,
        shape=Shape(ways=4, shots=1, queries=4),
        rounds=60,
        steps=5,
        head_rate=1.0,
        rate=0.2,
        outer_rate=0.03,
        judged=40,
    )
    learned = meta_learn(TwoLayers(), Clouds(), how)

    assert np.mean(learned.after) > np.mean(learned.before) + 0.2
    assert learned.helps


def test_equal_seeds_give_equal_values() -> None:
    """All chance is of the seed."""
    how = Meta(shape=Shape(ways=3, shots=1, queries=2), rounds=3, judged=2)
    first, second = (meta_learn(TwoLayers(), Clouds(), how) for _ in range(2))

    np.testing.assert_array_equal(first.values["body"], second.values["body"])
    assert first.after == second.after


def test_a_head_alone_is_refused() -> None:
    """Where its rows begin makes no difference, so that there is nothing to find."""
    with pytest.raises(InputError, match="last-block or lora"):
        meta_learn(LinearTeachable(N_INPUTS), Clouds(), Meta())


def test_a_moved_body_gets_its_head_back() -> None:
    """The classes that the head has are learned again; the body stays."""
    teachable, source = TwoLayers(), Clouds(n_classes=KNOWN)
    before = teachable.start()
    after = refit_head(teachable, source, before, steps=60, rate=0.1)
    feeds = source.feeds(list(range(len(source))), scale=1.0)

    np.testing.assert_array_equal(after["body"], before["body"])
    assert right_share(teachable.teach(after, feeds), source.labels) > 0.9
    assert right_share(teachable.teach(before, feeds), source.labels) <= 0.5


@pytest.mark.parametrize(
    "options", [{"method": "maml"}, {"rounds": 0}, {"head_rate": 0.0}, {"kept_apart": 1.0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    """Each with its name."""
    with pytest.raises(InputError, match=next(iter(options))):
        Meta(**options)  # type: ignore[arg-type] # wrong ones on purpose
