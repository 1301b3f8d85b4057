"""Examples that networks are calibrated with, trained with and judged by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array

__all__ = ["Samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Examples, ready to be fed.

    Attributes:
        feeds: of each example, name of an input -> array (1, ...).
        labels: of each example, the number of its class; None where nobody knows.
    """

    feeds: Sequence[Mapping[str, Array]]
    labels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.feeds):
            raise InputError(f"{len(self.labels)} labels for {len(self.feeds)} examples")

    def __len__(self) -> int:
        return len(self.feeds)

    def part(self, indices: Sequence[int]) -> "Samples":
        """Return some of them, in the order of `indices`."""
        return Samples(
            feeds=[self.feeds[i] for i in indices],
            labels=None if self.labels is None else [self.labels[i] for i in indices],
        )

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Yield name -> array (up to `size`, ...); examples of other shapes begin a new batch."""
        for indices in self.batch_indices(size):
            yield self.batch(indices)

    def batch_indices(self, size: int) -> Iterator[list[int]]:
        """Yield the indices of each batch, in order."""
        batch: list[int] = []
        shapes: dict[str, tuple[int, ...]] = {}
        for i, feed in enumerate(self.feeds):
            found = {name: array.shape for name, array in feed.items()}
            if batch and (len(batch) == size or found != shapes):
                yield batch
                batch = []
            shapes = found
            batch.append(i)
        if batch:
            yield batch

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return name -> array (len(indices), ...) of some examples of the same shapes."""
        names = self.feeds[indices[0]]
        return {name: np.concatenate([self.feeds[i][name] for i in indices]) for name in names}
