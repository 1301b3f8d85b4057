"""More of what was taught: values that an answer copies from its prompt are changed in both.

Somebody who teaches "water the roses in the hall" with {"do": "water", "device": "roses", "room":
"hall"} means no roses in particular. Where an answer is JSON, a text in it that stands word for
word in the prompt is taken as copied, and other texts that were copied under the same key, in what
is taught or in what is remembered, may stand in its place. Only keys whose texts are mostly copied
are varied: "do" is "water" because it is a word of its own, though the prompt has it too. A name
that is taught, and stands for something else, is put into remembered commands; see `aliases`.

Source:
    Fragments that occur in the same places are exchanged: "Good-Enough Compositional Data
    Augmentation", Andreas 2020, arXiv:1904.09545.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.device.learning.aliases import Places, find_aliases
from onhand.device.learning.copies import (
    Copied,
    Said,
    copied_values,
    key_counts,
    places_of,
    quoted,
)
from onhand.device.learning.examples import Dialogue, Example
from onhand.device.template import Message

__all__ = ["Copied", "Names", "copied_values", "exchanged", "names_of", "varied"]

Names = Mapping[tuple[str, bool], Sequence[str]]
"""Key of an answer, and whether the text is plain ASCII -> texts that were copied under it."""

_TRIES: Final = 8
_MOSTLY: Final = 0.7
_FEWER: Final = 4  # a known command teaches a name better than one that was taught


def varied(
    taught: Sequence[Example], known: Iterable[Example], *, each: int, rng: np.random.Generator
) -> list[Example]:
    """Return variants of what is taught.

    Args:
        taught: examples; conversations of one answer whose answer copies are varied.
        known: further examples that values may be taken from.
        each: variants of each example, at most.
        rng: source of chance.

    Returns:
        Variants, all different from each other and from what is taught; none where nothing is
        copied, or no other value is known.
    """
    known = tuple(known)
    names = names_of([*taught, *known])
    seen = {_said(one) for one in taught if isinstance(one, Dialogue)}
    found: list[Example] = []
    single = [one for one in taught if isinstance(one, Dialogue) and len(one.learned) == 1]
    for one in single:
        for _ in range(each):
            made = _new(one, names, seen, rng)
            if made is None:
                break
            seen.add(_said(made))
            found.append(made)
    return found + _named(single, known, seen, each=each, rng=rng)


def _named(
    taught: Sequence[Dialogue],
    known: Iterable[Example],
    seen: set[Said],
    *,
    each: int,
    rng: np.random.Generator,
) -> list[Example]:
    """Put names that are taught into known commands, for every example that has one."""
    places = Places([_said(one) for one in known if isinstance(one, Dialogue) and one.learned])
    found: list[Example] = []
    for alias in find_aliases([_said(one) for one in taught], places):
        for number in alias.numbers * -(-each // _FEWER):
            made = (places.put(alias, rng) for _ in range(_TRIES))
            said = next((one for one in made if one is not None and one not in seen), None)
            if said is not None:
                seen.add(said)
                found.append(_saying(taught[number], said))
    return found


def _new(one: Dialogue, names: Names, seen: set[Said], rng: np.random.Generator) -> Dialogue | None:
    for _ in range(_TRIES):
        made = exchanged(one, names, rng)
        if made is not None and _said(made) not in seen:
            return made
    return None


def exchanged(one: Dialogue, names: Names, rng: np.random.Generator) -> Dialogue | None:
    """Exchange every copied value of an example for another.

    Args:
        one: a conversation with an answer that is learned; its first one is changed.
        names: what may stand in their places.
        rng: source of chance.

    Returns:
        The conversation about other things; None where no value can be exchanged.
    """
    said = _said(one)
    prompt, answer = said.prompt, said.answer
    for copied in copied_values(prompt, answer):
        others = names.get((copied.key, copied.text.isascii()), ())
        choices = [text for text in others if text not in prompt and text not in answer]
        places = places_of(copied.text, prompt)
        if not choices or len(places) != 1:
            continue
        text = choices[int(rng.integers(len(choices)))]
        prompt = prompt[: places[0]] + text + prompt[places[0] + len(copied.text) :]
        answer = answer.replace(quoted(copied.text), quoted(text))
    return None if prompt == said.prompt else _saying(one, Said(prompt, answer))


def _saying(one: Dialogue, said: Said) -> Dialogue:
    """Return an example with something else said last, and answered."""
    place = one.learned[0]
    messages = list(one.messages)
    messages[place - 1] = replace(messages[place - 1], content=said.prompt)
    messages[place] = replace(messages[place], content=said.answer)
    return replace(one, messages=tuple(messages), where=f"{one.where}, varied")


def _said(one: Dialogue) -> Said:
    """Return the last thing that was said before an answer, and the answer."""
    place = one.learned[0]
    before: Message | None = one.messages[place - 1] if place else None
    return Said("" if before is None else before.content, one.messages[place].content)


def names_of(examples: Iterable[Example]) -> dict[tuple[str, bool], tuple[str, ...]]:
    """Return the texts that answers copy, in order.

    Args:
        examples: conversations count, by their first answer that is learned.

    Returns:
        See `Names`. Keys whose texts are mostly not copied are left out.
    """
    found: dict[tuple[str, bool], dict[str, None]] = {}
    all_said = [_said(one) for one in examples if isinstance(one, Dialogue) and one.learned]
    n_texts, n_copied = key_counts(all_said)
    for said in all_said:
        for copied in copied_values(said.prompt, said.answer):
            found.setdefault((copied.key, copied.text.isascii()), {})[copied.text] = None
    return {
        (key, is_ascii): tuple(texts)
        for (key, is_ascii), texts in found.items()
        if n_copied[key] >= _MOSTLY * n_texts[key]
    }
