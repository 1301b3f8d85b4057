"""A bundle on this device as a backend: its answers, computed together, read by async code."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import EngineUnavailable, InputError
from onhand.device.batching import Batcher
from onhand.device.engines.base import Session
from onhand.device.guide import AwaitingGuide, Guide
from onhand.device.learning.in_use import InUse
from onhand.device.opening import OpenedBundle
from onhand.device.prompts import OVER_HTTP, PromptReader
from onhand.device.request import Request
from onhand.device.sampling import Sampling, Watcher
from onhand.device.score_shifts import check_biased
from onhand.device.serving.asks import Ask, Ending, EndReason, Piece
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.model_blocks import blocks_of
from onhand.device.serving.caches.remembered import Remembered
from onhand.device.serving.models.answer_text import AnswerText
from onhand.device.serving.models.answering_version import AnsweringVersion, Taken
from onhand.device.serving.models.fingerprints import fingerprint_of
from onhand.device.serving.models.footprint import page_tokens, token_bytes
from onhand.device.serving.models.governing import GovernedBatcher
from onhand.device.serving.models.memory import Hold, SessionMemory, UnboundedMemory
from onhand.device.serving.models.scores import ScoreKeeper
from onhand.device.serving.models.warming import warm_up_texts
from onhand.device.serving.settings import ModelSettings
from onhand.device.template import Message
from onhand.device.text_files import model_sampling
from onhand.device.tools.calling import calling_of

__all__ = ["LocalModel"]


class LocalModel:
    """See `Backend`. Made by `open_served`; to be used from one event loop.

    Each answer is read by a thread of its own, which waits for tokens and hands text to the loop.

    Attributes:
        name: what requests call it.
        usual: the sampling that the model's makers suggest.
        context: most tokens of prompt and answer together.
        engine_name: the engine that runs it.
        governed: what a governor changes of it.
        version: the learned version that answers, which may change meanwhile.
    """

    def __init__(
        self,
        opened: OpenedBundle,
        settings: ModelSettings,
        *,
        memory: SessionMemory = UnboundedMemory(),  # noqa: B008 (it has no state)
        blocks: BlockStore | None = None,
    ) -> None:
        """Take an opened bundle over; `close` closes it.

        Args:
            opened: the bundle.
            settings: how it is served.
            memory: where the key/value memory of answers is asked for.
            blocks: where what conversations remember is kept on the disk; None for nowhere.
        """
        decoder = opened.bundle.manifest.decoder
        self.name = settings.name or opened.bundle.manifest.name
        self.usual: Sampling = model_sampling(opened.bundle)
        self.context = min(settings.context or opened.loaded.context, opened.loaded.context)
        self.engine_name = opened.engine_name
        self._opened = opened
        self._memory = memory
        self._blocks = blocks
        self._prompts = PromptReader(
            tokenizer=opened.files.tokenizer,
            template=opened.files.template,
            name=self.name,
            advice=OVER_HTTP,
        )
        opened.files.tokenizer.encode_in_one_thread()
        limits = settings.limits
        self._batcher = Batcher(opened.loaded, limits=limits)
        self.governed = GovernedBatcher(
            self.name,
            opened.loaded,
            self._batcher,
            context=self.context,
            speculates=settings.speculate == "lookup",
        )
        self._forbidden = opened.files.tokenizer.missing(opened.loaded.vocab_size)
        tokenizer = opened.bundle.path("tokenizer.json")
        self._calling = calling_of(opened.files, tokenizer, opened.loaded.vocab_size)
        n_bytes = token_bytes(decoder, engine=opened.engine_name, kv=settings.kv)
        self._remembered = Remembered(
            opened.loaded,
            context=self.context,
            token_bytes=n_bytes,
            page_tokens=page_tokens(engine=opened.engine_name, context=self.context),
            most_bytes=settings.prefix_cache_bytes,
            blocks=blocks_of(blocks, way=settings.prefill, token_bytes=n_bytes),
        )
        self.version = _answering(opened, settings, self._remembered, context=self.context)
        self._threads = ThreadPoolExecutor(
            limits.max_active + limits.max_waiting + 1, thread_name_prefix="onhand-answer"
        )

    def governables(self) -> tuple[GovernedBatcher]:
        """See `HoldsGovernable`."""
        return (self.governed,)

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        return self._batcher.n_requests

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory of what ended conversations remember."""
        return self._remembered.n_bytes

    @property
    def bundle_sha256(self) -> str:
        """Hash of the bundle's manifest: which version it is."""
        return self._opened.bundle.manifest_sha256

    @property
    def fingerprint(self) -> str:
        """The same for models that answer alike, to the bit."""
        return self.version.fingerprint

    @property
    def learned(self) -> InUse:
        """Which learned version answers."""
        return self.version.learned

    def remembered(self) -> list[tuple[float, int]]:
        """Return when each conversation that is remembered was used last, and its bytes."""
        return self._remembered.ages()

    def forget(self, n: int) -> None:
        """Forget the longest unused conversations; see `Remembered.forget`."""
        self._remembered.forget(n)

    def warm_up(self) -> None:
        """Do for nobody what an answer takes, so that the first one finds it done."""
        with suppress(InputError):  # this template wants another conversation
            self._calling.render([Message("user", "hello")], None)
        if self._blocks is not None:
            warm_up_texts(
                self._blocks,
                self._opened.files.tokenizer,
                vocab_size=self._opened.loaded.vocab_size,
            )
        self._remembered.begin()
        session = self._opened.loaded.session(context=min(self.context, 64))
        try:
            self._opened.loaded.step([(session, np.zeros(1, dtype=np.int64))])
        finally:
            session.close()

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: as in `Backend`.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Piece | Ending | BaseException] = asyncio.Queue()

        def post(item: Piece | Ending | BaseException) -> None:
            loop.call_soon_threadsafe(news.put_nowait, item)

        reading = _Reading(self, ask, post)
        done = loop.run_in_executor(self._threads, reading.run)
        try:
            with self.governed.expecting(ask.deadline_s):
                while True:
                    item = await news.get()
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                    if isinstance(item, Ending):
                        return
        finally:
            reading.cancel()
            # Where it is cancelled itself, the thread ends all the same.
            await asyncio.shield(done)

    def break_off(self) -> None:
        """End all answers that run, and take no more."""
        self._batcher.close()

    def close(self) -> None:
        """Break answers off and release the weights; safe to call twice."""
        self._batcher.close()
        self._threads.shutdown()
        self._remembered.close()
        self._opened.loaded.close()

    def begin(self, ask: Ask, *, is_wanted: Callable[[], bool]) -> "Begun":
        """Read a prompt and submit it; called by the thread that reads the answer.

        Raises:
            OnhandError: as in `PromptReader.read`, `SessionMemory.hold` and `Batcher.submit`.
        """
        tokens, _ = self._prompts.read(
            ask.prompt,
            context=self.context,
            max_tokens=ask.max_tokens,
            overflow="error",
            render=lambda messages: self._calling.render(messages, ask.tools),
        )
        check_biased(ask.sampling.logit_bias, self._opened.loaded.vocab_size)
        max_tokens = self.governed.max_tokens(tokens.size, ask.max_tokens)
        scores = None
        if ask.n_scores is not None:
            scores = ScoreKeeper(self._opened.files.tokenizer, n_others=ask.n_scores)
        watchers: list[Watcher] = [] if scores is None else [scores]
        if (guide := self._calling.guide(ask.tools, ask.grammar)) is not None:
            watchers.append(guide)
        session, taken = self.version.take(ask.tenant, tokens, ask.prompt)
        hold = None
        try:
            n_most = tokens.size + (self.context if max_tokens is None else max_tokens)
            hold = self._memory.hold(
                known=session.length, most=min(n_most, self.context), is_wanted=is_wanted
            )
            self._remembered.restore(ask.tenant, session, tokens)
            n_cached = session.length
            request = self._batcher.submit(
                session,
                tokens[n_cached:],
                max_tokens=max_tokens,
                sampling=ask.sampling,
                stop_ids=self._opened.files.stop_ids,
                seen=tokens,
                forbidden=self._forbidden,
                watchers=watchers,
            )
        except BaseException:
            self.version.give_back(ask.tenant, session, tokens, taken)
            if hold is not None:
                hold.release()
            raise
        is_cut = max_tokens != ask.max_tokens
        return Begun(session, request, tokens, n_cached, scores, hold, is_cut, guide, taken)

    def read(self, ask: Ask, begun: "Begun", post: Callable[[Piece], None]) -> Ending | None:
        """Read an answer to its end, and keep what its session remembers.

        Returns:
            Its end; None if it was cancelled.

        Raises:
            OnhandError: what the engine raised.
        """
        chosen: list[int] = []
        is_whole = False
        try:
            ending = self._read(ask, begun, chosen, post)
            is_whole = True
            return ending
        finally:
            begun.request.close()
            if is_whole:
                tokens = np.concatenate((begun.tokens, np.asarray(chosen, dtype=np.int64)))
                if begun.session.length > tokens.size:  # it ran ahead of who read it
                    begun.session.rewind(tokens.size)
                self.version.give_back(ask.tenant, begun.session, tokens, begun.taken)
            else:  # a step that failed: nothing that it remembers can be trusted
                begun.session.close()
            # Last, so that what is remembered counts before this ends to count.
            begun.hold.release()

    def _read(
        self, ask: Ask, begun: "Begun", chosen: list[int], post: Callable[[Piece], None]
    ) -> Ending | None:
        text = self._text(ask, post)
        reason: EndReason | None = None
        for token in begun.request:
            chosen.append(token)
            if token in self._opened.files.stop_ids:
                continue  # it is the last
            score = None if begun.scores is None else begun.scores.at(len(chosen) - 1)
            if text.push(token, score):
                reason = "stop"
                break
        if begun.request.finish_reason == "cancelled":
            return None
        if begun.guide is not None and begun.guide.failure is not None:
            raise begun.guide.failure
        if reason is None:
            is_stop = text.finish() or begun.request.finish_reason == "stop"
            reason = "stop" if is_stop else "length"
        if reason == "stop" and text.has_calls:
            reason = "tool_calls"
        return Ending(
            reason=reason,
            prompt_tokens=begun.tokens.size,
            cached_tokens=begun.n_cached,
            generated_tokens=len(chosen),
            # Nobody who asks the same later is to get what a ceiling of now made of it.
            fingerprint=f"{self.fingerprint} cut" if begun.is_cut else begun.taken.fingerprint,
        )

    def _text(self, ask: Ask, post: Callable[[Piece], None]) -> AnswerText:
        use = ask.tools
        return AnswerText(
            self._calling.stream(use),
            stop=ask.stop,
            calls=self._calling.scanner(use),
            most_calls=None if use is None or use.is_parallel else 1,
            post=post,
        )


def _answering(
    opened: OpenedBundle, settings: ModelSettings, remembered: Remembered, *, context: int
) -> AnsweringVersion:
    sha256, engine_name = opened.bundle.manifest_sha256, opened.engine_name
    as_built = fingerprint_of(settings, sha256, engine_name=engine_name, context=context)
    return AnsweringVersion(
        opened.loaded,
        remembered,
        learned=opened.learned,
        as_built=as_built,
        context=context,
        scope=opened.scope,
    )


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that was submitted."""

    session: Session
    request: Request
    tokens: TokenArray
    n_cached: int
    scores: ScoreKeeper | None
    hold: Hold
    is_cut: bool
    guide: Guide | AwaitingGuide | None
    taken: Taken


class _Reading:
    """The thread that reads one answer, and how to stop it from outside."""

    def __init__(
        self, model: LocalModel, ask: Ask, post: Callable[[Piece | Ending | BaseException], None]
    ) -> None:
        self._model = model
        self._ask = ask
        self._post = post
        self._lock = threading.Lock()
        self._request: Request | None = None
        self._is_cancelled = False

    def run(self) -> None:
        """Read to the end."""
        try:
            begun = self._model.begin(self._ask, is_wanted=lambda: not self._is_cancelled)
            with self._lock:
                self._request = begun.request
                is_cancelled = self._is_cancelled
            if is_cancelled:
                begun.request.cancel()
            ending = self._model.read(self._ask, begun, self._post)
            closed = EngineUnavailable("the answer was broken off: the server ends")
            self._post(closed if ending is None else ending)
        except BaseException as error:  # noqa: BLE001 (raised again by who waits for the answer)
            self._post(error)

    def cancel(self) -> None:
        """Let no more tokens be computed; returns at once."""
        with self._lock:
            self._is_cancelled = True
            request = self._request
        if request is not None:
            request.cancel()
