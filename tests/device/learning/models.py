"""Small models that can be taught, in numpy: a linear classifier and a table of next tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.methods.kept import Kept


def log_softmax(logits: FloatArray) -> FloatArray:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result.astype(np.float32)


class LinearTeachable:
    """logits = x W' + b: a lesson of classes without a trunk. See `Teachable`."""

    def __init__(self, n_inputs: int = 4, n_classes: int = 3) -> None:
        """Start from nothing but zeros."""
        self.shapes = {"head.weight": (n_classes, n_inputs), "head.bias": (n_classes,)}
        self.n_runs = 0

    @property
    def lesson(self) -> Lesson:
        """Its lesson."""
        trainables = {
            name: Trainable(shape=shape, tensor=name, grows=True)
            for name, shape in self.shapes.items()
        }
        return Lesson(
            kind="head",
            feeds="classes",
            variant="plain",
            graph="learn.onnx",
            trunk=None,
            start="learn.safetensors",
            trainables=trainables,
        )

    def start(self) -> dict[str, FloatArray]:
        """Zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}

    def latent(self, inputs: Feeds) -> FloatArray:
        """There is no trunk."""
        raise InputError("the lesson has no trunk")

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        self.n_runs += 1
        x, labels, weights = feeds["x"], feeds["labels"], feeds["weights"]
        logits = x @ values["head.weight"].T + values["head.bias"]  # (B, C)
        B, C = logits.shape
        logs = log_softmax(logits)
        past = feeds.get("past_logits", np.zeros((B, C), np.float32))
        past_weights = feeds.get("past_weights", np.zeros(B, np.float32))
        soft = feeds.get("past_classes", np.zeros((B, C), np.float32))
        soft_weights = feeds.get("soft_weights", np.zeros(B, np.float32))
        losses = -logs[np.arange(B), labels]
        loss = (
            (weights * losses).sum()
            + (past_weights * np.square(logits - past).mean(axis=1)).sum()
            - (soft_weights * (soft * logs).sum(axis=1)).sum()
        )
        slope = weights[:, None] * (np.exp(logs) - np.eye(C, dtype=np.float32)[labels])
        slope = slope + past_weights[:, None] * 2 / C * (logits - past)
        slope = slope + soft_weights[:, None] * (
            np.exp(logs) * soft.sum(axis=1, keepdims=True) - soft
        )
        slope = slope.astype(np.float32)
        return Taught(
            loss=float(loss),
            outputs={"losses": losses, "logits": logits},
            gradients={"head.weight": slope.T @ x, "head.bias": slope.sum(axis=0)},
        )

    def close(self) -> None:
        """Nothing to release."""


class TableTeachable:
    """logits of the next token = a row for the token before it. See `Teachable`."""

    def __init__(self, vocab_size: int) -> None:
        """Start from zeros: every token is as likely as any other."""
        self.vocab_size = vocab_size

    @property
    def lesson(self) -> Lesson:
        """Its lesson."""
        shape = (self.vocab_size, self.vocab_size)
        return Lesson(
            kind="lora",
            feeds="tokens",
            variant="plain",
            graph="learn.onnx",
            trunk=None,
            start="learn.safetensors",
            trainables={"table": Trainable(shape=shape, tensor="table")},
        )

    def start(self) -> dict[str, FloatArray]:
        """Zeros."""
        return {"table": np.zeros((self.vocab_size, self.vocab_size), np.float32)}

    def latent(self, inputs: Feeds) -> FloatArray:
        """There is no trunk."""
        raise InputError("the lesson has no trunk")

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        before = feeds["tokens"].reshape(-1)[feeds["rows"]]  # (R,)
        labels, weights = feeds["labels"], feeds["weights"]  # (R, K)
        logs = log_softmax(values["table"][before])  # (R, V)
        picked = np.take_along_axis(logs, labels, axis=1)
        slope = np.exp(logs) * weights.sum(axis=1, keepdims=True)
        for row in range(len(before)):
            np.subtract.at(slope[row], labels[row], weights[row])
        gradient = np.zeros_like(values["table"])
        np.add.at(gradient, before, slope.astype(np.float32))
        return Taught(
            loss=-float((weights * picked).sum()),
            outputs={"logprobs": picked},
            gradients={"table": gradient},
        )

    def close(self) -> None:
        """Nothing to release."""


class Points:
    """Examples of a linear classifier. See `Source`."""

    def __init__(self, x: FloatArray, labels: Sequence[int] | np.ndarray) -> None:
        """Hold rows and their classes."""
        self.x = x
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        """Rows."""
        return len(self.x)

    def weight(self, number: int) -> float:
        """Each counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Mapping[str, np.ndarray]:
        """One batch."""
        return {
            "x": self.x[list(numbers)],
            "labels": self.labels[list(numbers)],
            "weights": np.full(len(numbers), scale, np.float32),
        }


def three_clouds(n: int = 60, *, seed: int = 0) -> Points:
    """Return points of three classes that a line can tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    middles = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]], np.float32)
    x = middles[labels] + 0.3 * rng.standard_normal((n, 4)).astype(np.float32)
    return Points(x.astype(np.float32), labels)


class Naive:
    """A method that does nothing for what was known. See `Method`."""

    @property
    def name(self) -> str:
        """See `Method`."""
        return "naive"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Method`."""
        return ()

    @property
    def trains(self) -> bool:
        """See `Method`."""
        return True

    def remember(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """Do nothing."""

    def begin(
        self, teachable: Teachable, values: Values, *, width: int, known: int | None = None
    ) -> dict[str, FloatArray]:
        """Return the values as they are."""
        return dict(values)

    def feeds(self, teachable: Teachable, values: Values, batch: Feeds) -> Feeds:
        """Return the new examples alone."""
        return batch

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Return the gradients as they are."""
        return dict(gradients)

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """Return what the optimizer made."""
        return dict(after)

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """Do nothing."""

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """Return the values as they are."""
        return dict(values)

    def save(self) -> Kept:
        """Return that there is nothing."""
        return Kept(facts={"method": self.name})

    def load(self, kept: Kept) -> None:
        """Check that there is nothing.

        Raises:
            InputError: if it is of another method.
        """
        if kept.facts != {"method": self.name}:
            raise InputError("the state that was kept is not that of the naive method")
