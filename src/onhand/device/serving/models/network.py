"""A network on this device: vectors of texts, classes of pictures and texts."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineBusy, InputError
from onhand.core.feed import PictureFeed, TextFeed
from onhand.device.networks.answers import CLASSIFIES, Likely
from onhand.device.networks.embeddings import cosines
from onhand.device.networks.pictures import parse_picture
from onhand.device.networks.session import NetworkSession, open_session
from onhand.device.serving.settings import ModelSettings

__all__ = ["NetworkModel", "ServedNetwork", "open_network_model"]

_T = TypeVar("_T")


@runtime_checkable
class NetworkModel(Protocol):
    """A network under a name that requests call it by."""

    async def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """Return the vectors of texts; see `ServedNetwork.embed`."""
        ...

    async def classify(self, example: str | bytes, *, top: int) -> list[Likely]:
        """Return the likeliest classes; see `ServedNetwork.classify`."""
        ...

    async def compare(self, text: str, others: Sequence[str]) -> FloatArray:
        """Return how like a text is to others; see `ServedNetwork.compare`."""
        ...

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    @property
    def task(self) -> str:
        """What it is for."""
        ...

    @property
    def engine_name(self) -> str:
        """The engine that runs it."""
        ...

    @property
    def fingerprint(self) -> str:
        """The same for networks whose vectors can be compared."""
        ...

    @property
    def n_active(self) -> int:
        """Requests that have not ended."""
        ...

    @property
    def reads_pictures(self) -> bool:
        """Whether it takes pictures."""
        ...

    def break_off(self) -> None:
        """Take no more requests."""
        ...

    def close(self) -> None:
        """Release the network; safe to call twice."""
        ...


class ServedNetwork:
    """A network that requests share; one run at a time. To be used from one event loop.

    Attributes:
        name: what requests call it.
        task: what it is for.
        engine_name: the engine that runs it.
        fingerprint: the same for networks whose vectors can be compared.
        bundle_sha256: hash of the bundle's manifest: which version it is.
        learned: which learned version answers.
    """

    def __init__(self, name: str, session: NetworkSession, settings: ModelSettings) -> None:
        """Take an open network over; `close` closes it."""
        self.name = name
        self.task = session.network.task
        self.engine_name = session.engine_name
        # This hash tells versions apart, too.
        self.fingerprint = f"{session.bundle_sha256} {session.choice.variant} {session.engine_name}"
        self.bundle_sha256 = session.built_sha256
        self.learned = session.learned
        self._session = session
        self._most_waiting = settings.max_waiting
        # One, for a run uses all threads that it may.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onhand-network")
        self._n_open = 0

    @property
    def n_active(self) -> int:
        """Requests that have not ended."""
        return self._n_open

    @property
    def reads_pictures(self) -> bool:
        """Whether it takes pictures."""
        return isinstance(self._session.network.feed, PictureFeed)

    def remembered(self) -> list[tuple[float, int]]:
        """Return nothing: a network remembers no conversations."""
        return []

    def forget(self, n: int) -> None:
        """Do nothing, likewise."""

    async def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """Return the vectors of texts and how many tokens they have.

        Args:
            texts: N of them.

        Returns:
            vectors: (N, D) float32.
            n_tokens: of all texts.

        Raises:
            InputError: if the network is for something else, or a text has more tokens than it
                reads: none is cut in silence.
            EngineBusy: if as many requests wait as may.
        """
        if self.task != "text-embedding":
            raise InputError(f"{self.name} is for {self.task}, not for text-embedding")
        return await self._in_turn(lambda: self._embed(texts))

    async def classify(self, example: str | bytes, *, top: int) -> list[Likely]:
        """Return the likeliest classes of a text, or of a picture's file.

        Args:
            example: a text, or the bytes of a picture.
            top: how many.

        Returns:
            The likeliest first.

        Raises:
            InputError: if the network does not classify, or takes another kind of input.
            EngineBusy: if as many requests wait as may.
        """
        if self.task not in CLASSIFIES:
            raise InputError(f"{self.name} is for {self.task}, and has no classes")
        return await self._in_turn(lambda: self._classify(example, top))

    async def compare(self, text: str, others: Sequence[str]) -> FloatArray:
        """Return how like a text is to others.

        Args:
            text: one.
            others: N of them.

        Returns:
            (N,) float32 cosines.

        Raises:
            InputError: as in `embed`; input 0 is the text.
            EngineBusy: as in `embed`.
        """
        vectors, _ = await self.embed([text, *others])
        return np.asarray(cosines(vectors[:1], vectors[1:])[0])

    def break_off(self) -> None:
        """Take no more requests; the one that runs ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Release the network; safe to call twice."""
        self._thread.shutdown(cancel_futures=True)
        self._session.close()

    async def _in_turn(self, work: Callable[[], _T]) -> _T:
        if self._n_open > self._most_waiting:
            raise EngineBusy(f"{self._n_open} requests wait; ask again")
        self._n_open += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._n_open -= 1

    def _embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        n_tokens = 0
        for number, text in enumerate(texts):
            read = self._session.read(text)
            n_tokens += int(next(iter(read.feeds.values())).shape[1])
            if read.cut[0]:
                raise InputError(
                    f"input {number} has more tokens than the {self._session.max_tokens} that "
                    f"{self.name} reads; shorten it"
                )
        return self._session.embed(texts), n_tokens

    def _classify(self, example: str | bytes, top: int) -> list[Likely]:
        feed = self._session.network.feed
        if isinstance(example, str):
            if not isinstance(feed, TextFeed):
                raise InputError(f"{self.name} takes no texts")
            read = self._session.read(example)
            if read.cut[0]:
                most = self._session.max_tokens
                raise InputError(f"the text has more than {most} tokens; shorten it")
            return self._session.likeliest(self._session.run(read.feeds), top=top)
        if not isinstance(feed, PictureFeed):
            raise InputError(f"{self.name} takes no pictures")
        return self._session.classify(parse_picture(example, where="input"), top=top)


def open_network_model(settings: ModelSettings, name: str, *, home: Path | None) -> ServedNetwork:
    """Open a bundle of a network for serving.

    Args:
        settings: which, and how.
        name: the bundle's own.
        home: the state folder; None for the user's own.

    Returns:
        The network; close it.

    Raises:
        OnhandError: as in `onhand.device.networks.session.open_session`.
    """
    session = open_session(
        settings.bundle,
        variant=settings.variant or None,
        engine=settings.engine or None,
        threads=settings.threads or None,
        version=settings.version_number,
        home=home,
    )
    if isinstance(session.network.feed, TextFeed):
        # The tokenizer is read now: another version may lie in its place when it is needed.
        _ = session.max_tokens
    return ServedNetwork(settings.name or name, session, settings)
