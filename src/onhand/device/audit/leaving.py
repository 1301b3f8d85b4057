"""What leaves the device for a request: whoever sends it notes a hash of it, and its class."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["Departed", "gathering", "note_departure"]

Departed = dict[str, str]
"""To whom ("backend"), "class" and "form" of the request, and SHA-256 of the bytes ("sha256")."""

_GATHERED: Final[ContextVar[list[Departed] | None]] = ContextVar("departures", default=None)


@contextmanager
def gathering() -> Iterator[list[Departed]]:
    """Gather what is noted while the block runs, in its tasks as well.

    Yields:
        What was noted so far, in order.
    """
    found: list[Departed] = []
    token = _GATHERED.set(found)
    try:
        yield found
    finally:
        _GATHERED.reset(token)


def note_departure(backend: str, content: bytes, *, privacy: str, form: str) -> None:
    """Note that bytes are sent; nothing happens where nobody gathers.

    Args:
        backend: name of the server that gets them.
        content: the bytes, of which a hash is kept.
        privacy: class of the request.
        form: "as-is", or "redacted" where what is personal was taken out before.
    """
    found = _GATHERED.get()
    if found is not None:
        digest = hashlib.sha256(content).hexdigest()
        one = {"backend": backend, "class": privacy, "form": form, "sha256": digest}
        found.append(one)
