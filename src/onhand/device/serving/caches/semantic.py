"""Answers to similar questions: off unless settings name an encoder."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import OnhandError
from onhand.device.serving.asks import Ask
from onhand.device.serving.caches.exact import Kept
from onhand.device.serving.caches.questions import Question, question_of
from onhand.device.serving.caches.semantic_store import Found, SemanticStore

__all__ = ["Encoder", "Lookup", "SemanticCache"]

_LOG = logging.getLogger("onhand.serving")


class Encoder(Protocol):
    """What turns texts into vectors."""

    @property
    def fingerprint(self) -> str:
        """The same as long as its vectors can be compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """Return vectors (N, D) and how many tokens the texts have.

        Raises:
            OnhandError: if it cannot.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question that was looked for, and what was found; made by `SemanticCache.look_up`.

    Attributes:
        question: what is asked, and among what.
        vector: (D,) of the question.
        found: the answer to a similar one; None for none.
    """

    question: Question
    vector: FloatArray = field(repr=False)
    found: Found | None = None


class SemanticCache:
    """A store of answered questions beside the encoder that finds them. For one event loop.

    The store works in a thread of its own, one call after the other.
    """

    def __init__(
        self, store: SemanticStore, encoder: Encoder, *, models: Sequence[str] = ()
    ) -> None:
        """Take a store over; `close` closes it.

        Args:
            store: of questions and answers.
            encoder: of the vectors that it holds.
            models: names of those whose answers it keeps; none for all of them.
        """
        self._store = store
        self._encoder = encoder
        self._models = frozenset(models)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onhand-semantic")
        self._is_closed = False

    @property
    def n_bytes(self) -> int:
        """What is kept takes, on disk and in memory."""
        return self._store.n_bytes

    @property
    def n_entries(self) -> int:
        """Questions that are kept."""
        return self._store.n_entries

    @property
    def n_hits(self) -> int:
        """Times that a similar question was found."""
        return self._store.n_hits

    @property
    def n_misses(self) -> int:
        """Times that none was."""
        return self._store.n_misses

    @property
    def rejected(self) -> Mapping[str, int]:
        """Why -> near questions that were not taken for the same."""
        return self._store.rejected

    async def look_up(
        self, asks: Sequence[Ask], *, name: str, fingerprint: str, finds: bool = True
    ) -> Lookup | None:
        """Look for a similar question.

        Args:
            asks: of one request.
            name: of the model that is asked.
            fingerprint: of it.
            finds: whether an answer would be taken; without, it is only made ready to be kept.

        Returns:
            What was found, to be given to `keep` if that is nothing; None where such a request
            has no similar ones, or its question cannot be turned into a vector.
        """
        if self._models and name not in self._models:
            return None
        encoder = self._encoder.fingerprint
        question = question_of(asks, model=f"{fingerprint} {encoder}", salt=self._store.salt)
        if question is None or self._is_closed:
            return None
        try:
            vectors, _ = await self._encoder.embed([question.text])
        except OnhandError as error:
            # Too long for the encoder, or it is busy: the model answers.
            _LOG.info("no similar question was looked for: %s", type(error).__name__)
            return None
        if self._encoder.fingerprint != encoder:
            return None  # another version was put in its place meanwhile
        vector = vectors[0].astype(np.float32)  # (D,)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-9)
        if not finds:
            return Lookup(question, vector)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._store.find, question, vector)
        return Lookup(question, vector, found)

    def keep(self, lookup: Lookup, kept: Kept) -> None:
        """Keep the answer to a question for which nothing was found; returns at once."""
        if not self._is_closed:
            self._thread.submit(self._store.keep, lookup.question, lookup.vector, kept)

    def close(self) -> None:
        """Write what is to be kept, and close the store; safe to call twice."""
        self._is_closed = True
        self._thread.shutdown(wait=True)
        self._store.close()
