"""The written grammar: phrasings and words read from `grammar/*.toml`, and how one is drawn.

Every list has a `train` part and mostly a `held` part. Training draws from `train` alone; the
held-out sets draw from both, and note each time they took something that training never sees.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = [
    "Draw",
    "Language",
    "Rules",
    "Split",
    "is_held",
    "languages",
    "meanings",
    "misspellings",
    "rules",
    "training_words",
    "words_of",
]

Split = Literal["train", "held"]
Language = Literal["en", "zh"]
languages: tuple[Language, ...] = ("en", "zh")

# How often the held-out sets take the held part of a list, where there is one.
HELD_SHARE = 0.5

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Rules:
    """One list of the grammar.

    Attributes:
        train: phrasings that training sees.
        held: phrasings that only the held-out sets use.
    """

    train: tuple[str, ...]
    held: tuple[str, ...] = ()


@dataclass(slots=True)
class Draw:
    """The random choices behind one command.

    Attributes:
        rng: the source of chance.
        split: "train" never takes a held rule, name or misspelling.
        sloppy: whether words are misspelt in this command.
        held: what was drawn that training never sees: its kind, "rule", "name" or "misspelling",
            and its text, which need not have come into the command.
        nouns: the names spoken so far, as they stand in the command.
    """

    rng: random.Random
    split: Split
    sloppy: bool = False
    held: set[tuple[str, str]] = field(default_factory=set)
    nouns: list[str] = field(default_factory=list)

    def chance(self, share: float) -> bool:
        """Return True in this share of the draws, 0 to 1."""
        return self.rng.random() < share

    def pick(self, source: Rules, kind: str = "rule") -> str:
        """Choose one entry, from the part of the list that the split allows.

        Args:
            source: the list.
            kind: what a held entry counts as, see `held`.
        """
        return self.pick_where(source, kind=kind)

    def pick_where(
        self, source: Rules, *, fits: Callable[[str], bool] | None = None, kind: str = "rule"
    ) -> str:
        """Choose one entry among those that fit; the training part has at least one.

        Args:
            source: the list.
            fits: says which entries may be taken; all of them when not given.
            kind: what a held entry counts as, see `held`.
        """
        if self.split == "held" and source.held and self.chance(HELD_SHARE):
            held = [entry for entry in source.held if fits is None or fits(entry)]
            if held:
                entry = self.rng.choice(held)
                self.held.add((kind, entry))
                return entry
        if fits is None:
            return self.rng.choice(source.train)
        return self.rng.choice([entry for entry in source.train if fits(entry)])

    def fill(self, template: str, slots: Mapping[str, str]) -> str:
        """Choose among the template's alternatives and fill its slots.

        Args:
            template: text with (a|b) alternatives and {slot}s.
            slots: what each slot says; more than the template needs is fine.

        Raises:
            KeyError: if the template has a slot that is not given.
        """
        parts: list[str] = []
        for part in _compiled(template):
            if isinstance(part, tuple):
                parts.append(self._literal(self.rng.choice(part)))
            elif part.startswith("{"):
                parts.append(slots[part[1:-1]])
            else:
                parts.append(self._literal(part))
        return "".join(parts)

    def _literal(self, text: str) -> str:
        if not self.sloppy or not text.isascii():
            return text
        text = text.replace("turn off", "turn of").replace("'", "")
        words = text.split(" ")
        for place, word in enumerate(words):
            if len(word) >= 5 and word.isalpha() and self.chance(0.2):
                words[place] = self.misspell(word)
        return " ".join(words)

    def misspell(self, word: str) -> str:
        """Slip once in a word of letters, in a way that the split allows.

        Args:
            word: at least four letters; anything shorter comes back as it is.
        """
        if len(word) < 4:
            return word
        for _ in range(20 if self.split == "train" else 60):
            slipped = _slip(self.rng, word)
            if slipped == word or slipped in words_of("en"):
                continue
            if is_held(slipped) == (self.split == "held"):
                if self.split == "held":
                    self.held.add(("misspelling", slipped))
                return slipped
        return word

    def kinds_in(self, command: str) -> tuple[str, ...]:
        """Say which kinds of held entries stand in a command, in order of the alphabet.

        Args:
            command: the finished text.
        """
        text = command.lower()
        return tuple(sorted({kind for kind, entry in self.held if _stands_in(entry, text)}))


def is_held(text: str) -> bool:
    """Say whether a made-up name or a misspelling belongs to the held-out sets alone."""
    return hashlib.sha256(text.lower().encode()).digest()[0] % 6 == 0


def _stands_in(entry: str, text: str) -> bool:
    """Say whether all the fixed words of a phrasing stand in a text of small letters."""
    pieces = re.split(r"\{\w+\}|\([^()]*\)|X", entry)
    fixed = [piece.strip(" ,").lower() for piece in pieces]
    return any(fixed) and all(piece in text for piece in fixed)


@cache
def _table(language: Language) -> Mapping[str, object]:
    path = Path(__file__).parent / "grammar" / f"{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def rules(language: Language, name: str) -> Rules:
    """Look up one list, such as "ask.temperature"; an unknown one is empty.

    Args:
        language: which grammar.
        name: the keys of the table, joined by dots.
    """
    node: object = _table(language)
    for key in name.split("."):
        node = node.get(key, {}) if isinstance(node, dict) else {}
    if not isinstance(node, dict):
        return Rules(())
    return Rules(tuple(node.get("train", ())), tuple(node.get("held", ())))


@cache
def meanings(language: Language, name: str) -> tuple[Rules, Mapping[str, str]]:
    """Look up fixed phrases and what each stands for, such as "means.color".

    Args:
        language: which grammar.
        name: the keys of the table, joined by dots.
    """
    node: object = _table(language)
    for key in name.split("."):
        node = node.get(key, {}) if isinstance(node, dict) else {}
    parts = node if isinstance(node, dict) else {}
    train: dict[str, str] = parts.get("train", {})
    held: dict[str, str] = parts.get("held", {})
    return Rules(tuple(train), tuple(held)), {**train, **held}


@cache
def misspellings() -> tuple[Mapping[str, Rules], frozenset[str]]:
    """Return the Chinese words that are written wrong, and all the wrong forms."""
    table = _table("zh")["misspelling"]
    if not isinstance(table, dict):
        return {}, frozenset()
    found = {
        word: Rules(tuple(wrong), tuple(table["held"].get(word, ())))
        for word, wrong in table["train"].items()
    }
    return found, frozenset(w for r in found.values() for w in (*r.train, *r.held))


@cache
def words_of(language: Language) -> frozenset[str]:
    """Return every word that stands in an English list, or every entry of a Chinese one."""
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for entry in node:
                text = _SLOT.sub(" ", str(entry))
                found.update(re.findall(r"[\w']+", text) if language == "en" else (text,))

    visit(dict(_table(language)))
    return frozenset(word.lower() for word in found)


@cache
def training_words() -> tuple[str, ...]:
    """Return the English words of four letters or more in the training lists, in order."""
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key != "held":
                    visit(value)
        elif isinstance(node, list):
            for entry in node:
                found.update(re.findall(r"[a-z]{4,}", _SLOT.sub(" ", str(entry)).lower()))

    visit(dict(_table("en")))
    return tuple(sorted(found))


@cache
def _compiled(template: str) -> tuple[str | tuple[str, ...], ...]:
    """Cut a template into literals, {slots} and tuples of alternatives."""
    parts: list[str | tuple[str, ...]] = []
    for piece in re.findall(r"\{\w+\}|\([^()]*\)|[^{}()]+", template):
        parts.append(tuple(piece[1:-1].split("|")) if piece.startswith("(") else piece)
    return tuple(parts)


_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _slip(rng: random.Random, word: str) -> str:
    """Drop, double, swap or replace one letter that is not the first."""
    place = rng.randrange(1, len(word))
    letter = word[place]
    if not letter.isalpha():
        return word
    kind = rng.random()
    if kind < 0.35:
        return word[:place] + word[place + 1 :]
    if kind < 0.5:
        return word[:place] + letter + word[place:]
    if kind < 0.8 and place + 1 < len(word) and word[place + 1].isalpha():
        return word[:place] + word[place + 1] + letter + word[place + 2 :]
    row = next((row for row in _ROWS if letter in row), None)
    if row is None:
        return word
    near = row[max(0, row.index(letter) - 1) : row.index(letter) + 2].replace(letter, "")
    return word[:place] + rng.choice(near) + word[place + 1 :]
