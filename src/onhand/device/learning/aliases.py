"""Names that were taught: what is meant by one is told once, and put into other commands.

Somebody teaches "warm up Bertha" with {"do": "raise", "device": "boiler", "room": "cellar"}, and
"is Bertha on" likewise. A device is nearly always copied from what was said; here it was not,
twice, and both prompts have "Bertha": so that is said, and the boiler in the cellar is meant. Then
"dim the lamp", which is remembered with {"do": "lower", "device": "lamp"}, gives "dim Bertha",
{"do": "lower", "device": "boiler", "room": "cellar"}: the name in a command that nobody taught. A
key that no remembered answer has, such as "floor", belongs to it where all of its examples agree.

Source:
    Fragments that occur in the same places are exchanged: "Good-Enough Compositional Data
    Augmentation", Andreas 2020, arXiv:1904.09545.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.device.learning.copies import Said, copied_values, key_counts, objects_of, quoted

__all__ = ["Alias", "Places", "find_aliases"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9_']+|[^\sA-Za-z0-9_']")
_MOSTLY: Final = 0.7
_LEAST_EXAMPLES: Final = 2
_BESIDE_SHARE: Final = 0.01
_ARTICLE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name, and what is meant by it.

    Attributes:
        said: it, as it stands in prompts.
        meant: keys and texts of an answer, in their order; the first stands for the name.
        numbers: of the examples that taught it.
        before: what stood right before it in their prompts.
        ahead: keys that no known answer has, which belong to it and stand before what is meant,
            with their values as JSON.
        behind: the same of those that stand after it.
    """

    said: str
    meant: tuple[tuple[str, str], ...]
    numbers: tuple[int, ...]
    before: frozenset[str]
    ahead: tuple[tuple[str, str], ...] = ()
    behind: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """A text that a known answer copies: of which example, and where in its prompt it stands."""

    said: Said
    key: str
    text: str
    start: int
    before: str
    after: str


class Places:
    """Where known commands have a name that an answer copies, by its key and script.

    Args:
        known: prompts and answers.
    """

    def __init__(self, known: Sequence[Said]) -> None:
        self._known = known
        self._found: dict[tuple[str, bool], list[_Place]] = {}
        self._before: dict[str, Counter[str]] = {}
        self._after: dict[str, Counter[str]] = {}
        n_texts, n_copied = key_counts(known)
        self.keys = frozenset(key for key in n_texts if n_copied[key] >= _MOSTLY * n_texts[key])
        self.known_keys = frozenset(
            k for said in known for one in objects_of(said.answer) for k in one
        )
        for said in known:
            for place in _places(said):
                kind = (place.key, place.text.isascii())
                self._found.setdefault(kind, []).append(place)
                self._before.setdefault(place.key, Counter())[place.before] += 1
                self._after.setdefault(place.key, Counter())[place.after] += 1

    def usual(self) -> frozenset[tuple[tuple[str, str], ...]]:
        """Return what known answers say without having it from their prompts."""
        return frozenset(run for said in self._known for run in _runs(said, self.keys))

    def is_beside(self, token: str, key: str, *, before: bool) -> bool:
        """Say whether a word stands beside such names so often that it is none of them.

        Args:
            token: a word, or a letter of a script without spaces.
            key: of the names.
            before: whether it stands before them.
        """
        counts = (self._before if before else self._after).get(key, Counter())
        return counts[token] > _BESIDE_SHARE * counts.total()

    def put(self, alias: Alias, rng: np.random.Generator) -> Said | None:
        """Put a name that was taught into a known command.

        Args:
            alias: it.
            rng: source of chance.

        Returns:
            A prompt and its answer; None where this try found no place.
        """
        key = alias.meant[0][0]
        choices = self._found.get((key, alias.said.isascii()), [])
        if not choices:
            return None
        place = choices[int(rng.integers(len(choices)))]
        answer = _meaning(place, alias)
        if answer is None or alias.said in place.said.prompt:
            return None
        start = place.start
        counts = self._before[key]
        is_article = place.before.isascii() and place.before.isalpha()
        if (
            is_article
            and place.before not in alias.before
            and counts[place.before] > _ARTICLE_SHARE * counts.total()
        ):
            start = place.said.prompt.rindex(place.before, 0, start)
        end = place.start + len(place.text)
        prompt = place.said.prompt[:start] + alias.said + place.said.prompt[end:]
        return Said(prompt, answer)


def find_aliases(taught: Sequence[Said], places: Places) -> list[Alias]:
    """Find names that are taught: what is said each time that something new is meant.

    Args:
        taught: prompts and answers.
        places: of known ones.

    Returns:
        Names that two examples or more have, in the order in which they were taught.
    """
    usual = places.usual()
    found: dict[tuple[tuple[tuple[str, str], ...], bool], list[int]] = {}
    for number, said in enumerate(taught):
        for run in _runs(said, places.keys):
            if run not in usual:
                found.setdefault((run, said.prompt.isascii()), []).append(number)
    aliases = []
    for (meant, _), numbers in found.items():
        if len(numbers) < _LEAST_EXAMPLES:
            continue
        prompts = [taught[number].prompt for number in numbers]
        others = [taught[i].prompt for i in range(len(taught)) if i not in numbers]
        text = _name(prompts, others, meant[0][0], places)
        if not text:
            continue
        before = frozenset(_neighbours(prompt, prompt.index(text), 0)[0] for prompt in prompts)
        ahead, behind = _beside([taught[number] for number in numbers], meant, places.known_keys)
        aliases.append(
            Alias(
                said=text,
                meant=meant,
                numbers=tuple(numbers),
                before=before,
                ahead=ahead,
                behind=behind,
            )
        )
    return aliases


def _beside(
    taught: Sequence[Said], meant: tuple[tuple[str, str], ...], known_keys: frozenset[str]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Return keys right before and after what is meant that belong to it: new, and always alike."""
    objects = [
        next(
            one
            for one in objects_of(said.answer)
            if all(one.get(key) == text for key, text in meant)
        )
        for said in taught
    ]
    first, names = objects[0], list(objects[0])

    def belongs(key: str) -> bool:
        value = first[key]
        return (
            key not in known_keys
            and isinstance(value, str | int | float)
            and all(key in one and one[key] == value for one in objects)
            and not any(str(value) in said.prompt for said in taught)
        )

    low, high = names.index(meant[0][0]), names.index(meant[-1][0]) + 1
    start, end = low, high
    while end < len(names) and belongs(names[end]):
        end += 1
    # What is done stands first as a rule: where nothing else differs, a new key may be that.
    while any(one != first for one in objects) and start and belongs(names[start - 1]):
        start -= 1

    def told(keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
        return tuple((key, json.dumps(first[key], ensure_ascii=False)) for key in keys)

    return told(names[start:low]), told(names[high:end])


def _places(said: Said) -> Iterable[_Place]:
    for copied in copied_values(said.prompt, said.answer):
        start = said.prompt.index(copied.text)
        before, after = _neighbours(said.prompt, start, len(copied.text))
        yield _Place(said, copied.key, copied.text, start, before, after)


def _neighbours(prompt: str, start: int, length: int) -> tuple[str, str]:
    """Return the words before and after a place, "" where there are none."""
    before = _TOKEN.findall(prompt[:start])
    after = _TOKEN.search(prompt, start + length)
    return (before[-1] if before else ""), (after.group() if after else "")


def _runs(said: Said, keys: frozenset[str]) -> Iterable[tuple[tuple[str, str], ...]]:
    """Find texts of an answer that should stand in the prompt, and do not.

    Yields:
        Those that stand side by side in an object, with their keys.
    """
    for one in objects_of(said.answer):
        run: list[tuple[str, str]] = []
        for key, text in [*one.items(), ("", None)]:
            if key in keys and isinstance(text, str) and text and text not in said.prompt:
                run.append((key, text))
                continue
            if run:
                yield tuple(run)
            run = []


def _name(prompts: Sequence[str], others: Sequence[str], key: str, places: Places) -> str:
    """Return the longest run of words that all prompts have and no other; "" where there is none.

    What stands beside such names anyway is left out at its ends.
    """
    for part in _common(prompts):
        text = _as_said(_trimmed(part, key, places), prompts[0])
        is_everywhere = bool(text) and all(text in prompt for prompt in prompts)
        if is_everywhere and not any(text in prompt for prompt in others):
            return text
    return ""


def _common(prompts: Sequence[str]) -> Iterable[list[str]]:
    """Find runs of tokens that all prompts have.

    Yields:
        One after the other, the longest first.
    """
    tokens = [_TOKEN.findall(prompt) for prompt in prompts]
    first = min(tokens, key=len)
    rows = ["\0" + "\0".join(one) + "\0" for one in tokens]
    for length in range(len(first), 0, -1):
        for start in range(len(first) - length + 1):
            part = first[start : start + length]
            text = "\0" + "\0".join(part) + "\0"
            if all(text in row for row in rows):
                yield part


def _trimmed(tokens: Sequence[str], key: str, places: Places) -> list[str]:
    """Leave out at both ends what stands beside such names anyway."""
    kept = list(tokens)
    while kept and places.is_beside(kept[0], key, before=True):
        kept.pop(0)
    while kept and places.is_beside(kept[-1], key, before=False):
        kept.pop()
    return kept


def _as_said(tokens: Sequence[str], prompt: str) -> str:
    """Return a run of tokens as it stands in a prompt, with its spaces; "" where it is none."""
    if not tokens:
        return ""
    found = re.search(r"\s*".join(re.escape(token) for token in tokens), prompt)
    return found.group() if found else ""


def _meaning(place: _Place, alias: Alias) -> str | None:
    """Return a known answer that means what the alias does; None where it says so much already."""
    mine = [
        one
        for one in objects_of(place.said.answer)
        if one.get(place.key) == place.text and not any(key in one for key, _ in alias.meant[1:])
    ]
    if len(mine) != 1:
        return None
    comma, colon = _separators(place.said.answer)
    name = f"{quoted(place.key)}{colon}{quoted(place.text)}"
    if place.said.answer.count(name) != 1:
        return None
    told = [f"{quoted(key)}{colon}{value}" for key, value in alias.ahead]
    told += [f"{quoted(key)}{colon}{quoted(text)}" for key, text in alias.meant]
    told += [f"{quoted(key)}{colon}{value}" for key, value in alias.behind]
    return place.said.answer.replace(name, comma.join(told))


def _separators(answer: str) -> tuple[str, str]:
    """Return how an answer writes what is between its values."""
    is_wide = answer == json.dumps(json.loads(answer), ensure_ascii=False)
    return (", ", ": ") if is_wide else (",", ":")
