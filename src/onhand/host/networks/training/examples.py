"""Examples in the order of training, turned into others on the way: all decided by a seed."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array
from onhand.host.networks.samples import Samples

__all__ = ["AUGMENTATIONS", "Schedule", "augment", "kept_in_memory", "put_aside"]

AUGMENTATIONS: Final = ("flip", "crop", "mixup")
_MOST_BYTES = 2**29
# A picture is moved by at most this share of its side.
_MOVE = 8


def kept_in_memory(samples: Samples) -> Samples:
    """Read examples once, if they are small enough to be kept; else they are read each time."""
    feeds: list[Mapping[str, Array]] = []
    size = 0
    for i in range(len(samples)):
        feed = samples.feeds[i]
        feeds.append(dict(feed))
        size += sum(array.nbytes for array in feed.values())
        if size > _MOST_BYTES:
            return samples
    return Samples(feeds=feeds, labels=samples.labels)


def put_aside(samples: Samples, *, share: float, seed: int) -> tuple[Samples, Samples]:
    """Split examples into those that are trained on and those that judge.

    Args:
        samples: all.
        share: that judges, from 0 to below 1; at least one example, where it is above 0.
        seed: decides which.

    Returns:
        To train on; to judge, empty if `share` is 0.

    Raises:
        InputError: if there are too few for both.
    """
    n = len(samples)
    n_judge = 0 if share == 0 else max(1, round(n * share))
    if n - n_judge < 1:
        raise InputError(f"{n} examples: too few to train on and to judge by; give more")
    order = np.random.default_rng([seed, 1]).permutation(n).tolist()
    judges = sorted(order[:n_judge])
    return samples.part(sorted(order[n_judge:])), samples.part(judges)


class Schedule:
    """Which examples each step is given: every one once in each round, those of a shape together.

    What comes depends on the seed and the step alone, so that training can begin anywhere.
    """

    def __init__(self, samples: Samples, *, batch: int, seed: int) -> None:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i in range(len(samples)):
            shape = tuple((name, array.shape) for name, array in samples.feeds[i].items())
            groups.setdefault(shape, []).append(i)
        self._groups = list(groups.values())
        self._batch, self._seed = batch, seed
        self.n_batches = sum(-(-len(group) // batch) for group in self._groups)
        self._round = -1
        self._batches: list[list[int]] = []

    def indices(self, step: int) -> list[int]:
        """Return the examples of a step, from 0."""
        number, place = divmod(step, self.n_batches)
        if number != self._round:
            self._round, self._batches = number, self._shuffled(number)
        return self._batches[place]

    def _shuffled(self, number: int) -> list[list[int]]:
        rng = np.random.default_rng([self._seed, 2, number])
        made: list[list[int]] = []
        for group in self._groups:
            order = [group[i] for i in rng.permutation(len(group))]
            made += [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        return [made[i] for i in rng.permutation(len(made))]


def augment(
    feeds: Mapping[str, Array], kinds: Sequence[str], rng: np.random.Generator
) -> dict[str, Array]:
    """Turn a batch of pictures into others.

    Args:
        feeds: name -> (B, C, H, W) or (B, H, W, C) float; what is no picture stays, but for
            "mixup", which takes floats of any shape.
        kinds: "flip" mirrors each with even chance; "crop" moves each by up to an eighth of its
            side, the border mirrored; "mixup" adds another of the batch to each, in shares.
        rng: random numbers.

    Returns:
        Arrays of the same shapes.

    Raises:
        InputError: if nothing fed is of a kind that can be turned.
    """
    made = dict(feeds)
    n = len(next(iter(made.values())))
    shares, partners = rng.random(n), rng.permutation(n)
    for kind in kinds:
        turned = 0
        for name, array in made.items():
            axes = _places(array)
            if kind == "mixup" and array.dtype.kind == "f":
                made[name] = _mixed(array, shares, partners)
            elif kind == "flip" and axes:
                chosen = rng.random(n) < 0.5
                made[name] = _flipped(array, axes, chosen)
            elif kind == "crop" and axes:
                made[name] = _moved(array, axes, rng.integers(0, 2**31, size=(n, 2)))
            else:
                continue
            turned += 1
        if not turned:
            raise InputError(f"augment: {kind!r} is for pictures, and none is fed")
    return made


def _places(array: Array) -> tuple[int, int] | None:
    # Axes of height and width in one picture, without the batch.
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    if array.shape[1] in {1, 3}:
        return 1, 2
    return (0, 1) if array.shape[3] in {1, 3} else None


def _flipped(pictures: Array, axes: tuple[int, int], chosen: NDArray[np.bool_]) -> Array:
    made = pictures.copy()
    made[chosen] = np.flip(made[chosen], axes[1] + 1)
    return made


def _moved(pictures: Array, axes: tuple[int, int], moves: NDArray[np.int64]) -> Array:
    made = pictures.copy()
    for i, pair in enumerate(moves.tolist()):
        for axis, number in zip(axes, pair, strict=True):
            size = pictures.shape[axis + 1]
            most = size // _MOVE
            # Which place each place is a copy of; the border is mirrored.
            places = np.pad(np.arange(size), most, mode="reflect")
            start = number % (2 * most + 1)
            made[i] = made[i].take(places[start : start + size], axis=axis)
    return made


def _mixed(array: Array, shares: NDArray[np.float64], partners: NDArray[np.int64]) -> Array:
    part = shares.reshape(-1, *(1,) * (array.ndim - 1))
    numbers = array.astype(np.float64)
    mixed: Array = (part * numbers + (1 - part) * numbers[partners]).astype(array.dtype)
    return mixed
