"""The memories of one conversation: with what was learned, and without it where it is left out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from onhand.core.adapter import Adapter
from onhand.core.errors import InputError
from onhand.core.scope import Scope
from onhand.device.engines.base import AdaptingLoaded, Loaded, Session, as_adapting
from onhand.device.prompts import user_texts
from onhand.device.template import Message

__all__ = ["AS_BUILT", "SCOPE_ENGINE", "Track", "Tracks", "let_leave_out", "new_session"]

SCOPE_ENGINE: Final = "native"
"""The engine whose sessions can leave out what was learned."""
AS_BUILT: Final = "as built"
"""The adapter that adds nothing, of weights that were opened with another one."""


def let_leave_out(loaded: Loaded, engine_name: str, learned: str) -> None:
    """Let sessions of weights that were opened with an adapter leave it out.

    Args:
        loaded: the weights.
        engine_name: the engine of them.
        learned: what was learned, for messages.

    Raises:
        InputError: if the engine cannot.
    """
    if not isinstance(loaded, AdaptingLoaded):
        raise InputError(
            f"{learned} answers only prompts like those it was taught, and engine {engine_name!r} "
            f"cannot leave it out of others; take {SCOPE_ENGINE!r}, or version 0"
        )
    if AS_BUILT not in loaded.adapters:
        loaded.add_adapter(AS_BUILT, Adapter(pairs={}, sha256=hashlib.sha256().hexdigest()))


def new_session(loaded: Loaded, is_inside: bool, *, context: int | None) -> Session:
    """Return an empty session.

    Args:
        loaded: the weights.
        is_inside: whether what was learned answers; if not, see `let_leave_out`.
        context: most tokens to remember; None for the model's own.

    Raises:
        InputError: if the weights are closed, or cannot leave it out.
    """
    if is_inside:
        return loaded.session(context=context)
    return as_adapting(loaded).session(context=context, adapter=AS_BUILT)


@dataclass(slots=True, eq=False)
class Track:
    """A session, and the tokens that it was fed.

    Attributes:
        session: the engine's.
        history: begins with the tokens that the session remembers.
    """

    session: Session
    history: list[int] = field(default_factory=list)


class Tracks:
    """The sessions of a conversation whose prompts are in a learned version's scope, or not.

    Attributes:
        current: of the last prompt.
    """

    def __init__(self, loaded: Loaded, *, context: int | None, scope: Scope | None) -> None:
        """Begin with an empty memory.

        Args:
            loaded: the weights.
            context: most tokens to remember; None for the model's own.
            scope: which prompts get what was learned; None for all.

        Raises:
            InputError: if `context` is below 1 or above the model's.
        """
        self._loaded = loaded
        self._context = context
        self._scope = scope
        self.current = Track(loaded.session(context=context))
        self._open = {True: self.current}

    def choose(self, prompt: str | Sequence[Message]) -> None:
        """Go on in the track that a prompt belongs to.

        Args:
            prompt: as `TextSession.generate` takes it.

        Raises:
            InputError: if the weights are closed.
        """
        is_inside = self._scope is None or self._scope.holds(user_texts(prompt))
        if is_inside not in self._open:
            self._open[is_inside] = Track(
                new_session(self._loaded, is_inside, context=self._context)
            )
        self.current = self._open[is_inside]

    def close(self) -> None:
        """Release the memories; safe to call twice."""
        for track in self._open.values():
            track.session.close()
