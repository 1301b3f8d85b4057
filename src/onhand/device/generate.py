"""Answers token by token: prompts, conversations, stop conditions, and a context that ends."""

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import TokenArray
from onhand.core.errors import InputError
from onhand.core.scope import Scope
from onhand.device.adapting.choosing import WayChoice
from onhand.device.batching import Batcher
from onhand.device.engines.base import Loaded, Session
from onhand.device.engines.choosing import step_sample_of
from onhand.device.learning.in_use import AS_BUILT, InUse
from onhand.device.prompts import Overflow, PromptReader
from onhand.device.sampling import Sampler, Sampling, check_max_tokens
from onhand.device.speculate import SpeculationCounts, Speculator
from onhand.device.stop_strings import StopStrings
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import TextStream, Tokenizer
from onhand.device.tracks import Track, Tracks

__all__ = ["FinishReason", "Generation", "Overflow", "TextSession", "generate_tokens"]

FinishReason = Literal["stop", "stop-string", "length", "context", "cancelled"]


def generate_tokens(
    loaded: Loaded,
    session: Session,
    prompt: TokenArray,
    *,
    max_tokens: int | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    stop_ids: Collection[int] = (),
    seen: TokenArray | None = None,
    forbidden: NDArray[np.bool_] | None = None,
) -> Generator[int]:
    """Append a prompt to a session and continue it.

    A token enters the session's memory only when the one after it is asked for, so the last one
    yielded is not in it.

    Args:
        loaded: the weights.
        session: one of its sessions; what it remembers comes before `prompt`.
        prompt: (T,) int64, T >= 1.
        max_tokens: most tokens to yield; None for as many as the context holds.
        sampling: how each is chosen.
        stop_ids: tokens that end the answer; the one that does is yielded as the last.
        seen: (T',) tokens for the repetition penalty; None for those of `prompt`.
        forbidden: (V,) True for ids that may never be chosen.

    Yields:
        Token ids.

    Raises:
        InputError: if `max_tokens` is below 1, or the prompt is empty or not in the vocabulary.
        ContextOverflow: if the prompt does not fit the session's context.
        EngineError: if the logits are not numbers to choose by.
    """
    check_max_tokens(max_tokens)
    sampler = Sampler(sampling, seen=prompt if seen is None else seen, forbidden=forbidden)
    step_sample = step_sample_of(loaded)
    tokens = prompt
    n_yielded = 0
    while True:
        (token,) = step_sample([(session, tokens)], [sampler])
        n_yielded += 1
        yield token
        if token in stop_ids or n_yielded == max_tokens or session.length >= session.context:
            return
        tokens = np.asarray([token], dtype=np.int64)


class Generation:
    """One answer as it comes: an iterator of pieces of text, none of them empty.

    Attributes:
        finish_reason: None until the end; then "stop" (the model ended its answer),
            "stop-string", "length" (`max_tokens` reached), "context" (no room for more tokens) or
            "cancelled" (closed, or a later answer began).
        prompt_tokens: tokens of the whole prompt.
        reused_tokens: those of them that the session remembered and did not compute again.
        generated_tokens: tokens chosen so far, the one that stopped included.
        dropped_messages: messages left out by overflow="drop-oldest".
        speculation: what drafting did so far; None without it.
    """

    def __init__(
        self,
        tokens: Generator[int],
        *,
        stream: TextStream,
        stops: StopStrings,
        stop_ids: Collection[int],
        max_tokens: int | None,
        prompt_tokens: int,
        reused_tokens: int,
        dropped_messages: int,
        speculation: SpeculationCounts | None,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.prompt_tokens = prompt_tokens
        self.reused_tokens = reused_tokens
        self.generated_tokens = 0
        self.dropped_messages = dropped_messages
        self.speculation = speculation
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._pieces = self._run(stream, stops, stop_ids)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Break the answer off; safe to call twice and after its end."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
        self._pieces.close()

    def _run(
        self, stream: TextStream, stops: StopStrings, stop_ids: Collection[int]
    ) -> Generator[str]:
        with closing(self._tokens):
            yield from self._text(stream, stops, stop_ids)

    def _text(
        self, stream: TextStream, stops: StopStrings, stop_ids: Collection[int]
    ) -> Generator[str]:
        reason: FinishReason | None = None
        for token in self._tokens:
            self.generated_tokens += 1
            if token in stop_ids:
                reason = "stop"
                break
            text, found = stops.push(stream.push(token))
            if found:
                # Before the piece, because its reader may look here and not ask for another.
                self.finish_reason = "stop-string"
            if text:
                yield text
            if found:
                return
        if reason is None:
            reason = "length" if self.generated_tokens == self._max_tokens else "context"
        text, found = stops.push(stream.finish())
        self.finish_reason = "stop-string" if found else reason
        if rest := text + stops.finish():
            yield rest


class TextSession:
    """A conversation with an opened model: text in, text out. One thread at a time.

    What consecutive prompts share from their beginning is computed once: the session remembers
    it, and only what is new is fed.

    Attributes:
        tokenizer: text to tokens and back.
        engine_name: the engine that runs the model.
        passed_over: engines preferred to it that cannot run here, or are slower, and why.
        choice: how engine and threads were chosen; None where nobody says.
        learned: which learned version answers.
    """

    def __init__(
        self,
        loaded: Loaded,
        tokenizer: Tokenizer,
        *,
        template: ChatTemplate | None = None,
        stop_ids: Collection[int] = (),
        context: int | None = None,
        name: str = "model",
        engine_name: str = "",
        passed_over: Mapping[str, str] | None = None,
        choice: WayChoice | None = None,
        learned: InUse = AS_BUILT,
        scope: Scope | None = None,
        batcher: Batcher | None = None,
        speculator: Speculator | None = None,
    ) -> None:
        """Start with an empty memory.

        Args:
            loaded: the weights; owned from now on, and closed with the session, unless there is
                a batcher.
            tokenizer: the model's.
            template: its chat template; None if it has none.
            stop_ids: tokens that end an answer.
            context: most tokens to remember; None for the model's own.
            name: the model's name for messages.
            engine_name: the engine of `loaded`.
            passed_over: engines preferred to it, or slower, and why they were not taken.
            choice: how engine and threads were chosen; None where nobody says.
            learned: which learned version `loaded` computes with.
            scope: which prompts it answers; None for all. The others are answered as the bundle
                was built.
            batcher: what computes answers beside those of other sessions of `loaded`; it and the
                weights stay another's. None to compute them alone.
            speculator: drafts tokens for answers that are computed alone, owned from now on;
                None for plain decoding.

        Raises:
            InputError: if `context` is below 1 or above the model's.
        """
        self.tokenizer = tokenizer
        self.engine_name = engine_name
        self.passed_over = dict(passed_over or {})
        self.choice = choice
        self.learned = learned
        self._loaded = loaded
        self._owns_weights = batcher is None
        self._speculator = speculator
        alone = generate_tokens if speculator is None else speculator.generate_tokens
        self._generate = partial(alone, loaded) if batcher is None else batcher.generate
        self._tracks = Tracks(loaded, context=context, scope=scope)
        self._prompts = PromptReader(tokenizer=tokenizer, template=template, name=name)
        self._stop_ids = frozenset(stop_ids)
        self._name = name
        self._forbidden = tokenizer.missing(loaded.vocab_size)
        self._answer: Generation | None = None
        self._is_closed = False

    @property
    def takes_messages(self) -> bool:
        """Whether the model has a chat template, so that it answers messages."""
        return self._prompts.template is not None

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._track.session.context

    @property
    def _track(self) -> Track:
        return self._tracks.current

    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop: Sequence[str] = (),
        overflow: Overflow = "error",
    ) -> Generation:
        """Begin an answer, computed as it is read; one that still runs is cancelled first.

        Args:
            prompt: a text to continue as it is, or the messages of a conversation.
            max_tokens: most tokens of the answer; None for as many as the context holds.
            sampling: how each token is chosen.
            stop: texts that end the answer; they are not shown.
            overflow: what to do with a conversation that does not fit: "error" raises;
                "drop-oldest" leaves out the oldest turns after the system message until
                `max_tokens`, or a quarter of the context where that is less, is free.

        Returns:
            The answer.

        Raises:
            ContextOverflow: if the prompt does not fit.
            InputError: if an argument is out of range, the model has no chat template, the
                session is closed, or a plain prompt is to drop its oldest turns.
        """
        if self._is_closed:
            raise InputError(f"{self._name}: the session is closed; open another")
        check_max_tokens(max_tokens)
        stops = StopStrings(stop)
        ids, dropped = self._prompts.read(
            prompt, context=self.context, max_tokens=max_tokens, overflow=overflow
        )
        if self._answer is not None:
            self._answer.close()
        self._tracks.choose(prompt)
        reused = self._keep_shared(ids)
        tokens = self._generate(
            self._track.session,
            ids[reused:],
            max_tokens=max_tokens,
            sampling=sampling,
            stop_ids=self._stop_ids,
            seen=ids,
            forbidden=self._forbidden,
        )
        self._answer = Generation(
            self._recorded(tokens),
            stream=self.tokenizer.stream(),
            stops=stops,
            stop_ids=self._stop_ids,
            max_tokens=max_tokens,
            prompt_tokens=len(ids),
            reused_tokens=reused,
            dropped_messages=dropped,
            speculation=None if self._speculator is None else self._speculator.counts,
        )
        return self._answer

    def chat(
        self,
        *messages: Message,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop: Sequence[str] = (),
        overflow: Overflow = "error",
    ) -> Generation:
        """Begin the answer to a conversation; see `generate`."""
        return self.generate(
            messages, max_tokens=max_tokens, sampling=sampling, stop=stop, overflow=overflow
        )

    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop: Sequence[str] = (),
        overflow: Overflow = "error",
    ) -> str:
        """Return a whole answer at once; see `generate`."""
        return "".join(
            self.generate(
                prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, overflow=overflow
            )
        )

    def close(self) -> None:
        """Release memory, and weights that it owns; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._answer is not None:
            self._answer.close()
        self._tracks.close()
        if self._owns_weights:
            self._loaded.close()
        if self._speculator is not None:
            self._speculator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _keep_shared(self, ids: TokenArray) -> int:
        """Forget what the prompt does not share, and return how many tokens are kept."""
        track = self._track
        known = np.asarray(track.history[: track.session.length], dtype=np.int64)
        n = min(len(known), len(ids) - 1)  # one token at least is fed, for its logits
        differs = np.flatnonzero(known[:n] != ids[:n])
        kept = int(differs[0]) if len(differs) else n
        track.session.rewind(kept)
        track.history = ids.tolist()
        return kept

    def _recorded(self, tokens: Generator[int]) -> Generator[int]:
        track = self._track
        try:
            with closing(tokens):
                for token in tokens:
                    track.history.append(token)
                    yield token
        except GeneratorExit:
            raise
        except BaseException:
            # A step that failed or was interrupted: trust nothing that the session remembers.
            track.history = []
            raise
