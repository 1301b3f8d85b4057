"""Prototypes: a head made of the means of its classes' latents, with no training at all.

A class's logit is the log-density of a normal distribution about its mean, whose covariance is
common to all classes: linear in the latent, so the head's own weights and bias say it and nothing
that serves it changes. With `shrinkage` 1 only distances to the means matter.

Source:
    Nearest class mean: Mensink et al. 2013; the streaming discriminant: Hayes and Kanan 2020,
    arXiv:1909.01520; prototypes of few examples: Snell et al. 2017, arXiv:1703.05175.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds, Teachable, Values
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import logits_of

__all__ = ["Prototypes"]

_Doubles = NDArray[np.float64]
_MOST_WIDTH: Final = 8192
_CLOSE: Final = 1e-3


class Prototypes:
    """Counts, sums and products of latents.

    Args:
        lesson: of a linear head on a trunk's latents.
        options: the shrinkage is read.

    Raises:
        InputError: if the lesson is not that.
    """

    def __init__(self, lesson: Lesson, options: MethodOptions) -> None:
        self._weight, self._bias = _head_of(lesson)
        self._shrinkage = options.shrinkage
        D = lesson.trainables[self._weight].shape[1]
        if D > _MOST_WIDTH and options.shrinkage < 1:
            raise InputError(
                f"latents of {D} numbers: a common covariance is kept of at most {_MOST_WIDTH}; "
                "set shrinkage to 1"
            )
        self._counts = np.zeros(0, np.int64)  # (C,)
        self._sums = np.zeros((0, D))  # (C, D)
        # (D, D), or only its trace where only distances matter.
        self._products = np.zeros((1, 1) if options.shrinkage == 1 else (D, D))
        self._revision = 0
        self._checked = False

    def take(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """Count a batch in.

        Args:
            teachable: the lesson.
            values: of every trainable.
            batch: `latent` (B, D) and `labels`.
            width: classes.

        Raises:
            InputError: if the latents do not fit the head, or are not finite, or the head does
                not answer with its weights' product with the latents.
            EngineError: if the lesson's graph fails.
        """
        latents = np.asarray(batch["latent"], np.float64)
        if latents.ndim != 2 or latents.shape[1] != self._sums.shape[1]:
            raise InputError(
                f"latents {latents.shape}: prototypes need (B, {self._sums.shape[1]}), what the "
                "head multiplies"
            )
        if not np.isfinite(latents).all():
            raise InputError("a latent is not finite")
        if not self._checked:
            self._check(teachable, values, batch, width=width)
        self._grow(width)
        np.add.at(self._counts, batch["labels"], 1)
        np.add.at(self._sums, batch["labels"], latents)
        if self._shrinkage == 1:
            self._products += np.square(latents).sum()
        else:
            self._products += latents.T @ latents
        self._revision += 1

    def head(self, values: Values, *, width: int) -> dict[str, FloatArray]:
        """Return the values with the head that the means say; unchanged before any example.

        Args:
            values: of every trainable.
            width: classes.

        Raises:
            InputError: if a class has no example.
        """
        if not self._counts.any():
            return dict(values)
        self._grow(width)
        if not self._counts.all():
            missing = np.flatnonzero(self._counts == 0)
            raise InputError(
                f"prototypes need an example of every class: class {missing[0]} has none, nor "
                f"have {len(missing) - 1} others; remember some of them first"
            )
        means = self._sums / self._counts[:, None]  # (C, D)
        weight = self._divided(means)  # (C, D)
        bias = -0.5 * (weight * means).sum(axis=1)  # (C,)
        made = dict(values) | {self._weight: weight.astype(np.float32)}
        if self._bias is not None:
            made[self._bias] = bias.astype(np.float32)
        return made

    def save(self) -> Part:
        """Return what was counted."""
        arrays = {"counts": self._counts, "sums": self._sums, "products": self._products}
        return Part(self._revision, arrays)

    def load(self, part: Part) -> None:
        """Take on what `save` gave.

        Raises:
            InputError: if it is not valid.
        """
        D = self._sums.shape[1]
        shape = (1, 1) if self._shrinkage == 1 else (D, D)
        counts = _array(part.arrays, "counts", np.int64, None)
        sums = _array(part.arrays, "sums", np.float64, (len(counts), D))
        products = _array(part.arrays, "products", np.float64, shape)
        if counts.ndim != 1 or (counts < 0).any():
            raise InputError("the prototypes' counts are no list of numbers from 0 on")
        self._counts, self._sums, self._products = counts, sums, products
        self._revision = part.revision

    def _grow(self, width: int) -> None:
        missing = max(width - len(self._counts), 0)
        self._counts = np.pad(self._counts, (0, missing))
        self._sums = np.pad(self._sums, ((0, missing), (0, 0)))

    def _divided(self, means: _Doubles) -> _Doubles:
        """Return the means times the inverse of the common covariance."""
        n, D = int(self._counts.sum()), means.shape[1]
        free = n - len(means)
        if free <= 0:
            # One example of each class says nothing of what is common: the spread of the means
            # then sets the scale, so that chances are of a sensible size.
            variance = float(means.var(axis=0).mean())
            alone: _Doubles = means / (variance if variance > 0 else 1.0)
            return alone
        squares = float((self._counts * np.square(means).sum(axis=1)).sum())
        level = max((float(np.trace(self._products)) - squares) / free / D, 1e-12)
        if self._shrinkage == 1:
            plain: _Doubles = means / level
            return plain
        within = (self._products - (means.T * self._counts) @ means) / free  # (D, D)
        shrunk = (1 - self._shrinkage) * within + self._shrinkage * level * np.eye(D)
        # Without any shrinkage few examples span no whole space.
        shrunk += 1e-6 * level * np.eye(D)
        divided: _Doubles = np.linalg.solve(shrunk, means.T).T
        return divided

    def _check(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """Refuse a lesson whose logits are not its head's product with the latent.

        Raises:
            InputError: if so.
        """
        found = logits_of(teachable, values, batch, width=width)
        expected = np.asarray(batch["latent"]) @ values[self._weight].T
        if self._bias is not None:
            expected = expected + values[self._bias]
        gap = float(np.abs(found - expected).max())
        if gap > _CLOSE * max(float(np.abs(expected).max()), 1.0):
            raise InputError(
                f"prototypes need logits that are weight x latent + bias; they differ by {gap:.3g}"
            )
        self._checked = True


def _head_of(lesson: Lesson) -> tuple[str, str | None]:
    """Return the names of a linear head's weight and bias.

    Raises:
        InputError: if the lesson is of something else.
    """
    by_dims = {
        len(made.shape): name
        for name, made in lesson.trainables.items()
        if made.grows and made.part == "whole"
    }
    if (
        lesson.feeds != "classes"
        or lesson.trunk is None
        or len(by_dims) != len(lesson.trainables)
        or set(by_dims) not in ({2}, {1, 2})
    ):
        raise InputError(
            "prototypes need a lesson of kind head, with a trunk, one weight (C, D) and at most "
            f"one bias (C,); this is {lesson.kind} of {len(lesson.trainables)} trainables"
        )
    return by_dims[2], by_dims.get(1)


def _array(
    arrays: Mapping[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...] | None
) -> np.ndarray:
    """Return an array.

    Raises:
        InputError: if it is missing, of another type or shape, or not finite.
    """
    found = arrays.get(name)
    if found is None or found.dtype != dtype or (shape is not None and found.shape != shape):
        raise InputError(f"the prototypes' {name} are missing, or not of {dtype} and {shape}")
    if not np.isfinite(found).all():
        raise InputError(f"the prototypes' {name} hold a value that is not finite")
    return np.array(found)
