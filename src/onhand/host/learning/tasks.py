"""Small tasks drawn from labelled examples: a few classes as if they were new, a few of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.training import Source

__all__ = [
    "LabelledSource",
    "Shape",
    "Task",
    "adapt",
    "draw_task",
    "head_names",
    "right_share",
    "task_feeds",
    "with_fresh_head",
]

# So unlikely that it takes no part: classes that a task does not have.
_NEVER: Final = np.float32(-1e4)


class LabelledSource(Source, Protocol):
    """Examples whose classes are known. See `Source`."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64: the class of each example."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a task is like.

    Attributes:
        ways: classes of a task.
        shots: examples of each class that are learned from.
        queries: further examples of each class that say how well it was learned.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 5

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            InputError: if one is too small.
        """
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least {least}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Some classes and their examples.

    Attributes:
        classes: of the source, in the order of the task's own numbers.
        support: (ways * shots,) examples to learn from, class after class.
        query: (ways * queries,) examples to be asked about, likewise.
    """

    classes: tuple[int, ...]
    support: tuple[int, ...]
    query: tuple[int, ...]

    def labels(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the task's own labels of its support or of its query: (len(numbers),) int64."""
        return np.repeat(np.arange(len(self.classes)), len(numbers) // len(self.classes))


def draw_task(
    labels: np.ndarray, shape: Shape, rng: np.random.Generator, *, among: np.ndarray
) -> Task:
    """Draw classes, and for each of them examples, none twice.

    Args:
        labels: (N,) the class of each example.
        shape: of the task.
        rng: source of chance.
        among: the classes that may be drawn.

    Raises:
        InputError: if there are too few classes with enough examples.
    """
    wanted = shape.shots + shape.queries
    names, counts = np.unique(labels, return_counts=True)
    enough = names[(counts >= wanted) & np.isin(names, among)]
    if len(enough) < shape.ways:
        raise InputError(
            f"{len(enough)} classes have {wanted} examples or more, a task needs {shape.ways} of "
            "them: give more examples, or ask for fewer ways, shots or queries"
        )
    classes = rng.choice(enough, shape.ways, replace=False)
    support: list[int] = []
    query: list[int] = []
    for name in classes:
        chosen = rng.choice(np.flatnonzero(labels == name), wanted, replace=False).tolist()
        support += chosen[: shape.shots]
        query += chosen[shape.shots :]
    return Task(
        classes=tuple(int(name) for name in classes), support=tuple(support), query=tuple(query)
    )


def head_names(lesson: Lesson) -> tuple[str, ...]:
    """Return the names of the trainables that grow with the classes.

    Raises:
        InputError: if there are none, or the head has no bias.
    """
    names = [name for name, made in lesson.trainables.items() if made.grows]
    if not names:
        raise InputError(
            f"a lesson of kind {lesson.kind} has no head that takes new classes: build with "
            "--learnable head or last-block"
        )
    if not any(len(lesson.trainables[name].shape) == 1 for name in names):
        raise InputError("the head of this lesson has no bias: tasks cannot be told apart by it")
    return tuple(names)


def with_fresh_head(lesson: Lesson, values: Values, ways: int) -> tuple[dict[str, FloatArray], int]:
    """Return values whose head knows nothing of some new classes, and of no others.

    Args:
        lesson: with a head that grows.
        values: of every trainable.
        ways: new classes.

    Returns:
        New values, their new rows zero; and the number of the first new class. Classes before it
        are so unlikely that they neither count nor change.

    Raises:
        InputError: as `head_names`.
    """
    fresh = dict(values)
    known = 0
    for name in head_names(lesson):
        shape = lesson.trainables[name].shape
        known = shape[0]
        fresh[name] = np.zeros((known + ways, *shape[1:]), np.float32)
        if len(shape) == 1:
            fresh[name][:known] = _NEVER
    return fresh, known


def task_feeds(
    source: Source, task: Task, numbers: Sequence[int], *, first: int
) -> dict[str, np.ndarray]:
    """Return a lesson's inputs for the support or the query of a task; the mean of its losses.

    Args:
        source: of the examples.
        task: one of the source.
        numbers: its support or its query.
        first: number of the first new class.
    """
    feeds = dict(source.feeds(list(numbers), scale=1 / len(numbers)))
    feeds["labels"] = (task.labels(numbers) + first).astype(np.int64)
    return feeds


def adapt(
    teachable: Teachable,
    values: Values,
    feeds: Feeds,
    *,
    steps: int,
    rates: Mapping[str, float],
) -> tuple[dict[str, FloatArray], Taught | None]:
    """Take plain gradient steps on one batch.

    Args:
        teachable: gives gradients.
        values: to begin with; left as they are.
        feeds: the batch.
        steps: how many.
        rates: of the trainables that are moved.

    Returns:
        The values after, and what the last run gave; None where there were no steps.

    Raises:
        InputError: if a value does not stay finite.
    """
    moved = dict(values)
    taught: Taught | None = None
    for _ in range(steps):
        taught = teachable.teach(moved, feeds)
        for name, rate in rates.items():
            moved[name] = moved[name] - np.float32(rate) * taught.gradients[name]
            if not np.isfinite(moved[name]).all():
                raise InputError(f"{name!r} does not stay finite: take a smaller rate")
    if taught is not None:
        taught = replace(taught, gradients={})
    return moved, taught


def right_share(taught: Taught, labels: np.ndarray) -> float:
    """Return the share of examples whose largest logit is that of their class, 0 to 1."""
    return float((taught.outputs["logits"].argmax(axis=1) == labels).mean())
