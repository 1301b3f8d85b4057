"""Names of persons, found by a bundle that labels each token of a text."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from onhand.core.errors import InputError
from onhand.device.networks.base import Array
from onhand.device.networks.texts import TextBatch
from onhand.device.privacy.spans import Found

__all__ = ["NameFinder", "TokenLabels"]

_PERSON: Final = frozenset({"PER", "PERSON", "NAME"})
_MOST_LETTERS: Final = (
    2000  # of a text that is read at once; longer ones are cut at a line or space
)
_LEAST_LETTERS: Final = 8


class TokenLabels(Protocol):
    """A network that gives each token of a text a score for each of its labels."""

    @property
    def labels(self) -> Sequence[str]:
        """Such as "O", "B-PER", "I-PER"."""
        ...

    def read(self, text: str) -> TextBatch:
        """Return a text's input arrays, and whether its end was cut."""
        ...

    def places(self, text: str) -> Sequence[tuple[int, int]]:
        """Return where each token of it begins and ends; the same for one that stands for none."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Compute; the first output is (1, T, C)."""
        ...


class NameFinder:
    """See `Detector`: it is called with the plain form of a text. Threads may share it."""

    def __init__(self, network: TokenLabels, *, where: str) -> None:
        """Take a network.

        Args:
            network: one that is open; closed by whoever opened it.
            where: its name, for messages.

        Raises:
            InputError: if none of its labels is that of a person.
        """
        self._network = network
        self._where = where
        self._persons = {index for index, label in enumerate(network.labels) if _is_person(label)}
        self._first = {
            index for index in self._persons if network.labels[index].upper().startswith("B-")
        }
        if not self._persons:
            raise InputError(
                f"{where}: finds no names: none of its labels is PER or PERSON, as in B-PER"
            )

    def __call__(self, text: str) -> list[Found]:
        """Find names.

        Args:
            text: plain form.

        Raises:
            InputError: if the network's output is not one score for each token and label.
        """
        found: list[Found] = []
        at = 0
        while at < len(text):
            end = _end_of_part(text, at, _MOST_LETTERS)
            batch = self._network.read(text[at:end]) if text[at:end].strip() else None
            while batch is not None and batch.cut[0] and end - at > _LEAST_LETTERS:
                end = _end_of_part(text, at, (end - at) // 2)
                batch = self._network.read(text[at:end])
            if batch is not None:
                for one in self._named(text[at:end], batch.feeds, at):
                    # Where a part ends within a name, the next one goes on with it.
                    last = found.pop() if found and _touch(text, found[-1], one, at) else None
                    found.append(one if last is None else _joined(text, last, one))
            at = end
        return found

    def _named(self, text: str, feeds: Mapping[str, Array], offset: int) -> list[Found]:
        scores = np.asarray(next(iter(self._network.run(feeds).values())))
        places = self._network.places(text)
        if scores.shape != (1, len(places), len(self._network.labels)):
            raise InputError(
                f"{self._where}: its first output is {scores.shape}, must be one score for each of "
                f"{len(places)} tokens and {len(self._network.labels)} labels"
            )
        found: list[Found] = []
        last = -1
        for token, label in enumerate(scores[0].argmax(axis=1)):
            start, end = places[token]
            if label not in self._persons or end <= start:
                continue
            goes_on = bool(found) and last == token - 1 and label not in self._first
            if goes_on:
                start = found.pop().start - offset
            name = text[start:end]
            found.append(
                Found(kind="name", start=start + offset, end=end + offset, value=name.casefold())
            )
            last = token
        return found


def _touch(text: str, last: Found, one: Found, border: int) -> bool:
    return last.end <= border <= one.start and not text[last.end : one.start].strip()


def _joined(text: str, last: Found, one: Found) -> Found:
    value = text[last.start : one.end].casefold()
    return Found(kind="name", start=last.start, end=one.end, value=value)


def _is_person(label: str) -> bool:
    return label.upper().removeprefix("B-").removeprefix("I-") in _PERSON


def _end_of_part(text: str, at: int, most: int) -> int:
    """Return where a part of a text ends, between two words where there are any."""
    if len(text) - at <= most:
        return len(text)
    for mark in ("\n", "。", ". ", " "):
        found = text.rfind(mark, at + most // 2, at + most)
        if found > at:
            return found + len(mark)
    return at + most
