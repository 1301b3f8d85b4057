"""What leaves the device for a request: whoever sends it notes a hash of it, and its class."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["Departed", "gathering", "note_departure"]

Departed = dict[str, str]
"""To whom ("backend"), the privacy class ("class"), and SHA-256 of the bytes ("sha256")."""

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


def note_departure(backend: str, privacy: str, content: bytes) -> None:
    """Note that bytes are sent; nothing happens where nobody gathers.

    Args:
        backend: name of the server that gets them.
        privacy: class of the request.
        content: the bytes, of which a hash is kept.
    """
    found = _GATHERED.get()
    if found is not None:
        digest = hashlib.sha256(content).hexdigest()
        found.append({"backend": backend, "class": privacy, "sha256": digest})
