"""One class-incremental stream, learned by the device's own trainer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.progress import Quiet
from onhand.device.learning.base import Feeds, Teachable
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import logits_of
from onhand.device.learning.optimizers import AdamW
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.streams import calibration_error, figures_of
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan
from onhand.device.networks.texts import open_texts

__all__ = ["METHODS", "Setting", "Stream", "latents_of", "learn_stream"]

JOINT = "joint"
METHODS = ("naive", "ewc", "lwf", "replay", "er-ace", "der++", "prototypes", JOINT)
_AT_ONCE, _JUDGED = 64, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a set is learned.

    Attributes:
        n_tasks: that its classes come in.
        epochs: over each task's examples; joint training makes as many over all.
        batch: examples in a step.
        rate: learning rate of AdamW.
        memory_bytes: of replay.
        precision: of what is kept there.
        options: method -> its own options.
    """

    n_tasks: int
    epochs: int
    batch: int
    rate: float
    memory_bytes: int
    precision: str = "uint8"
    options: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What a lesson learns: what its trunk gave of each example.

    Attributes:
        latents: (N, ...) to learn from.
        labels: (N,) their classes.
        test_latents: to be judged by.
        test_labels: likewise.
    """

    latents: FloatArray
    labels: np.ndarray
    test_latents: FloatArray
    test_labels: np.ndarray


class _Rows:
    """Some examples, as a trainer asks for them."""

    def __init__(self, latents: FloatArray, labels: np.ndarray) -> None:
        self._latents, self._labels = latents, labels

    def __len__(self) -> int:
        return len(self._labels)

    def weight(self, number: int) -> float:
        """Each counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """One batch."""
        chosen = list(numbers)
        return {
            "latent": self._latents[chosen],
            "labels": self._labels[chosen],
            "weights": np.full(len(chosen), scale, np.float32),
        }


def latents_of(bundle: Bundle, teachable: Teachable, inputs: FloatArray | list[str]) -> FloatArray:
    """Return what a lesson's trunk gives of inputs: each as if it were alone.

    Args:
        bundle: of the lesson.
        teachable: the lesson.
        inputs: arrays, or texts.
    """
    if isinstance(inputs, list):
        return _of_texts(bundle, teachable, inputs)
    name = bundle.manifest.network.inputs[0].name
    parts = [inputs[low : low + _AT_ONCE] for low in range(0, len(inputs), _AT_ONCE)]
    return np.concatenate([teachable.latent({name: part}) for part in parts])


def _of_texts(bundle: Bundle, teachable: Teachable, texts: Sequence[str]) -> FloatArray:
    """Texts of one length go together, so that none is padded."""
    reader = open_texts(bundle)
    feeds = [reader.read(text).feeds for text in texts]
    lengths = np.array([next(iter(one.values())).shape[1] for one in feeds])
    made: dict[int, FloatArray] = {}
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length).tolist()
        for low in range(0, len(places), _AT_ONCE):
            mine = places[low : low + _AT_ONCE]
            batch = {name: np.concatenate([feeds[i][name] for i in mine]) for name in feeds[0]}
            made |= dict(zip(mine, teachable.latent(batch), strict=True))
    return np.stack([made[i] for i in range(len(texts))])


def learn_stream(
    teachable: Teachable, stream: Stream, name: str, setting: Setting, *, seed: int
) -> dict[str, object]:
    """Learn all tasks in turn, or all classes at once, and say what came of it.

    Args:
        teachable: the lesson, with a head of no class.
        stream: the examples.
        name: of the method, or "joint".
        setting: how.
        seed: decides the order of the classes, of the examples, and the first weights.

    Returns:
        Plain figures; fractions, seconds and bytes.
    """
    n_classes = int(stream.labels.max()) + 1
    rng = np.random.default_rng([seed, n_classes])
    order = np.argsort(rng.permutation(n_classes))  # class -> its place in the stream
    stream = replace(stream, labels=order[stream.labels], test_labels=order[stream.test_labels])
    n_tasks = 1 if name == JOINT else setting.n_tasks
    ends = [n_classes * (i + 1) // n_tasks for i in range(n_tasks)]
    values = _first_values(teachable, rng)
    options = MethodOptions(
        memory_bytes=setting.memory_bytes,
        precision=setting.precision,
        **setting.options.get(name, {}),  # type: ignore[arg-type]  # options by name
    )
    method = make_method(
        "naive" if name == JOINT else name, teachable.lesson, rng=rng, options=options
    )
    matrix = np.zeros((n_tasks, n_tasks))
    spent_s, n_steps = 0.0, 0
    for task, classes in enumerate(pairwise([0, *ends])):
        begun = time.perf_counter()
        trainer = _session(teachable, stream, method, setting, values, classes=classes, seed=seed)
        values = dict(trainer.run(progress=Quiet()).training.values)
        spent_s += time.perf_counter() - begun
        n_steps += trainer.n_steps
        matrix[task] = _accuracies(teachable, values, stream, ends, n_learned=task + 1)
    memory = method.save().parts.get("memory")
    return {
        **_judged(teachable, values, stream, matrix),
        "seconds": spent_s,
        "steps": n_steps,
        "memory_bytes": sum(a.nbytes for a in memory.arrays.values()) if memory else 0,
        "memory_examples": len(memory.arrays["slots.group"]) if memory else 0,
        "matrix": matrix.tolist(),
    }


def _session(
    teachable: Teachable,
    stream: Stream,
    method: Method,
    setting: Setting,
    values: Mapping[str, FloatArray],
    *,
    classes: tuple[int, int],
    seed: int,
) -> Trainer:
    """Return the training of one task: of the classes from one to below another."""
    known, width = classes
    mine = (stream.labels >= known) & (stream.labels < width)
    source = _Rows(stream.latents[mine], stream.labels[mine])
    plan = Plan(
        n_steps=setting.epochs * -(-len(source) // setting.batch),
        batch=setting.batch,
        schedule=Schedule(rate=setting.rate),
        optimizer=AdamW(decay=0.0),
        seed=seed,
    )
    return Trainer(
        teachable,
        source,
        plan,
        method=method,
        width=width,
        known=known,
        values=grow_head(teachable.lesson, values, width),
    )


def _accuracies(
    teachable: Teachable,
    values: Mapping[str, FloatArray],
    stream: Stream,
    ends: Sequence[int],
    *,
    n_learned: int,
) -> list[float]:
    """Return the accuracy on each task among all classes learned; 0 for those that are not."""
    found = [0.0] * len(ends)
    for task in range(n_learned):
        low = ends[task - 1] if task else 0
        mine = (stream.test_labels >= low) & (stream.test_labels < ends[task])
        logits = _logits(teachable, values, stream.test_latents[mine], ends[n_learned - 1])
        found[task] = float((logits.argmax(axis=1) == stream.test_labels[mine]).mean())
    return found


def _judged(
    teachable: Teachable,
    values: Mapping[str, FloatArray],
    stream: Stream,
    matrix: np.ndarray,
) -> dict[str, object]:
    """Return the figures of a stream that was learned."""
    n_classes = int(stream.labels.max()) + 1
    logits = _logits(teachable, values, stream.test_latents, n_classes).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = powers / powers.sum(axis=1, keepdims=True)
    return {
        "accuracy": float((logits.argmax(axis=1) == stream.test_labels).mean()),
        "calibration_error": calibration_error(chances, stream.test_labels),
        **asdict(figures_of(matrix)),
    }


def _first_values(teachable: Teachable, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return the lesson's start, with weights of a seed where it has any to begin with."""
    values = teachable.start()
    for name, value in values.items():
        if value.ndim > 1 and value.size:
            scale = np.sqrt(2 / np.prod(value.shape[1:]))
            values[name] = (rng.standard_normal(value.shape) * scale).astype(np.float32)
    return values


def _logits(
    teachable: Teachable, values: Mapping[str, FloatArray], latents: FloatArray, width: int
) -> FloatArray:
    parts = [latents[low : low + _JUDGED] for low in range(0, len(latents), _JUDGED)]
    return np.concatenate([
        logits_of(
            teachable,
            values,
            {
                "latent": part,
                "labels": np.zeros(len(part), np.int64),
                "weights": np.zeros(len(part), np.float32),
            },
            width=width,
        )
        for part in parts
    ])
