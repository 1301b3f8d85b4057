"""One set of weights for many conversations."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from onhand.core.scope import Scope
from onhand.device.adapting.choosing import WayChoice
from onhand.device.batching import Batcher
from onhand.device.engines.base import Loaded
from onhand.device.generate import TextSession
from onhand.device.learning.in_use import AS_BUILT, InUse
from onhand.device.schedule import Limits
from onhand.device.text_files import TextFiles

__all__ = ["TextModel"]


class TextModel:
    """A model opened once for any number of conversations. May be shared between threads.

    Each of its sessions has a memory of its own, for one thread at a time; answers that are read
    at the same time are computed in common steps. One that is alone costs what it costs in a
    `TextSession` that owns its weights.

    Attributes:
        tokenizer: text to tokens and back.
        engine_name: the engine that runs the model.
        passed_over: engines preferred to it that cannot run here, or are slower, and why.
        choice: how engine and threads were chosen; None where nobody says.
        learned: which learned version it computes with.
    """

    def __init__(
        self,
        loaded: Loaded,
        files: TextFiles,
        *,
        name: str = "model",
        engine_name: str = "",
        passed_over: Mapping[str, str] | None = None,
        choice: WayChoice | None = None,
        learned: InUse = AS_BUILT,
        scope: Scope | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        """Take weights over; `close` closes them.

        Args:
            loaded: the weights, owned from now on.
            files: what the model's text files say.
            name: the model's name for messages.
            engine_name: the engine of `loaded`.
            passed_over: engines preferred to it, or slower, and why they were not taken.
            choice: how engine and threads were chosen; None where nobody says.
            learned: which learned version `loaded` computes with.
            scope: which prompts it answers; None for all.
            limits: how many answers to compute at once, and how many may wait.
        """
        self.tokenizer = files.tokenizer
        self.engine_name = engine_name
        self.passed_over = dict(passed_over or {})
        self.choice = choice
        self.learned = learned
        self._scope = scope
        self._loaded = loaded
        self._files = files
        self._name = name
        self._batcher = Batcher(loaded, limits=limits)

    @property
    def context(self) -> int:
        """Most tokens that a session can remember."""
        return self._loaded.context

    def session(self, *, context: int | None = None) -> TextSession:
        """Start a conversation.

        Its answers may raise `EngineBusy` where they begin to be read, if as many wait as may.

        Args:
            context: most tokens of prompt and answer together; None for the model's own.

        Returns:
            The session; closing it releases its memory, and leaves the weights.

        Raises:
            InputError: if `context` is below 1 or above the model's, or the model is closed.
        """
        return TextSession(
            self._loaded,
            self._files.tokenizer,
            template=self._files.template,
            stop_ids=self._files.stop_ids,
            context=context,
            name=self._name,
            engine_name=self.engine_name,
            passed_over=self.passed_over,
            choice=self.choice,
            learned=self.learned,
            scope=self._scope,
            batcher=self._batcher,
        )

    def close(self) -> None:
        """Cancel answers and release the weights; safe to call twice.

        Sessions are of no use afterwards.
        """
        self._batcher.close()
        self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
