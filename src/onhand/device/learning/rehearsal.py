"""Rehearsal of what nobody wrote down: known commands about other names, as the model answers them.

Some thousand remembered commands hold on to those commands, and less to what makes a model good at
others: that it copies a name whatever the name is. So they are said about other names as well: such
as were copied under the same key elsewhere, and made ones, which have the beginning of one and the
end of another. What the model answers otherwise before it learns is open to doubt, or was never
known; only the rest is remembered.

Source:
    Pseudorehearsal, with names in the place of noise: Robins 1995, "Catastrophic forgetting,
    rehearsal and pseudorehearsal", Connection Science 7(2).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.examples import Dialogue, Example
from onhand.device.learning.judging import judge
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.text_feeds import TextSource, sequences_of
from onhand.device.learning.variants import Names, exchanged, names_of
from onhand.device.text_files import read_text_files

__all__ = ["answered_so", "made_names", "rehearsals", "rehearsed"]

_MADE_SHARE: Final = 0.5
_LETTERS: Final = (2, 40)
_LONGEST_PART: Final = 3
_WORDS: Final = 2
_AT_ONCE: Final = 32


def rehearsals(
    bundle: Bundle,
    teachable: Teachable,
    values: Values,
    past: Sequence[Example],
    *,
    settings: LearnSettings,
) -> tuple[TextSource, str]:
    """Return more of what a language model can do, for a method that holds on to it.

    Args:
        bundle: a verified bundle.
        teachable: its lesson.
        values: of every trainable, before anything is learned.
        past: what is remembered.
        settings: how many are tried, and the seed of what is left to chance.

    Returns:
        texts: those that it answers as they say.
        note: how many these are, a sentence.

    Raises:
        InputError: if the bundle is of no language model, or a text does not fit it.
        EngineError: if the graph fails.
    """
    if teachable.lesson.feeds != "tokens":
        raise InputError(
            f"rehearse is {settings.rehearse}, but {bundle.root} is of no language model: only "
            "commands whose answers copy names can be said about others; leave it out"
        )
    files, context = read_text_files(bundle), bundle.manifest.decoder.context
    rng = np.random.default_rng([settings.seed, 4])
    tried = rehearsed(past, count=settings.rehearse, rng=rng)
    source = TextSource()
    for one in tried:
        source.add(sequences_of(one, files, context=context))
    kept = answered_so(teachable, values, source, batch=_AT_ONCE)
    note = (
        f"{len(kept)} of {len(source)} remembered commands about other names are answered as they "
        "say, and remembered as well"
    )
    return kept, note


def rehearsed(past: Sequence[Example], *, count: int, rng: np.random.Generator) -> list[Dialogue]:
    """Say remembered commands about other names.

    Args:
        past: what is remembered; conversations whose answers copy are varied.
        count: how many are tried.
        rng: source of chance.

    Returns:
        Conversations, all different from each other; fewer than `count` where some draws copy
        nothing or came before.
    """
    sources = [one for one in past if isinstance(one, Dialogue) and len(one.learned) == 1]
    if not sources:
        return []
    names = made_names(names_of(past), rng)
    found: dict[tuple[str, ...], Dialogue] = {}
    for _ in range(count):
        made = exchanged(sources[int(rng.integers(len(sources)))], names, rng)
        if made is not None:
            found.setdefault(tuple(message.content for message in made.messages), made)
    return list(found.values())


def made_names(
    names: Names, rng: np.random.Generator, *, share: float = _MADE_SHARE
) -> dict[tuple[str, bool], tuple[str, ...]]:
    """Return names with made ones after them.

    Args:
        names: see `Names`.
        rng: source of chance.
        share: made names that are tried for each known one.
    """
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for (key, is_ascii), texts in names.items():
        made = []
        for _ in range(int(len(texts) * share)):
            one, other = (texts[int(rng.integers(len(texts)))] for _ in range(2))
            text = (_of_words if is_ascii else _of_letters)(one, other, rng)
            if text.isascii() == is_ascii and _is_name(text):
                made.append(text)
        found[key, is_ascii] = tuple(dict.fromkeys([*texts, *made]))
    return found


def answered_so(
    teachable: Teachable, values: Values, source: TextSource, *, batch: int
) -> TextSource:
    """Return those texts that a model answers as they say.

    Args:
        teachable: the lesson.
        values: of every trainable.
        source: texts; none is learned.
        batch: texts at a time.

    Returns:
        Those for which every learned token has more than half of the probability, in their order.

    Raises:
        InputError: if a text does not fit the lesson.
        EngineError: if the graph fails.
    """
    # Texts of like length are padded least.
    order = sorted(range(len(source)), key=lambda i: len(source.sequences[i].tokens))
    ordered = TextSource(source.sequences[i] for i in order)
    marks = judge(teachable, values, ordered, batch=batch)
    right = sorted(i for i, is_right in zip(order, marks.is_right, strict=True) if is_right)
    return TextSource(source.sequences[i] for i in right)


def _of_words(one: str, other: str, rng: np.random.Generator) -> str:
    """Join first words of one name to last words of the other, or a word to half of another."""
    first, last = one.split(), other.split()
    if not first or not last:
        return ""
    if rng.random() < 0.5:
        i, j = int(rng.integers(1, len(first) + 1)), int(rng.integers(len(last)))
        return " ".join([*first[:i][-_WORDS:], *last[j:][:_WORDS]])
    begin, end = first[-1], last[-1]
    word = begin[: int(rng.integers(1, len(begin) + 1))] + end[int(rng.integers(len(end))) :]
    return " ".join([*first[:-1][-1:], word])


def _of_letters(one: str, other: str, rng: np.random.Generator) -> str:
    """Join first letters of one name to last letters of the other."""
    i, j = int(rng.integers(1, len(one) + 1)), int(rng.integers(len(other)))
    return one[:i][-_LONGEST_PART:] + other[j:][:_LONGEST_PART]


def _is_name(text: str) -> bool:
    """Say whether a made text can be told from what stands around it."""
    least, most = _LETTERS
    return least <= len(text) <= most and text == text.strip() and any(map(str.isalpha, text))
