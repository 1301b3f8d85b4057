"""Liked and disliked answers as a lesson of tokens takes them, and which texts they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds
from onhand.device.learning.examples import Dialogue, Example, Opinion, Preference
from onhand.device.learning.text_feeds import (
    TokenSequence,
    answer_sequence,
    batch_sequences,
)
from onhand.device.template import Message
from onhand.device.text_files import TextFiles

__all__ = [
    "TEXTS",
    "OpinionSource",
    "PairSource",
    "PreferenceSource",
    "liked",
    "preference_source",
]

TEXTS: Final = "texts"
"""Name of what a batch has beside the lesson's own: (B,) int64, the number of each text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """Pairs of answers. See `Source`; an example is two texts, the liked one first.

    Attributes:
        texts: 2 N texts.
    """

    texts: tuple[TokenSequence, ...]

    def __len__(self) -> int:
        """See `Source`."""
        return len(self.texts) // 2

    def weight(self, number: int) -> float:
        """See `Source`: each pair counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """See `Source`; rows of the disliked answers have negative weights."""
        chosen = [text for number in numbers for text in (2 * number, 2 * number + 1)]
        return _fed(self.texts, chosen, np.resize([scale, -scale], len(chosen)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionSource:
    """Single answers, liked or not. See `Source`.

    Behind the answers of a batch come as many texts that join a prompt with the answer to
    another one: they say how far the model has gone from what it was.

    Attributes:
        texts: N texts, then N that are joined so; of one example alone there are none of these.
        liked: of the N.
    """

    texts: tuple[TokenSequence, ...]
    liked: tuple[bool, ...]

    def __len__(self) -> int:
        """See `Source`."""
        return len(self.liked)

    def weight(self, number: int) -> float:
        """See `Source`: each opinion counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """See `Source`; rows of disliked answers have negative weights, of joined texts zero."""
        chosen = list(numbers)
        weights = [scale if self.liked[number] else -scale for number in numbers]
        if len(self.texts) > len(self.liked):
            chosen += [len(self.liked) + number for number in numbers]
            weights += [0.0] * len(numbers)
        return _fed(self.texts, chosen, np.array(weights))


PreferenceSource = PairSource | OpinionSource


def _fed(texts: Sequence[TokenSequence], chosen: Sequence[int], weights: np.ndarray) -> Feeds:
    feeds = batch_sequences([texts[text] for text in chosen], scale=1.0)
    mine = feeds["rows"] // feeds["tokens"].shape[1]  # (R,)
    feeds["weights"] = feeds["weights"] * weights[mine, None].astype(np.float32)
    return feeds | {TEXTS: np.array(chosen, dtype=np.int64)}


def preference_source(
    examples: Iterable[Example], files: TextFiles, *, context: int
) -> PreferenceSource:
    """Turn liked and disliked answers into tokens.

    Args:
        examples: pairs alone, or single opinions alone.
        files: the model's tokenizer and chat template.
        context: most tokens of a text.

    Raises:
        InputError: if there is none, they are of several kinds, or one is longer than the context.
    """
    given = list(examples)
    if not given:
        raise InputError("there is no answer that was liked or disliked")
    pairs = [one for one in given if isinstance(one, Preference)]
    opinions = [one for one in given if isinstance(one, Opinion)]
    if pairs and len(pairs) == len(given):
        return PairSource(
            texts=tuple(
                _text(one.prompt, answer, files, context=context, where=one.where)
                for one in pairs
                for answer in (one.chosen, one.rejected)
            )
        )
    if opinions and len(opinions) == len(given):
        return _opinions(opinions, files, context)
    odd = next(
        one for one in given if not isinstance(one, type(given[0])) or not (pairs or opinions)
    )
    raise InputError(
        f"{odd.where}: preferences are learned from pairs alone (chosen, rejected), or from single "
        "opinions alone; give other examples in a file of their own"
    )


def liked(examples: Iterable[Example]) -> list[Example]:
    """Return examples with conversations in the place of liked answers, and no disliked ones.

    Args:
        examples: of any kind; others stay.
    """
    found: list[Example] = []
    for one in examples:
        if isinstance(one, Preference):
            found.append(_dialogue(one.prompt, one.chosen, one.where))
        elif not isinstance(one, Opinion):
            found.append(one)
        elif one.is_liked:
            found.append(_dialogue(one.prompt, one.answer, one.where))
    return found


def _dialogue(prompt: tuple[Message, ...], answer: str, where: str) -> Dialogue:
    messages = (*prompt, Message("assistant", answer))
    return Dialogue(messages=messages, learned=(len(prompt),), where=where)


def _opinions(opinions: Sequence[Opinion], files: TextFiles, context: int) -> OpinionSource:
    texts = [_text(o.prompt, o.answer, files, context=context, where=o.where) for o in opinions]
    if len(opinions) > 1:
        for one, other in zip(opinions, (*opinions[1:], opinions[0]), strict=True):
            where = f"{one.where} with the answer of {other.where}"
            texts.append(_text(one.prompt, other.answer, files, context=context, where=where))
    return OpinionSource(texts=tuple(texts), liked=tuple(o.is_liked for o in opinions))


def _text(
    prompt: Sequence[Message], answer: str, files: TextFiles, *, context: int, where: str
) -> TokenSequence:
    """Return a prompt with an answer.

    Raises:
        InputError: if it cannot be told, or is longer than the context.
    """
    try:
        found = answer_sequence(prompt, answer, files)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if len(found.tokens) > context:
        raise InputError(
            f"{where}: has {len(found.tokens)} tokens, the model's context is {context}; shorten it"
        )
    return found
