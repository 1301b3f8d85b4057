"""Labelled texts, pictures and sounds as a lesson of classes takes them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.feed import TextFeed
from onhand.device.learning.base import Feeds, Teachable
from onhand.device.learning.examples import Example, Labelled
from onhand.device.networks.inputs import example_from_file
from onhand.device.networks.texts import TextReader, open_texts

__all__ = ["ClassSource", "classes_of"]

_KEPT_BYTES: Final = 64 * 2**20


def classes_of(
    examples: Iterable[Example], known: Sequence[str], *, n_known: int, can_grow: bool
) -> tuple[str, ...]:
    """Return the names of all classes, those that examples bring at the end.

    Args:
        examples: all of them labelled.
        known: names of the classes; empty where they have none.
        n_known: how many there are.
        can_grow: whether more may be added.

    Returns:
        The names, in the order of their numbers; numbers as texts where they have no names.

    Raises:
        InputError: if an example is not labelled, or its class is unknown and none may be added.
    """
    names = list(known) or [str(number) for number in range(n_known)]
    numbers = {name: number for number, name in enumerate(names)}
    for example in examples:
        if not isinstance(example, Labelled):
            raise InputError(
                f"{example.where}: is no labelled example; give text and label, path and label, or "
                "a folder for each class"
            )
        if example.label in numbers:
            continue
        if not can_grow:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            unnamed = "" if known else "; a build with --labels FILE names them"
            raise InputError(
                f"{example.where}: class {example.label!r} is unknown, and this lesson adds none; "
                f"known: {shown}{unnamed}"
            )
        numbers[example.label] = len(names)
        names.append(example.label)
    return tuple(names)


class ClassSource:
    """Examples of a classifier. See `Source`.

    What the trunk gives of an example is kept, up to a number of bytes, so that it is computed
    once; the inputs themselves are read again each time, for pictures are many and large.
    """

    def __init__(
        self,
        bundle: Bundle,
        teachable: Teachable,
        classes: Sequence[str],
        examples: Iterable[Example] = (),
        *,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        """Take examples; more may be added.

        Args:
            bundle: of a network: says how it is fed.
            teachable: its lesson, whose trunk is run.
            classes: their names, as `classes_of` returns them.
            examples: all of them labelled.
            kept_bytes: of what the trunk gave.

        Raises:
            InputError: if an example's class is not among them.
        """
        self._network = bundle.manifest.network
        self._teachable = teachable
        self._numbers = {name: number for number, name in enumerate(classes)}
        self._is_text = isinstance(self._network.feed, TextFeed)
        self._reader: TextReader | None = open_texts(bundle) if self._is_text else None
        self._examples: list[Labelled] = []
        self._kept: dict[int, np.ndarray] = {}
        self._room = kept_bytes
        self._has_length = False
        self.cut: set[int] = set()
        """Texts of which the end did not fit."""
        self.add(examples)

    def __len__(self) -> int:
        """See `Source`."""
        return len(self._examples)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64: the classes of all examples."""
        return np.array([self._numbers[one.label] for one in self._examples], dtype=np.int64)

    def add(self, examples: Iterable[Example]) -> None:
        """Add examples at the end.

        Raises:
            InputError: if one is not labelled, its class is not known, or it is of another kind
                than the network takes.
        """
        for one in examples:
            if not isinstance(one, Labelled) or one.label not in self._numbers:
                raise InputError(f"{one.where}: is not labelled with one of the classes")
            if isinstance(one.given, Path) and self._is_text:
                raise InputError(f"{one.where}: is a file, this network takes texts")
            if isinstance(one.given, str) and not self._is_text:
                raise InputError(f"{one.where}: is a text, this network takes files")
            self._examples.append(one)

    def weight(self, number: int) -> float:
        """See `Source`: each example counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """See `Source`.

        Raises:
            InputError: if a file cannot be read.
        """
        has_trunk = self._teachable.lesson.trunk is not None
        given = {"latent": self._latents(numbers)} if has_trunk else self._inputs(numbers)
        labels = [self._numbers[self._examples[number].label] for number in numbers]
        return given | {
            "labels": np.array(labels, dtype=np.int64),
            "weights": np.full(len(numbers), scale, dtype=np.float32),
        }

    def _inputs(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the network's inputs for some examples, one row each.

        Raises:
            InputError: if a file cannot be read.
        """
        chosen = [self._examples[number] for number in numbers]
        if self._reader is not None:
            batch = self._reader.batch([str(one.given) for one in chosen])
            self.cut |= {n for n, cut in zip(numbers, batch.cut, strict=True) if cut}
            return dict(batch.feeds)
        rows: list[dict[str, np.ndarray]] = []
        for one in chosen:
            try:
                rows.append(example_from_file(Path(one.given), self._network)[0])
            except InputError as error:
                raise InputError(f"{one.where}: {error}") from error
        return {
            info.name: np.concatenate([row[info.name] for row in rows])
            for info in self._network.inputs
        }

    def _latents(self, numbers: Sequence[int]) -> np.ndarray:
        """Return what the trunk gives of some examples.

        Each is run alone: what comes out of a larger run depends, in its last bit, on what else is
        in it, and a training that is resumed would not be the one that was broken off.
        """
        if self._is_text and self._has_length:
            return self._teachable.latent(self._inputs(numbers))
        rows: list[np.ndarray] = []
        for number in numbers:
            row = self._kept.get(number)
            if row is None:
                found = self._teachable.latent(self._inputs([number]))
                if self._is_text and found.ndim > 2:
                    # As long as the text: only those of one run have one length.
                    self._has_length = True
                    return self._teachable.latent(self._inputs(numbers))
                row = found[0]
                self._keep(number, row)
            rows.append(row)
        return np.stack(rows)

    def _keep(self, number: int, row: np.ndarray) -> None:
        if row.nbytes <= self._room:
            self._room -= row.nbytes
            self._kept[number] = row.copy()
