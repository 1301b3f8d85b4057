"""What stands in a text in the place of what is personal; kept in memory, for one request."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Final

from onhand.device.privacy.spans import Found, Kind

__all__ = ["PATTERN", "TAGS", "Placeholders"]

TAGS: Final[Mapping[Kind, str]] = {
    "secret": "SECRET",
    "url": "URL",
    "email": "EMAIL",
    "iban": "IBAN",
    "id": "ID",
    "card": "CARD",
    "phone": "PHONE",
    "host": "HOST",
    "name": "NAME",
}
PATTERN: Final = re.compile(
    rf"\[({'|'.join(TAGS.values())})([A-Z]*)([0-9]{{1,7}})\]", re.IGNORECASE
)
"""Letters, digits and brackets alone: no writer of JSON or HTML escapes them."""


class Placeholders:
    """Values and the words that stand for them: one request's. One thread at a time.

    The same value has the same word, and words are counted in the order in which values come: a
    conversation that is sent again with one more turn has the same words as before.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Begin without any.

        Args:
            texts: all of the request, plain: none of its words may be taken for one of these.
        """
        taken = {
            match[2].upper() for text in texts if "[" in text for match in PATTERN.finditer(text)
        }
        self._mark = next(mark for mark in _marks() if mark not in taken)
        self._words: dict[tuple[Kind, str], str] = {}
        self._values: dict[str, str] = {}
        self._counts: Counter[Kind] = Counter()

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many values of each kind there are."""
        return dict(self._counts)

    def word(self, found: Found, written: str) -> str:
        """Return what stands for a value.

        Args:
            found: it.
            written: as the text has it; what its first one was is what comes back.

        Returns:
            Such as "[EMAIL1]".
        """
        key = (found.kind, found.value)
        if key not in self._words:
            self._counts[found.kind] += 1
            word = f"[{TAGS[found.kind]}{self._mark}{self._counts[found.kind]}]"
            self._words[key] = word
            self._values[word] = written
        return self._words[key]

    def value(self, word: str) -> str | None:
        """Return what a word stands for, however its letters are written; None for no word.

        Args:
            word: with its brackets.
        """
        return self._values.get(word.upper())


def _marks() -> Iterable[str]:
    yield ""
    letters = "QXZJKVWYBCDFGHLMNPRST"
    length = 1
    while True:
        yield from map("".join, product(letters, repeat=length))
        length += 1
