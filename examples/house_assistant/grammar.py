"""The written grammar: phrasings and words read from `phrasings/*.toml`, and how one is drawn.

Every list has a `train` part and mostly a `held` part. Training draws from `train` alone; the
held-out sets draw from both, and note each time they took something that training never sees.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal

__all__ = [
    "Draw",
    "Language",
    "Rules",
    "Split",
    "forms",
    "is_held",
    "languages",
    "meanings",
    "misspellings",
    "open_words",
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
        train: phrasings that training sees, with (a|b) alternatives.
        held: phrasings that only the held-out sets use, likewise.
        held_forms: what the held phrasings say once their alternatives are chosen; training
            skips what its own alternatives happen to make of these.
    """

    train: tuple[str, ...]
    held: tuple[str, ...] = ()
    held_forms: frozenset[str] = frozenset()


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
                entry = self._choose(self.rng.choice(held))
                self.held.add((kind, entry))
                return entry
        known: Sequence[str] = source.train
        if fits is not None:
            known = [entry for entry in known if fits(entry)]
        while True:
            entry = self._choose(self.rng.choice(known))
            if entry not in source.held_forms:
                return entry

    def _choose(self, entry: str) -> str:
        """Choose among the alternatives of a phrasing, and tidy the spaces they leave."""
        if "|" not in entry:
            return entry
        chosen = "".join(self.rng.choice(part) for part in _alternatives(entry))
        # A joint of clauses begins and ends with a space.
        return re.sub(r"  +", " ", chosen)

    def fill(self, template: str, slots: Mapping[str, str]) -> str:
        """Fill the slots of a template.

        Args:
            template: text with {slot}s, as `pick` returned it.
            slots: what each slot says; more than the template needs is fine.

        Raises:
            KeyError: if the template has a slot that is not given.
        """
        parts: list[str] = []
        for part in _compiled(template):
            if part.startswith("{"):
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
    path = Path(__file__).parent / "phrasings" / f"{language}.toml"
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
    held = tuple(node.get("held", ()))
    return Rules(
        tuple(node.get("train", ())), held, frozenset(form for one in held for form in forms(one))
    )


@cache
def open_words(language: Language, name: str) -> tuple[str, ...]:
    """Look up ordinary words that training uses as names, from `phrasings/words.toml`.

    Args:
        language: which grammar.
        name: the kind of word, such as "nouns".
    """
    path = Path(__file__).parent / "phrasings" / "words.toml"
    text: str = tomllib.loads(path.read_text(encoding="utf-8"))[language][name]
    return tuple(word.strip() for word in (text.split(",") if "," in text else text.split()))


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


def _training_entries(node: object, skip: Collection[str]) -> Iterator[str]:
    """Yield the entries and fixed phrases of all training lists but those in `skip`."""
    if isinstance(node, list):
        yield from map(str, node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                yield key
            elif key != "held" and key not in skip:
                yield from _training_entries(value, skip)


@cache
def training_words(*, skip: tuple[str, ...] = (), shortest: int = 4) -> tuple[str, ...]:
    """Return the English words in the training lists, in small letters and in order.

    Args:
        skip: lists to leave out.
        shortest: letters that a word has at least.
    """
    found: set[str] = set()
    for entry in _training_entries(_table("en"), skip):
        found.update(re.findall(r"[a-z]+", _SLOT.sub(" ", entry).lower()))
    return tuple(sorted(word for word in found if len(word) >= shortest))


@cache
def _compiled(template: str) -> tuple[str, ...]:
    """Cut a template into literals and {slots}."""
    return tuple(re.findall(r"\{\w+\}|[^{}]+", template))


@cache
def _alternatives(entry: str) -> tuple[tuple[str, ...], ...]:
    """Cut a phrasing into its fixed parts, as tuples of one, and its (a|b) alternatives."""
    return tuple(
        tuple(piece[1:-1].split("|")) if piece.startswith("(") else (piece,)
        for piece in re.findall(r"\([^()]*\)|[^()]+", entry)
    )


def forms(entry: str) -> Iterator[str]:
    """Write out everything that a phrasing may say, its {slots} left open.

    Args:
        entry: a phrasing with (a|b) alternatives.

    Yields:
        one text for each choice; a few may come again.
    """
    for parts in product(*_alternatives(entry)):
        yield re.sub(r"  +", " ", "".join(parts))


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
