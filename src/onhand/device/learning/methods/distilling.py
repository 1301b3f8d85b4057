"""Learning without forgetting: new examples also pull towards what the previous version answers.

Source:
    Li and Hoiem 2016, "Learning without Forgetting", arXiv:1606.09282; the loss at a temperature
    times its square: Hinton et al. 2015, arXiv:1503.02531.
"""

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds, Teachable, Values
from onhand.device.learning.methods.batches import total_weight
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import Pull, best_tokens, logits_of, softmax
from onhand.device.learning.methods.tensors import check_tensors

__all__ = ["Distilling"]


class Distilling:
    """The previous version, as the teacher of the next.

    Args:
        lesson: what is learned.
        options: strength, temperature and number of tokens are read.
    """

    def __init__(self, lesson: Lesson, options: MethodOptions) -> None:
        self._lesson, self._options = lesson, options
        self._values: dict[str, FloatArray] = {}
        self._revision = 0

    def begin(self, values: Values, *, known: int) -> None:
        """Take the values as those of the previous version; of none if it knows no classes."""
        previous = {name: np.array(value) for name, value in values.items()} if known else {}
        if self._lesson.feeds == "classes":
            for name, made in self._lesson.trainables.items():
                if made.grows and name in previous:
                    previous[name] = previous[name][:known]
        self._values = previous
        self._revision += 1

    def pull(self, teachable: Teachable, batch: Feeds, *, width: int) -> Pull | None:
        """Return the gradient of a classifier's distillation; None without a previous version.

        Args:
            teachable: the lesson.
            batch: the new examples.
            width: classes that there are now; those that the previous version did not know take
                no part.

        Raises:
            InputError: if the batch does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        if not self._values or not self._options.lwf_strength:
            return None
        known = self._known(width)
        heat = self._options.temperature
        past = logits_of(teachable, self._values, batch, width=known).astype(np.float64)
        wanted = softmax(past / heat)  # (B, known)
        # temperature^2 times the loss, whose gradient has the factor 1 / temperature.
        strength = self._options.lwf_strength * heat

        def pull(logits: NDArray[np.float64]) -> NDArray[np.float64]:
            gradient = np.zeros_like(logits)
            gradient[:, :known] = strength * (softmax(logits[:, :known] / heat) - wanted)
            return gradient

        return pull

    def text(self, teachable: Teachable, batch: Feeds, *, width: int) -> dict[str, np.ndarray]:
        """Return texts whose rows are also scored by the previous version's likeliest tokens.

        Args:
            teachable: the lesson.
            batch: the new texts.
            width: tokens of the vocabulary.

        Raises:
            InputError: if the batch does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        feeds = {name: np.asarray(array) for name, array in batch.items()}
        if not self._values or not self._options.lwf_strength:
            return feeds
        best, chances = best_tokens(
            teachable, self._values, batch, best=self._options.best, width=width
        )  # (R, M)
        # A row counts as much as its labels do, wherever their signs point.
        rows = np.abs(feeds["weights"]).sum(axis=1, keepdims=True)  # (R, 1)
        if total_weight(batch) == 0:
            return feeds
        soft = self._options.lwf_strength * rows * chances
        feeds["labels"] = np.concatenate([feeds["labels"], best], axis=1).astype(np.int64)
        feeds["weights"] = np.concatenate([feeds["weights"], soft], axis=1).astype(np.float32)
        return feeds

    def save(self) -> Part:
        """Return the previous version's values."""
        return Part(self._revision, self._values)

    def load(self, part: Part) -> None:
        """Take on what `save` gave.

        Raises:
            InputError: if it is not of this lesson.
        """
        self._values = check_tensors(self._lesson, part.arrays, "the previous version")
        self._revision = part.revision

    def _known(self, width: int) -> int:
        """Return how many of the classes the previous version told apart."""
        for name, made in self._lesson.trainables.items():
            if made.grows:
                return len(self._values[name])
        return width
