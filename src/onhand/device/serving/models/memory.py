"""Where a model asks for the key/value memory of an answer before it is computed."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["Hold", "SessionMemory", "UnboundedMemory"]


class Hold(Protocol):
    """Memory that one answer may take."""

    def release(self) -> None:
        """Give it back; safe to call twice."""
        ...


class SessionMemory(Protocol):
    """Gives memory to answers. May be shared between threads."""

    def hold(self, *, known: int, most: int, is_wanted: Callable[[], bool]) -> Hold:
        """Return when there is room for an answer.

        Args:
            known: tokens that its session remembers already; their memory is there.
            most: tokens that it may come to remember.
            is_wanted: asked now and then; False where nobody waits for the answer any more.

        Returns:
            What gives the memory back.

        Raises:
            RefusedRequest: if there is no room in time, or never will be.
        """
        ...


class _NoHold:
    """See `Hold`: nothing was counted."""

    def release(self) -> None:
        """See `Hold`."""


class UnboundedMemory:
    """See `SessionMemory`: nothing is counted."""

    def hold(self, *, known: int, most: int, is_wanted: Callable[[], bool]) -> Hold:
        """See `SessionMemory`."""
        return _NoHold()
