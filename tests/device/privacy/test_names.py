"""Names, by a network that labels tokens."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.device.networks.base import Array
from onhand.device.networks.texts import TextBatch
from onhand.device.privacy.names import NameFinder

LABELS = ("O", "B-PER", "I-PER", "B-LOC")


class Words:
    """A network whose tokens are words: those with a capital are names, "Von" goes on with one."""

    def __init__(self, *, labels: Sequence[str] = LABELS, most: int = 1000) -> None:
        self.labels = labels
        self.n_read = 0
        self._most = most
        self._words: list[re.Match[str]] = []

    def read(self, text: str) -> TextBatch:
        """Words."""
        self.n_read += 1
        self._words = list(re.finditer(r"\w+", text))
        ids = np.zeros((1, len(self._words) + 2), dtype=np.int64)
        return TextBatch(feeds={"ids": ids}, cut=(len(self._words) > self._most,))

    def places(self, text: str) -> Sequence[tuple[int, int]]:
        """Where they are."""
        return [(0, 0), *(word.span() for word in self._words), (0, 0)]

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Capitals."""
        scores = np.zeros((1, feeds["ids"].shape[1], len(LABELS)), dtype=np.float32)
        scores[0, :, 0] = 0.5
        before = False
        for place, word in enumerate(self._words, start=1):
            is_name = word.group()[0].isupper()
            scores[0, place, 2 if before else 1] = is_name
            before = is_name
        scores[0, [0, -1], 1] = 1  # what stands for no text has no name
        return {"logits": scores}


def names(text: str, *, most: int = 1000) -> list[str]:
    """The parts of a text."""
    return [text[one.start : one.end] for one in NameFinder(Words(most=most), where="ner")(text)]


def test_names_of_several_words_are_one() -> None:
    """The first word begins it, the next ones go on."""
    assert names("ask Ada Lovelace about Bob") == ["Ada Lovelace", "Bob"]


def test_long_texts_are_read_in_parts() -> None:
    """By what the network reads at once, between words."""
    text = "today " * 900 + "Ada Lovelace said so"

    assert names(text, most=50) == ["Ada Lovelace"]
    assert names(" \n ") == []


def test_a_network_without_persons_finds_no_names() -> None:
    """It is refused when it is opened."""
    with pytest.raises(InputError, match="none of its labels is PER"):
        NameFinder(Words(labels=("O", "B-LOC")), where="ner")


def test_scores_must_be_of_tokens() -> None:
    """A network that gives one vector for a text is no such network."""
    with pytest.raises(InputError, match="must be one score for each"):
        NameFinder(Words(labels=("O", "B-PER")), where="ner")("Ada")
