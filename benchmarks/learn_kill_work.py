"""A small device that learns without end, to be killed: feedback arrives while it trains.

See `benchmarks.learn_kill`. The model is a linear classifier in numpy; all else is the real thing:
journal, trainer, replay memory, versions, pointer.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.device.learning.journal import Journal, read_journal
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan
from onhand.device.learning.verdict import Verdict
from onhand.device.learning.versions import Versions

__all__ = ["JOURNAL", "N_STEPS", "SmallModel", "versions_in", "work"]

D, C = 8, 4
N_STEPS = 12
"""Of a session: then a version is proposed and put into use."""
JOURNAL = "accepted.journal"


class SmallModel:
    """logits = x W' + b, in numpy. See `Teachable`."""

    @property
    def lesson(self) -> Lesson:
        """Its lesson."""
        return Lesson(
            kind="head",
            feeds="classes",
            variant="plain",
            graph="learn.onnx",
            trunk=None,
            start="learn.safetensors",
            trainables={
                "weight": Trainable(shape=(C, D), tensor="weight", grows=True),
                "bias": Trainable(shape=(C,), tensor="bias", grows=True),
            },
        )

    def start(self) -> dict[str, FloatArray]:
        """Zeros."""
        return {"weight": np.zeros((C, D), np.float32), "bias": np.zeros(C, np.float32)}

    def latent(self, inputs: Feeds) -> FloatArray:
        """There is no trunk."""
        raise InputError("the lesson has no trunk")

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients of the examples; a past counts nothing."""
        x, labels, weights = feeds["x"], feeds["labels"], feeds["weights"]
        logits = x @ values["weight"].T + values["bias"]  # (B, C)
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        losses = -logs[np.arange(len(labels)), labels]
        slope = np.exp(logs)
        slope[np.arange(len(labels)), labels] -= 1
        slope *= weights[:, None]
        return Taught(
            loss=float((weights * losses).sum()),
            outputs={"losses": losses, "logits": logits},
            gradients={"weight": slope.T @ x, "bias": slope.sum(axis=0)},
        )

    def close(self) -> None:
        """Nothing to release."""


class Accepted:
    """What the journal holds, as examples. See `Source`."""

    def __init__(self, records: Sequence[bytes]) -> None:
        """Read records."""
        tables = [json.loads(record) for record in records]
        self._x = np.array([table["x"] for table in tables], dtype=np.float32).reshape(-1, D)
        self._labels = np.array([table["label"] for table in tables], dtype=np.int64)

    def __len__(self) -> int:
        """Examples."""
        return len(self._labels)

    def weight(self, number: int) -> float:
        """Each counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """One batch."""
        chosen = list(numbers)
        return {
            "x": self._x[chosen],
            "labels": self._labels[chosen],
            "weights": np.full(len(chosen), scale, np.float32),
        }


def versions_in(home: Path) -> Versions:
    """Return the versions that the device keeps."""
    return Versions(folder=home / "learned", lesson=SmallModel().lesson)


def work(home: Path, told: int, seed: int) -> None:
    """Accept feedback and learn from it, in turns, until somebody kills the process.

    Args:
        home: all that is kept.
        told: a pipe: what is promised is said there, a line each: "accepted ID", "step SESSION N",
            "version N".
        seed: of the feedback.
    """
    draws = np.random.default_rng(seed)
    versions = versions_in(home)
    journal = Journal(home / JOURNAL)
    _say(told, f"notes {len(journal.notes)}")
    while True:
        for _ in range(3):
            _accept(journal, draws, told)
        parent = versions.current().number
        folder = home / "learned" / "training" / f"{parent:06d}"
        model = SmallModel()
        trainer = Trainer(
            model,
            Accepted(read_journal(home / JOURNAL)),
            Plan(n_steps=N_STEPS, batch=4, schedule=Schedule(rate=0.05)),
            method=make_method("replay", model.lesson, rng=np.random.default_rng(1)),
            width=C,
            values=_in_use(versions, model),
            folder=folder,
            fingerprint=str(parent),
        )
        _say(told, f"notes {len(trainer.notes)}")
        while trainer.training.step < N_STEPS:
            trainer.step()
            _say(told, f"step {parent} {trainer.training.step}")
            _accept(journal, draws, told)
        version = versions.propose(
            trainer.end().values,
            start=model.start(),
            parent=parent,
            method="replay",
            counts={"steps": N_STEPS},
            verdict=Verdict(is_accepted=True),
        )
        versions.accept(version.number)
        _say(told, f"version {version.number}")
        shutil.rmtree(folder)


def _in_use(versions: Versions, model: SmallModel) -> Values:
    version = versions.current().version
    return model.start() if version is None else model.start() | versions.values(version)


def _accept(journal: Journal, draws: np.random.Generator, told: int) -> None:
    name = f"{draws.integers(2**62):x}"
    label = int(draws.integers(C))
    x = draws.standard_normal(D) + 2 * np.eye(C, D)[label]
    table = {"id": name, "label": label, "x": [round(float(one), 4) for one in x]}
    journal.append(json.dumps(table).encode())
    _say(told, f"accepted {name}")


def _say(told: int, line: str) -> None:
    os.write(told, f"{line}\n".encode())
