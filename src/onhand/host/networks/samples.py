"""Examples that networks are calibrated with, trained with and judged by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.annotations import Truth
from onhand.host.networks.graph import Array

__all__ = ["Feeds", "Samples"]


class Feeds(Protocol):
    """Examples one by one, which may be read from files only when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, i: int, /) -> Mapping[str, Array]:
        """Return one: name of an input -> array (1, ...)."""
        ...


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of them."""

    feeds: Feeds
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Mapping[str, Array]:
        return self.feeds[self.indices[i]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Examples, ready to be fed.

    Attributes:
        feeds: of each example, name of an input -> array (1, ...).
        labels: of each example, the number of its class; None where nobody knows.
        truths: of each picture, what is where in it; None where nobody knows.
    """

    feeds: Feeds
    labels: Sequence[int] | None = None
    truths: Sequence[Truth] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.feeds):
            raise InputError(f"{len(self.labels)} labels for {len(self.feeds)} examples")
        if self.truths is not None and len(self.truths) != len(self.feeds):
            raise InputError(f"boxes of {len(self.truths)} of {len(self.feeds)} pictures")

    def __len__(self) -> int:
        return len(self.feeds)

    def part(self, indices: Sequence[int]) -> "Samples":
        """Return some of them, in the order of `indices`."""
        return Samples(
            feeds=_Part(self.feeds, indices),
            labels=None if self.labels is None else [self.labels[i] for i in indices],
            truths=None if self.truths is None else [self.truths[i] for i in indices],
        )

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Yield name -> array (up to `size`, ...); examples of other shapes begin a new batch.

        One that is more than a row of each input (a state with the batch in another place, a
        single number) is a batch of its own.
        """
        batch: list[Mapping[str, Array]] = []
        for i in range(len(self.feeds)):
            feed = self.feeds[i]
            whole = len(batch) == size or not _is_row(feed)
            if batch and (whole or _shapes(feed) != _shapes(batch[0])):
                yield _joined(batch)
                batch = []
            batch.append(feed)
        if batch:
            yield _joined(batch)

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return name -> array (len(indices), ...) of some examples of the same shapes.

        Raises:
            InputError: if one of several is no row of its inputs.
        """
        for i in indices if len(indices) > 1 else ():
            if not _is_row(self.feeds[i]):
                odd = next(n for n, a in self.feeds[i].items() if a.shape[:1] != (1,))
                raise InputError(
                    f"input {odd!r} of an example has shape {self.feeds[i][odd].shape}: examples "
                    "are joined along a first size of 1; export the network with the batch first"
                )
        return _joined([self.feeds[i] for i in indices])


def _is_row(feed: Mapping[str, Array]) -> bool:
    return all(array.shape[:1] == (1,) for array in feed.values())


def _shapes(feed: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _joined(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
