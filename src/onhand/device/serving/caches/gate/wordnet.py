"""Princeton's WordNet, read from its own files into what the gate asks of a lexicon.

Of a folder `dict` (Debian's package `wordnet-base` has it in /usr/share/wordnet) are read
`data.noun` and the like, `index.noun` and the like, and how often people meant what: `index.sense`,
or else `cntlist.rev`. What is taken: words that stand for one another in a sense that both are
often used in; opposites; doings and qualities beside the nouns made of them; and which words name
things, which may not be replaced by others, and which can be said in other words.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON, Lexicon, pair_of

__all__ = ["read_lexicon"]

# Files of nouns that name no things: acts, attributes, cognition, communication, groups of them.
_ABSTRACT: Final = {"03", "04", "07", "09", "10", "16", "22", "23", "24", "25"}
_RELATIONAL: Final = "01"  # adjectives made of nouns, as "chemical"
_PARTS: Final = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_PART_OF_NUMBER: Final = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
_LEAST_SHARE: Final = 0.15  # of a word's uses that are in the sense
_MOST_BYTES: Final = 2**26
_WORD: Final = re.compile(r"[a-z]{2,}")
_NOUNS_OF: Final = (
    "ion",
    "ment",
    "ance",
    "ence",
    "ancy",
    "ency",
    "al",
    "ing",
    "ure",
    "ity",
    "ness",
    "ly",
)
_DOERS: Final = ("er", "or", "ee", "ist", "ism")

_Place = tuple[str, str]  # part of speech, offset


@dataclass(frozen=True, slots=True)
class _Sense:
    """Words that share a meaning, and those that it denies or that are made of it."""

    place: _Place
    file: str
    words: tuple[str, ...]
    pointers: tuple[tuple[str, _Place, int, int], ...]  # symbol, other sense, word here, word there


@dataclass(frozen=True, slots=True)
class _Uses:
    """How often words are meant how."""

    counts: Mapping[tuple[str, _Place], int]
    firsts: frozenset[tuple[str, _Place]]
    tagged: Mapping[str, int]
    n_senses: Mapping[str, int]

    def share(self, word: str, place: _Place) -> float:
        """Return about what share of a word's uses is in a sense."""
        every = max(self.tagged.get(word, 0) + 0.5 * self.n_senses[word], 0.5)
        return (self.counts.get((word, place), 0) + 0.5) / every


def read_lexicon(folder: Path) -> Lexicon:
    """Read WordNet's files, beside the lists of this package; takes a second or two.

    Args:
        folder: of `data.noun`, `index.noun` and the like.

    Returns:
        All that is known of English words.

    Raises:
        InputError: if the folder or one of its files is missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(
            f"semantic_words: there is no folder {folder}; install WordNet's files (Debian: apt "
            f'install wordnet-base, then /usr/share/wordnet) or set it to ""'
        )
    senses = [sense for name in _PARTS for sense in _senses(folder, name)]
    uses = _uses(folder, {sense.place for sense in senses})
    for sense in senses:
        for word in sense.words:
            if word.islower() and word not in uses.n_senses:
                raise InputError(
                    _damaged(folder / "index.*", f"the word {word!r} of {sense.place} is missing")
                )
    opposite, derived = _pointed(folder, senses, uses.tagged)
    known, loose = _classified(senses, uses)
    own = OWN_LEXICON
    opposite |= own.opposite
    return Lexicon(
        same=frozenset((own.same | derived | set(_same(senses, uses))) - opposite),
        opposite=frozenset(opposite),
        known=own.known | known,
        loose=own.loose | loose,
        is_wide=True,
    )


def _damaged(path: Path, why: str) -> str:
    return (
        f"semantic_words: {path}: {why}; install WordNet's files anew (Debian: apt install "
        f'--reinstall wordnet-base) or set it to ""'
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, but for the licence at its top.

    Raises:
        InputError: if it is missing, too large, no text, cut off or empty.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(_damaged(path, f"it is larger than {_MOST_BYTES} bytes"))
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(_damaged(path, f"it cannot be read ({error.strerror})")) from error
    except UnicodeDecodeError as error:
        raise InputError(_damaged(path, "it is no text")) from error
    if not text.endswith("\n"):
        raise InputError(_damaged(path, "it is empty or cut off"))
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        if not line.startswith("  "):
            yield number, line


def _senses(folder: Path, name: str) -> Iterator[_Sense]:
    """Yield the senses of a part of speech.

    Raises:
        InputError: if the file is missing or damaged.
    """
    path, part_of_speech = folder / f"data.{name}", _PARTS[name]
    number = 0
    try:
        for number, line in _lines(path):  # noqa: B007 (said in the error)
            facts, stroke, _ = line.partition(" | ")
            yield _sense(facts.split() if stroke else [], part_of_speech)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(_damaged(path, f"line {number} is no sense")) from error
    if not number:
        raise InputError(_damaged(path, "it has no senses"))


def _sense(part: Sequence[str], part_of_speech: str) -> _Sense:
    """Read one line of a file.

    Raises:
        ValueError: if it is no sense.
    """
    n = int(part[3], 16)
    words = tuple(word.partition("(")[0] for word in part[4 : 4 + 2 * n : 2])
    n_pointers = int(part[4 + 2 * n])
    rest = part[5 + 2 * n : 5 + 2 * n + 4 * n_pointers]
    if not 0 < n == len(words) or len(rest) != 4 * n_pointers or len(part[0]) != 8:
        raise ValueError("not as many words or pointers as it says")
    pointers = []
    for i in range(0, len(rest), 4):
        if rest[i] in "!+" and rest[i + 3] != "0000":
            here, there = int(rest[i + 3][:2], 16) - 1, int(rest[i + 3][2:], 16) - 1
            if not 0 <= here < n or there < 0:
                raise ValueError("a pointer leads nowhere")
            other = rest[i + 2].replace("s", "a")
            pointers.append((rest[i], (other, rest[i + 1]), here, there))
    return _Sense((part_of_speech, part[0]), part[1], words, tuple(pointers))


def _uses(folder: Path, places: set[_Place]) -> _Uses:
    """Read which senses each word has, the first being the most usual, and how often they are.

    Raises:
        InputError: if a file is missing or damaged.
    """
    listed: dict[tuple[str, str], list[_Place]] = {}
    n_senses: Counter[str] = Counter()
    for name, part_of_speech in _PARTS.items():
        path = folder / f"index.{name}"
        for number, line in _lines(path):
            part = line.split()
            try:
                n = int(part[2])
                found = [(part_of_speech, offset) for offset in part[len(part) - n :]]
            except (ValueError, IndexError) as error:
                raise InputError(_damaged(path, f"line {number} is no word")) from error
            if not 0 < n == len(found) or not places.issuperset(found):
                raise InputError(
                    _damaged(path, f"line {number} names a sense that data.{name} has not")
                )
            listed[part[0], part_of_speech] = found
            n_senses[part[0]] += n
    counts: dict[tuple[str, _Place], int] = {}
    tagged: Counter[str] = Counter()
    path = folder / "index.sense"
    if not path.exists():
        path = folder / "cntlist.rev"
    for number, line in _lines(path):
        try:
            key, *_, rank, count = line.split()
            word, rest = key.split("%")
            part_of_speech, n_uses, place = _PART_OF_NUMBER[rest[0]], int(count), int(rank) - 1
        except (ValueError, KeyError, IndexError) as error:
            raise InputError(_damaged(path, f"line {number} counts no sense")) from error
        if n_uses < 0 or place < 0:
            raise InputError(_damaged(path, f"line {number} counts no sense"))
        # Some of the counts are of words that a later version no longer has.
        if place < len(known := listed.get((word, part_of_speech), ())):
            counts[word, known[place]] = n_uses
            tagged[word] += n_uses
    firsts = frozenset((word, found[0]) for (word, _), found in listed.items())
    return _Uses(counts, firsts, tagged, n_senses)


def _same(senses: Sequence[_Sense], uses: _Uses) -> Iterator[tuple[str, str]]:
    """Yield words that stand for one another where each is mostly meant so."""
    for sense in senses:
        if len(sense.words) < 2:
            continue
        words = {
            word
            for word in sense.words
            if len(word) > 2
            and _WORD.fullmatch(word)
            and uses.share(word, sense.place) >= _LEAST_SHARE
        }
        for one, other in itertools.combinations(sorted(words), 2):
            low, high = sorted((uses.tagged.get(one, 0), uses.tagged.get(other, 0)))
            if low >= 1 or high >= 5:
                yield one, other


def _pointed(
    folder: Path, senses: Sequence[_Sense], tagged: Mapping[str, int]
) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return opposites, and words beside the nouns made of them.

    Raises:
        InputError: if a file is missing or damaged.
    """
    words = {sense.place: sense.words for sense in senses}
    opposite, derived = set(), set()
    for sense in senses:
        for symbol, place, here, there in sense.pointers:
            try:
                one, other = sense.words[here], words[place][there]
            except (KeyError, IndexError) as error:
                raise InputError(
                    _damaged(folder / "data.*", f"{sense.place} points nowhere")
                ) from error
            if not (_WORD.fullmatch(one) and _WORD.fullmatch(other)):
                continue
            if symbol == "!":
                opposite.add(pair_of(one, other))
            elif tagged.get(one, 0) + tagged.get(other, 0) and _is_made_of(one, other):
                derived.add(pair_of(one, other))
    return opposite, derived


def _is_made_of(one: str, other: str) -> bool:
    short, long = sorted(pair_of(one, other), key=len)
    return long.endswith(_NOUNS_OF) and not short.endswith(_DOERS) and short[:3] == long[:3]


def _classified(senses: Sequence[_Sense], uses: _Uses) -> tuple[set[str], set[str]]:
    """Return words that are known, and those of them that can be said in other words."""
    things: Counter[str] = Counter()
    things_first: set[str] = set()
    words: set[str] = set()
    for sense in senses:
        kind = sense.place[0]
        is_thing = (kind == "n" and sense.file not in _ABSTRACT) or (
            kind == "a" and sense.file == _RELATIONAL
        )
        for word in sense.words:
            if not _WORD.fullmatch(word):
                continue
            words.add(word)
            if is_thing:
                things[word] += uses.counts.get((word, sense.place), 0)
                if (word, sense.place) in uses.firsts:
                    things_first.add(word)
    known: set[str] = set()
    loose: set[str] = set()
    for word in words:
        n = uses.tagged.get(word, 0)
        if n or uses.n_senses[word] >= 2:
            known.add(word)
            if not (2 * things[word] >= n if n else word in things_first):
                loose.add(word)
    return known, loose
