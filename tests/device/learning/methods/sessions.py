"""Sessions of learning by plain gradient descent, as a trainer would make them."""

from collections.abc import Iterator, Sequence

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Feeds, Teachable
from onhand.device.learning.methods.base import Method

Values = dict[str, FloatArray]


def batches(data: Feeds, n: int, *, epochs: int, seed: int) -> Iterator[tuple[Feeds, bool]]:
    """Yield shuffled batches of a classifier's data, and whether they are new."""
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = rng.permutation(len(data["labels"]))
        for first in range(0, len(order), n):
            rows = order[first : first + n]
            batch = {name: array[rows] for name, array in data.items()}
            weights = np.full(len(rows), 1 / len(rows), np.float32)
            yield batch | {"weights": weights}, epoch == 0


def step(
    method: Method, teachable: Teachable, values: Values, batch: Feeds, *, first: bool, rate: float
) -> Values:
    """Return the values after one batch."""
    if not method.trains:
        if first:
            method.after(teachable, values, batch, None, first=True)
        return values
    taught = teachable.teach(values, method.feeds(teachable, values, batch))
    gradients = method.adjust(values, taught.gradients)
    moved = {name: value - np.float32(rate) * gradients[name] for name, value in values.items()}
    held = method.hold(values, moved)
    method.after(teachable, values, batch, taught, first=first)
    return held


def session(
    method: Method,
    teachable: Teachable,
    values: Values,
    given: Sequence[tuple[Feeds, bool]],
    *,
    width: int,
    known: int | None = None,
    rate: float = 0.3,
) -> Values:
    """Return the values after a session."""
    values = method.begin(teachable, values, width=width, known=known)
    for batch, first in given:
        values = step(method, teachable, values, batch, first=first, rate=rate)
    return method.end(teachable, values)
