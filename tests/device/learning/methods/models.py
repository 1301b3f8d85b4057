"""Models to try methods on, in numpy: a head on latents, a perceptron, a head of low rank."""

from collections.abc import Mapping

import numpy as np
from tests.device.learning.models import log_softmax

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.device.learning.base import Feeds, Taught, Values


def class_losses(logits: FloatArray, feeds: Feeds) -> tuple[float, FloatArray, FloatArray]:
    """Return the loss of a lesson of classes, each example's, and the gradient by the logits."""
    B, C = logits.shape
    logs = log_softmax(logits)
    labels, weights = feeds["labels"], feeds["weights"]
    losses = -logs[np.arange(B), labels]
    apart = logits - feeds["past_logits"]
    loss = (
        (weights * losses).sum()
        + (feeds["past_weights"] * np.square(apart).mean(axis=1)).sum()
        - (feeds["soft_weights"] * (feeds["past_classes"] * logs).sum(axis=1)).sum()
    )
    chances = np.exp(logs)
    slope = weights[:, None] * (chances - np.eye(C, dtype=np.float32)[labels])
    slope = slope + feeds["past_weights"][:, None] * 2 / C * apart
    total = feeds["past_classes"].sum(axis=1, keepdims=True)
    slope = slope + feeds["soft_weights"][:, None] * (chances * total - feeds["past_classes"])
    return float(loss), losses, slope.astype(np.float32)


def class_lesson(shapes: Mapping[str, tuple[int, ...]], growing: tuple[str, ...]) -> Lesson:
    """Return a lesson of kind head with a trunk."""
    trainables = {
        name: Trainable(shape=shape, tensor=name, grows=name in growing)
        for name, shape in shapes.items()
    }
    return Lesson(
        kind="head",
        feeds="classes",
        variant="plain",
        graph="learn.onnx",
        trunk="trunk.onnx",
        start="learn.safetensors",
        trainables=trainables,
    )


class HeadTeachable:
    """logits = latent W' + b. See `Teachable`."""

    def __init__(self, width: int = 4, n_classes: int = 3) -> None:
        """Start from zeros."""
        self.shapes = {"weight": (n_classes, width), "bias": (n_classes,)}
        self.lesson = class_lesson(self.shapes, ("weight", "bias"))

    def start(self) -> dict[str, FloatArray]:
        """Zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}

    def latent(self, inputs: Feeds) -> FloatArray:
        """What comes in, as it is."""
        return np.asarray(inputs["x"], np.float32)

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        latent = feeds["latent"]
        logits = latent @ values["weight"].T + values["bias"]
        loss, losses, slope = class_losses(logits, feeds)
        return Taught(
            loss=loss,
            outputs={"losses": losses, "logits": logits},
            gradients={"weight": slope.T @ latent, "bias": slope.sum(axis=0)},
        )

    def close(self) -> None:
        """Nothing to release."""


class PerceptronTeachable:
    """logits = relu(latent W1' + b1) W2' + b2. See `Teachable`."""

    def __init__(self, width: int, hidden: int, n_classes: int, *, seed: int = 0) -> None:
        """Draw the hidden layer; the head starts from zeros."""
        self.shapes = {
            "hidden": (hidden, width),
            "hidden_bias": (hidden,),
            "weight": (n_classes, hidden),
            "bias": (n_classes,),
        }
        self.seed = seed
        self.lesson = class_lesson(self.shapes, ("weight", "bias"))

    def start(self) -> dict[str, FloatArray]:
        """The same for a seed."""
        values = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        drawn = np.random.default_rng(self.seed).standard_normal(self.shapes["hidden"])
        scale = np.sqrt(2 / self.shapes["hidden"][1])
        values["hidden"] = (drawn * scale).astype(np.float32)
        return values

    def latent(self, inputs: Feeds) -> FloatArray:
        """What comes in, as it is."""
        return np.asarray(inputs["x"], np.float32)

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        latent = feeds["latent"]
        hidden = np.maximum(latent @ values["hidden"].T + values["hidden_bias"], 0)
        logits = hidden @ values["weight"].T + values["bias"]
        loss, losses, slope = class_losses(logits, feeds)
        below = (slope @ values["weight"]) * (hidden > 0)
        return Taught(
            loss=loss,
            outputs={"losses": losses, "logits": logits},
            gradients={
                "weight": slope.T @ hidden,
                "bias": slope.sum(axis=0),
                "hidden": below.T @ latent,
                "hidden_bias": below.sum(axis=0),
            },
        )

    def close(self) -> None:
        """Nothing to release."""


class LowRankTeachable:
    """logits = x (W + alpha / rank B A)', W frozen. See `Teachable`."""

    def __init__(self, width: int = 12, n_classes: int = 6, rank: int = 8) -> None:
        """Draw A; B starts from zeros."""
        self.rank, self.n_classes, self.width = rank, n_classes, width
        trainables = {
            "q.A": Trainable(shape=(rank, width), tensor="q", part="lora_A"),
            "q.B": Trainable(shape=(n_classes, rank), tensor="q", part="lora_B"),
        }
        self.lesson = Lesson(
            kind="lora",
            feeds="classes",
            variant="plain",
            graph="learn.onnx",
            trunk=None,
            start="learn.safetensors",
            trainables=trainables,
            alpha=float(rank),
        )

    def start(self) -> dict[str, FloatArray]:
        """The same every time."""
        drawn = np.random.default_rng(1).standard_normal((self.rank, self.width))
        return {
            "q.A": (drawn / np.sqrt(self.width)).astype(np.float32),
            "q.B": np.zeros((self.n_classes, self.rank), np.float32),
        }

    def latent(self, inputs: Feeds) -> FloatArray:
        """There is no trunk."""
        raise InputError("the lesson has no trunk")

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients, by hand."""
        x, A, B = feeds["x"], values["q.A"], values["q.B"]
        logits = x @ A.T @ B.T
        loss, losses, slope = class_losses(logits, feeds)
        return Taught(
            loss=loss,
            outputs={"losses": losses, "logits": logits},
            gradients={"q.A": B.T @ slope.T @ x, "q.B": (slope.T @ (x @ A.T)).astype(np.float32)},
        )

    def close(self) -> None:
        """Nothing to release."""


def latents(labels: list[int], *, width: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a batch about the corners of a simplex, each example counting the same."""
    rng = np.random.default_rng(seed)
    corners = 2 * np.eye(max(max(labels) + 1, width), width)
    x = corners[labels] + 0.3 * rng.standard_normal((len(labels), width))
    return {
        "latent": x.astype(np.float32),
        "labels": np.array(labels, np.int64),
        "weights": np.full(len(labels), 1 / len(labels), np.float32),
    }
