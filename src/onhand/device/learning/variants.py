"""More of what was taught: values that an answer copies from its prompt are changed in both.

Somebody who teaches "water the roses in the hall" with {"do": "water", "device": "roses", "room":
"hall"} means no roses in particular. Where an answer is JSON, a text in it that stands word for
word in the prompt is taken as copied, and other texts that were copied under the same key, in what
is taught or in what is remembered, may stand in its place. Only keys whose texts are mostly copied
are varied: "do" is "water" because it is a word of its own, though the prompt has it too.

Source:
    Fragments that occur in the same places are exchanged: "Good-Enough Compositional Data
    Augmentation", Andreas 2020, arXiv:1904.09545.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.device.learning.examples import Dialogue, Example
from onhand.device.template import Message

__all__ = ["Copied", "copied_values", "varied"]

_SHORTEST: Final = 2
_MOST_LETTERS: Final = 65536
_TRIES: Final = 8
_MOSTLY: Final = 0.7


@dataclass(frozen=True, slots=True)
class Copied:
    """A text that an answer copies.

    Attributes:
        key: under which it stands in the answer.
        text: it.
    """

    key: str
    text: str


def copied_values(prompt: str, answer: str) -> tuple[Copied, ...]:
    """Find what an answer copies from its prompt.

    Args:
        prompt: what was said.
        answer: JSON; of anything else nothing is found.

    Returns:
        Texts of two letters or more that stand once in the prompt, as words of their own where
        their script has spaces, and once in the answer; in the order of the answer.
    """
    if len(answer) > _MOST_LETTERS:
        return ()
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return ()
    found = [Copied(key, text) for key, text in _texts(parsed, "")]
    return tuple(one for one in found if _is_copied(one.text, prompt, answer))


def _texts(value: object, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _is_copied(text: str, prompt: str, answer: str) -> bool:
    if len(text) < _SHORTEST or _quoted(text) not in answer:
        return False
    return prompt.count(text) == 1 and answer.count(text) == 1 and bool(_places(text, prompt))


def _places(text: str, prompt: str) -> list[int]:
    """Return where a text stands as words of its own; anywhere, in a script without spaces."""
    edge = r"(?<![A-Za-z0-9_]){}(?![A-Za-z0-9_])" if text.isascii() else "{}"
    return [match.start() for match in re.finditer(edge.format(re.escape(text)), prompt)]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


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
    pool = _pool([*taught, *known])
    seen = {_said(one) for one in taught if isinstance(one, Dialogue)}
    found: list[Example] = []
    for one in taught:
        if not isinstance(one, Dialogue) or len(one.learned) != 1:
            continue
        for _ in range(each):
            made = _new(one, pool, seen, rng)
            if made is None:
                break
            seen.add(_said(made))
            found.append(made)
    return found


def _new(
    one: Dialogue,
    pool: Mapping[tuple[str, bool], Sequence[str]],
    seen: set[tuple[str, str]],
    rng: np.random.Generator,
) -> Dialogue | None:
    for _ in range(_TRIES):
        made = _changed(one, pool, rng)
        if made is not None and _said(made) not in seen:
            return made
    return None


def _changed(
    one: Dialogue, pool: Mapping[tuple[str, bool], Sequence[str]], rng: np.random.Generator
) -> Dialogue | None:
    """Exchange every copied value of an example for another; None where none can be."""
    prompt, answer = _said(one)
    was = prompt
    for copied in copied_values(prompt, answer):
        others = pool.get((copied.key, copied.text.isascii()), ())
        choices = [text for text in others if text not in prompt and text not in answer]
        places = _places(copied.text, prompt)
        if not choices or len(places) != 1:
            continue
        text = choices[int(rng.integers(len(choices)))]
        prompt = prompt[: places[0]] + text + prompt[places[0] + len(copied.text) :]
        answer = answer.replace(_quoted(copied.text), _quoted(text))
    if prompt == was:
        return None
    place = one.learned[0]
    messages = list(one.messages)
    messages[place - 1] = replace(messages[place - 1], content=prompt)
    messages[place] = replace(messages[place], content=answer)
    return replace(one, messages=tuple(messages), where=f"{one.where}, varied")


def _said(one: Dialogue) -> tuple[str, str]:
    """Return the last thing that was said before an answer, and the answer."""
    place = one.learned[0]
    before: Message | None = one.messages[place - 1] if place else None
    return ("" if before is None else before.content, one.messages[place].content)


def _pool(examples: Iterable[Example]) -> dict[tuple[str, bool], tuple[str, ...]]:
    """Return copied texts by their key and whether they are plain ASCII, in order.

    Keys whose texts are mostly not copied are left out.
    """
    found: dict[tuple[str, bool], dict[str, None]] = {}
    n_texts: Counter[str] = Counter()
    n_copied: Counter[str] = Counter()
    for one in examples:
        if not isinstance(one, Dialogue) or not one.learned:
            continue
        prompt, answer = _said(one)
        n_texts.update(_keys(answer))
        for copied in copied_values(prompt, answer):
            n_copied[copied.key] += 1
            found.setdefault((copied.key, copied.text.isascii()), {})[copied.text] = None
    return {
        (key, is_ascii): tuple(texts)
        for (key, is_ascii), texts in found.items()
        if n_copied[key] >= _MOSTLY * n_texts[key]
    }


def _keys(answer: str) -> Iterable[str]:
    """Return the key of each text of an answer; none of one that is no JSON."""
    try:
        return [key for key, _ in _texts(json.loads(answer), "")]
    except (ValueError, RecursionError):
        return ()
