"""Elastic weight consolidation: what mattered for what was learned before, moves less.

The penalty is strength / 2 * sum of F (value - anchor)^2. F is the diagonal of the Fisher
information, the mean of squared gradients of single examples: the lesson's graph is run once for
each, since the square of a batch's mean gradient is no estimate of it. The label of a classifier's
example is drawn from what the network answers; a text's labels are its own (the "empirical"
Fisher), since a vocabulary's answers are not at hand. One penalty is kept for all past sessions:
F = decay * F + F of the session, about the values at its end.

Source:
    Kirkpatrick et al. 2017, arXiv:1612.00796; one penalty for all of the past: Schwarz et al. 2018,
    "Progress & Compress", arXiv:1805.06370; how to estimate F: Kunstner et al. 2019,
    arXiv:1905.12558, and van de Ven 2025, arXiv:2502.11756.
"""

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds, Teachable, Values
from onhand.device.learning.memory.arrays import memory_of, read_memory
from onhand.device.learning.memory.coding import coded, decoded
from onhand.device.learning.memory.store import Item, Memory
from onhand.device.learning.methods.batches import completed, join_examples, join_texts, split
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import logits_of, softmax
from onhand.device.learning.methods.tensors import check_tensors, like

__all__ = ["Elastic"]


class Elastic:
    """The penalty, and the examples of this session that the next one's is made from.

    Args:
        lesson: what is learned.
        options: strength, decay, examples and `memory_bytes` are read.
    """

    def __init__(self, lesson: Lesson, options: MethodOptions) -> None:
        self._lesson, self._options = lesson, options
        self._fisher: dict[str, FloatArray] = {}
        self._anchor: dict[str, FloatArray] = {}
        self._sample = Memory(options.memory_bytes, balanced=False)
        self._revision = 0

    def offer(self, batch: Feeds, rng: np.random.Generator) -> None:
        """Let some of a batch's examples be among those that F is the mean of.

        Args:
            batch: new examples.
            rng: draws each one's priority.

        Raises:
            InputError: if one cannot be kept.
        """
        for item in split(self._lesson, batch):
            if item is not None:
                self._sample.offer(coded(item, "float32"), 0, rng.random())
        self._sample.shrink(most=self._options.fisher_examples)

    def consolidate(
        self, teachable: Teachable, values: Values, *, width: int, rng: np.random.Generator
    ) -> None:
        """Make what was learned since the last call part of the penalty; nothing if nothing was.

        Args:
            teachable: the lesson.
            values: of every trainable.
            width: classes, or tokens of the vocabulary.
            rng: draws labels.

        Raises:
            EngineError: if the lesson's graph fails, or gives a gradient that is not finite.
            InputError: if an example does not fit the lesson.
        """
        if not len(self._sample):
            return
        squares = {name: np.zeros(value.shape) for name, value in values.items()}
        for slot in self._sample.slots:
            feeds = self._alone(teachable, values, decoded(slot.item), width=width, rng=rng)
            for name, gradient in teachable.teach(values, feeds).gradients.items():
                squares[name] += np.square(gradient, dtype=np.float64)
        fisher = {name: total / len(self._sample) for name, total in squares.items()}
        if not all(np.isfinite(found).all() for found in fisher.values()):
            raise EngineError("a single example's gradient is not finite: no Fisher information")
        for name, old in self._fisher.items():
            fisher[name] = fisher[name] + self._options.ewc_decay * like(values[name], old)
        self._fisher = {name: found.astype(np.float32) for name, found in fisher.items()}
        self._anchor = {name: np.array(value) for name, value in values.items()}
        self._sample = Memory(self._options.memory_bytes, balanced=False)
        self._revision += 1

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Return the gradients with the penalty's."""
        if not self._fisher:
            return dict(gradients)
        return {
            name: gradient
            + np.float32(self._options.ewc_strength)
            * like(gradient, self._fisher[name])
            * (values[name] - like(gradient, self._anchor[name]))
            for name, gradient in gradients.items()
        }

    def penalty(self, values: Values) -> float:
        """Return strength / 2 * sum of F (value - anchor)^2."""
        total = 0.0
        for name, fisher in self._fisher.items():
            moved = values[name] - like(values[name], self._anchor[name])
            total += float((like(values[name], fisher) * np.square(moved)).sum(dtype=np.float64))
        return self._options.ewc_strength / 2 * total

    def save(self) -> tuple[Part, Part]:
        """Return the penalty, and the examples of this session."""
        arrays = {f"fisher.{name}": array for name, array in self._fisher.items()}
        arrays |= {f"anchor.{name}": array for name, array in self._anchor.items()}
        # A new sample counts from 0 again: the penalty's revision tells them apart.
        revision = (self._revision << 32) + self._sample.revision
        return Part(self._revision, arrays), Part(revision, memory_of(self._sample))

    def load(self, penalty: Part, sample: Part) -> None:
        """Take on what `save` gave.

        Raises:
            InputError: if it is not of this lesson, or not valid.
        """
        found: dict[str, dict[str, FloatArray]] = {}
        for kind in ("fisher.", "anchor."):
            mine = {
                name.removeprefix(kind): array
                for name, array in penalty.arrays.items()
                if name.startswith(kind)
            }
            found[kind] = check_tensors(self._lesson, mine, f"the penalty's {kind[:-1]}")
        if len(found["fisher."]) + len(found["anchor."]) != len(penalty.arrays):
            raise InputError("the penalty holds arrays that are neither fisher nor anchor")
        if found["fisher."].keys() != found["anchor."].keys():
            raise InputError("the penalty has one of fisher and anchor, not both")
        if any((array < 0).any() for array in found["fisher."].values()):
            raise InputError("the penalty's fisher holds a value below 0")
        self._fisher, self._anchor = found["fisher."], found["anchor."]
        self._sample = read_memory(
            sample.arrays, budget_bytes=self._options.memory_bytes, balanced=False
        )
        self._revision, self._sample.revision = penalty.revision, sample.revision & (2**32 - 1)

    def _alone(
        self,
        teachable: Teachable,
        values: Values,
        item: Item,
        *,
        width: int,
        rng: np.random.Generator,
    ) -> Feeds:
        """Return the batch of one example."""
        if self._lesson.feeds == "tokens":
            return join_texts([(item, item["labels"], item["weights"])])
        feeds = completed(join_examples([item]), width=width)
        shares = softmax(logits_of(teachable, values, feeds, width=width).astype(np.float64))
        drawn = int(np.searchsorted(np.cumsum(shares[0]), rng.random(), side="right"))
        return feeds | {"labels": np.array([min(drawn, width - 1)], np.int64)}
