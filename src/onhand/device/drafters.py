"""Guesses at what follows a text: from the text itself, or by a smaller model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError
from onhand.device.engines.base import Loaded
from onhand.device.sampling import Distribution, Sampler, Sampling
from onhand.device.text import Tokenizer

__all__ = ["Draft", "DraftModel", "Drafter", "PromptLookup", "check_same_tokens"]


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may follow a text.

    Attributes:
        tokens: the guess, in order.
        distributions: what each was drawn from; empty where nothing was drawn, so that a token
            is right exactly where the model would choose it as well.
    """

    tokens: Sequence[int]
    distributions: Sequence[Distribution] = ()


class Drafter(Protocol):
    """Guesses how one text goes on. One thread at a time.

    Attributes:
        is_free: whether a guess costs next to nothing beside a step of any model.
    """

    is_free: ClassVar[bool]

    def begin(self, text: TokenArray, sampler: Sampler) -> None:
        """Turn to a text, which may begin as the one before it does.

        Args:
            text: (T,) int64, the whole of it.
            sampler: what chooses the tokens that follow.
        """
        ...

    def push(self, tokens: Sequence[int]) -> None:
        """Append tokens to the text."""
        ...

    def grade(self) -> int | None:
        """Say how good a guess would be now, or None if there is none.

        Returns:
            A small number; guesses of one grade are right about equally often.
        """
        ...

    def backlog(self) -> int:
        """Return how many tokens have to be read before the next guess, beyond a usual few."""
        ...

    def catch_up(self) -> None:
        """Read them."""
        ...

    def draft(self, n_tokens: int) -> Draft:
        """Guess up to `n_tokens` tokens, at least one, where `grade` is not None."""
        ...

    def close(self) -> None:
        """Release what it holds; safe to call twice."""
        ...


class PromptLookup:
    """Finds the last tokens earlier in the text and guesses that the same follows again.

    The longest run of tokens that occurred before counts, and its latest occurrence. Every token
    costs a few entries of a table, whatever the length of the text.

    Source:
        Saxena, "Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding.
    """

    is_free: ClassVar[bool] = True

    def __init__(self, *, longest: int = 4, shortest: int = 1) -> None:
        """Start with an empty text.

        Args:
            longest: most tokens of a run to look for.
            shortest: fewest.
        """
        self._lengths = range(longest, shortest - 1, -1)
        self._text: list[int] = []
        # A run of tokens -> the place after its latest occurrence that something follows.
        self._places: dict[tuple[int, ...], int] = {}

    def begin(self, text: TokenArray, sampler: Sampler) -> None:
        """See `Drafter`."""
        tokens = text.tolist()
        known = len(self._text)
        if tokens[:known] != self._text:
            known = 0
            self._text, self._places = [], {}
        self.push(tokens[known:])

    def push(self, tokens: Sequence[int]) -> None:
        """See `Drafter`."""
        text = self._text
        for token in tokens:
            place = len(text)
            for n in self._lengths:
                if n <= place:
                    self._places[tuple(text[place - n :])] = place
            text.append(token)

    def grade(self) -> int | None:
        """Return the length of the longest run that occurred before."""
        found = self._find()
        return None if found is None else found[0]

    def backlog(self) -> int:
        """See `Drafter`."""
        return 0

    def catch_up(self) -> None:
        """See `Drafter`."""

    def draft(self, n_tokens: int) -> Draft:
        """Copy what followed; a copy that reaches the end of the text goes on with itself."""
        found = self._find()
        if found is None:
            return Draft(())
        _, place = found
        text = self._text[place : place + n_tokens]
        while len(text) < n_tokens:
            text.append(text[len(text) - (len(self._text) - place)])
        return Draft(text)

    def close(self) -> None:
        """See `Drafter`."""

    def _find(self) -> tuple[int, int] | None:
        text = self._text
        for n in self._lengths:
            if n <= len(text):
                place = self._places.get(tuple(text[len(text) - n :]))
                if place is not None:
                    return n, place
        return None


class DraftModel:
    """A smaller model that reads the same text and says how it would go on.

    Where the model draws at random without a seed, so does this one, from its own distribution
    after the same processing. With a seed it takes its likeliest tokens: its random numbers then
    have no part in the answer, which stays the one that the seed gives.
    """

    is_free: ClassVar[bool] = False
    # After a step it lacks the last token guessed, and what the model chose instead.
    _USUAL_BACKLOG: ClassVar[int] = 8

    def __init__(
        self, loaded: Loaded, tokenizer: Tokenizer, *, vocab_size: int, context: int
    ) -> None:
        """Start with an empty text.

        Args:
            loaded: its weights, owned from now on.
            tokenizer: of both models.
            vocab_size: logits in a row of the model that it guesses for.
            context: most tokens that the other model remembers.
        """
        self._loaded = loaded
        self._session = loaded.session(context=min(context, loaded.context))
        missing = tokenizer.missing(loaded.vocab_size)
        beyond = np.arange(loaded.vocab_size) >= vocab_size
        self._forbidden = beyond if missing is None else missing | beyond
        self._sampler = Sampler(Sampling())
        self._text: list[int] = []
        self._fed: list[int] = []  # what its session remembers
        self._n_shared = 0  # tokens from the beginning in which the two agree

    def begin(self, text: TokenArray, sampler: Sampler) -> None:
        """See `Drafter`."""
        self._text, self._n_shared, self._sampler = text.tolist(), 0, sampler
        self._compare()

    def push(self, tokens: Sequence[int]) -> None:
        """See `Drafter`."""
        self._text += tokens
        self._compare()

    def grade(self) -> int | None:
        """Return 0, or None where there is no text or no room for it."""
        return 0 if 0 < len(self._text) <= self._session.context else None

    def backlog(self) -> int:
        """See `Drafter`."""
        n = len(self._text) - self._n_shared
        return n if n > self._USUAL_BACKLOG else 0

    def catch_up(self) -> None:
        """See `Drafter`."""
        self._rewind()
        self._feed(self._text[self._n_shared : -1])

    def draft(self, n_tokens: int) -> Draft:
        """See `Drafter`."""
        wanted = self._sampler.sampling
        draws = wanted.temperature > 0 and wanted.seed is None
        temperature = wanted.temperature if draws else 0.0
        sampler = self._sampler.fork(temperature=temperature, forbidden=self._forbidden)
        self._rewind()
        new = self._text[len(self._fed) :]
        tokens: list[int] = []
        distributions: list[Distribution] = []
        # The last token guessed is not fed.
        room = self._session.context - len(self._text) + 1
        for _ in range(min(n_tokens, room)):
            distributions.append(sampler.distribution(self._feed(new)))
            new = [sampler.sample_from(distributions[-1])]
            tokens += new
        return Draft(tokens, distributions if draws else ())

    def close(self) -> None:
        """See `Drafter`."""
        self._session.close()
        self._loaded.close()

    def _compare(self) -> None:
        end = min(len(self._fed), len(self._text))
        while self._n_shared < end and self._fed[self._n_shared] == self._text[self._n_shared]:
            self._n_shared += 1

    def _rewind(self) -> None:
        """Forget what the text does not hold, and its last token: it is fed for its logits."""
        self._n_shared = min(self._n_shared, len(self._text) - 1)
        self._session.rewind(self._n_shared)
        del self._fed[self._n_shared :]

    def _feed(self, tokens: Sequence[int]) -> FloatArray:
        try:
            rows = self._loaded.step([(self._session, np.asarray(tokens, dtype=np.int64))])
        except BaseException:
            # Interrupted or failed: what the session remembers is not known.
            self._fed, self._n_shared = [], 0
            raise
        self._fed += tokens
        self._compare()
        row: FloatArray = rows[0]
        return row


def check_same_tokens(ours: Tokenizer, drafts: Tokenizer, *, name: str) -> None:
    """Refuse a draft model that writes other tokens.

    Args:
        ours: the tokenizer of the model that answers.
        drafts: the draft model's.
        name: the draft model's name for messages.

    Raises:
        InputError: if a token is not the same in both.
    """
    for token in range(max(ours.vocab_size, drafts.vocab_size)):
        here, there = ours.token(token), drafts.token(token)
        if here != there:
            raise InputError(
                f"draft model {name}: token {token} is {there!r}, and {here!r} in the model that "
                f"answers; the two need the same tokenizer"
            )
