"""Starting values from which a few examples of new classes are enough: meta-learning.

Tasks of few classes and few examples are drawn from labelled data again and again; each time a
head that knows nothing is taught as a device would teach it, by the very graph that the device
runs, and what lies before the head is moved so that the next task is learned better. Classes have
no order in a task, so that nothing can be gained from where their rows begin: they begin at zero.

Source:
    Reptile: Nichol and others 2018, arXiv:1803.02999, algorithm 2. ANIL: Raghu and others 2019,
    arXiv:1909.09157, which moves the head alone within a task; its outer gradient here is that of
    first order, as arXiv:1803.02999, section 3, names it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.progress import Progress, Quiet
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.clipping import clip_by_norm
from onhand.device.learning.optimizers import AdamW
from onhand.host.learning.tasks import (
    LabelledSource,
    Shape,
    Task,
    adapt,
    draw_task,
    head_names,
    right_share,
    task_feeds,
    with_fresh_head,
)

__all__ = [
    "METHODS",
    "Learned",
    "Meta",
    "few_shot_scores",
    "judging_tasks",
    "meta_learn",
    "refit_head",
]

METHODS = ("anil", "reptile")
_AT_ONCE = 32
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """How starting values are found.

    Attributes:
        method: one of `METHODS`.
        shape: of the tasks.
        rounds: how often the starting values are moved.
        tasks: drawn for each of these.
        steps: gradient steps within a task.
        head_rate: of the head within a task.
        rate: of what lies before the head within a task; Reptile only.
        outer_rate: of AdamW on the starting values; falls to zero along a cosine.
        judged: tasks of classes kept apart that say whether it helps; drawn before and after.
        kept_apart: share of the classes that only judge.
        seed: of all chance.
    """

    method: str = "anil"
    shape: Shape = field(default_factory=Shape)
    rounds: int = 200
    tasks: int = 4
    steps: int = 10
    head_rate: float = 0.5
    rate: float = 0.05
    outer_rate: float = 1e-3
    judged: int = 100
    kept_apart: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: if one is unknown or out of its range.
        """
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, must be one of {', '.join(METHODS)}")
        for name in ("rounds", "tasks", "steps", "judged"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be 1 or more")
        for name in ("head_rate", "rate", "outer_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, must be above 0")
        if not 0 < self.kept_apart < 1:
            raise InputError(f"kept_apart is {self.kept_apart}, must be between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Starting values, and what they are worth.

    Attributes:
        values: of every trainable; the head's are those that were given.
        before: share of right answers in each judged task from the values that were given.
        after: the same tasks from these values.
        classes: those that only judged.
    """

    values: dict[str, FloatArray]
    before: tuple[float, ...]
    after: tuple[float, ...]
    classes: tuple[int, ...]

    @property
    def helps(self) -> bool:
        """Whether new classes are told apart better than before."""
        return float(np.mean(self.after)) > float(np.mean(self.before))


def meta_learn(
    teachable: Teachable,
    source: LabelledSource,
    how: Meta,
    *,
    values: Values | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Find starting values for few examples of new classes.

    Args:
        teachable: a lesson of classes whose head grows, and with something learned before it.
        source: labelled examples.
        how: the settings.
        values: to begin with; None for the lesson's own.
        progress: told of each round.

    Returns:
        The values, judged on classes that they were not found with.

    Raises:
        InputError: if the lesson has only a head, or there are too few classes or examples.
        EngineError: if the lesson's graph fails.
    """
    lesson = teachable.lesson
    start = teachable.start() if values is None else dict(values)
    heads = head_names(lesson)
    body = [name for name in lesson.trainables if name not in heads]
    if not body:
        raise InputError(
            "this lesson learns a head alone, and where a head's rows begin makes no difference: "
            "build with --learnable last-block or lora"
        )
    rng = np.random.default_rng(how.seed)
    mine, apart = _classes_apart(source.labels, how, rng)
    moved: dict[str, FloatArray] = {name: start[name] for name in body}
    kept: dict[str, FloatArray] = {}
    optimizer = AdamW(decay=0.0)
    shown = progress or Quiet()
    shown.start("meta-learning", how.rounds)
    for i in range(how.rounds):
        tasks = [draw_task(source.labels, how.shape, rng, among=mine) for _ in range(how.tasks)]
        slope = _slope(teachable, source, {**start, **moved}, tasks, how, body)
        rate = how.outer_rate * 0.5 * (1 + math.cos(math.pi * i / how.rounds))
        moved, kept = optimizer.step(moved, clip_by_norm(slope, _LARGEST_GRADIENT), kept, rate=rate)
        shown.advance(1)
    after = {**start, **moved}
    tasks = judging_tasks(source.labels, apart, how)
    return Learned(
        values=after,
        before=few_shot_scores(teachable, source, start, tasks, how),
        after=few_shot_scores(teachable, source, after, tasks, how),
        classes=tuple(int(name) for name in apart),
    )


def judging_tasks(labels: np.ndarray, classes: np.ndarray, how: Meta) -> list[Task]:
    """Draw tasks of some classes alone; the same ones for the same settings.

    Args:
        labels: (N,) the class of each example.
        classes: that may be drawn.
        how: shape, number and seed.

    Raises:
        InputError: if there are too few classes with enough examples.
    """
    rng = np.random.default_rng([how.seed, 1])
    return [draw_task(labels, how.shape, rng, among=classes) for _ in range(how.judged)]


def _classes_apart(
    labels: np.ndarray, how: Meta, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes to learn with, and those that only judge.

    Raises:
        InputError: if either part has too few classes for a task.
    """
    names = np.unique(labels)
    n = max(round(len(names) * how.kept_apart), how.shape.ways)
    if len(names) - n < how.shape.ways:
        raise InputError(
            f"{len(names)} classes are too few: tasks of {how.shape.ways} need as many to learn "
            "from and as many others to be judged by"
        )
    mixed = rng.permutation(names)
    return np.sort(mixed[n:]), np.sort(mixed[:n])


def _slope(
    teachable: Teachable,
    source: LabelledSource,
    values: Values,
    tasks: Sequence[Task],
    how: Meta,
    body: Sequence[str],
) -> dict[str, FloatArray]:
    """Return the mean direction of some tasks, uphill."""
    total = {name: np.zeros_like(values[name]) for name in body}
    for task in tasks:
        fresh, first = with_fresh_head(teachable.lesson, values, len(task.classes))
        if how.method == "reptile":
            # All examples of the task together, as algorithm 2 draws its batches from them.
            numbers = _together(task)
            feeds = dict(source.feeds(numbers, scale=1 / len(numbers)))
            order = np.concatenate([task.labels(task.support), task.labels(task.query)])
            feeds["labels"] = order + first
            after, _ = adapt(teachable, fresh, feeds, steps=how.steps, rates=_rates(teachable, how))
            for name in body:
                total[name] += (values[name] - after[name]) / np.float32(how.rate * how.steps)
            continue
        support = task_feeds(source, task, task.support, first=first)
        after, _ = adapt(teachable, fresh, support, steps=how.steps, rates=_rates(teachable, how))
        query = task_feeds(source, task, task.query, first=first)
        gradients = teachable.teach(after, query).gradients
        for name in body:
            total[name] += gradients[name]
    return {name: value / np.float32(len(tasks)) for name, value in total.items()}


def _together(task: Task) -> list[int]:
    return [*task.support, *task.query]


def _rates(teachable: Teachable, how: Meta) -> dict[str, float]:
    """Return what is moved within a task: the head, and for Reptile all else too."""
    heads = head_names(teachable.lesson)
    rates = dict.fromkeys(heads, how.head_rate)
    if how.method == "reptile":
        others = [name for name in teachable.lesson.trainables if name not in heads]
        rates |= dict.fromkeys(others, how.rate)
    return rates


def few_shot_scores(
    teachable: Teachable,
    source: LabelledSource,
    values: Values,
    tasks: Sequence[Task],
    how: Meta,
) -> tuple[float, ...]:
    """Teach tasks as a device would, and ask.

    Args:
        teachable: the lesson.
        source: of the tasks' examples.
        values: to begin each task with, but for its head.
        tasks: to be taught, each on its own.
        how: steps and rates within a task.

    Returns:
        Share of right answers in each task's query, 0 to 1.

    Raises:
        InputError: if a value does not stay finite.
        EngineError: if the lesson's graph fails.
    """
    scores: list[float] = []
    rates = _rates(teachable, how)
    for task in tasks:
        fresh, first = with_fresh_head(teachable.lesson, values, len(task.classes))
        support = task_feeds(source, task, task.support, first=first)
        after, _ = adapt(teachable, fresh, support, steps=how.steps, rates=rates)
        query = task_feeds(source, task, task.query, first=first)
        scores.append(right_share(teachable.teach(after, query), query["labels"]))
    return tuple(scores)


def refit_head(
    teachable: Teachable,
    source: LabelledSource,
    values: Values,
    *,
    steps: int,
    rate: float = 1e-2,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Teach the head its own classes again, once what lies before it has moved.

    Args:
        teachable: the lesson.
        source: examples of the classes that the head has.
        values: of every trainable.
        steps: of AdamW on the head alone, 32 examples each.
        rate: of AdamW; falls to zero.
        seed: of the order of the examples.

    Returns:
        New values.

    Raises:
        InputError: if there is no head.
        EngineError: if the lesson's graph fails.
    """
    rng = np.random.default_rng(seed)
    moved = dict(values)
    names = head_names(teachable.lesson)
    head: dict[str, FloatArray] = {name: moved[name] for name in names}
    kept: dict[str, FloatArray] = {}
    optimizer = AdamW(decay=0.0)
    order: list[int] = []
    for i in range(steps):
        if len(order) < _AT_ONCE:
            order += rng.permutation(len(source)).tolist()
        batch, order = order[:_AT_ONCE], order[_AT_ONCE:]
        gradients = teachable.teach(moved, source.feeds(batch, scale=1 / len(batch))).gradients
        head, kept = optimizer.step(
            head, {name: gradients[name] for name in names}, kept, rate=rate * (1 - i / steps)
        )
        moved |= head
    return moved
