"""Whose bundles this process takes, and how it signs its own: decided once, for all its threads.

Bundles are opened in many places; all of them read a manifest first. Without a decision every
bundle is taken and none is signed: commands decide, and so do the functions of the package itself
where the program has not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from onhand.core.manifest import Manifest

__all__ = ["Trust", "current_trust", "making", "trusting"]


class Trust(Protocol):
    """Decides whether a bundle may be opened; threads share it."""

    def check(self, root: Path, content: bytes) -> "Callable[[Manifest], None]":
        """Look at a bundle's signature, before anything of its manifest is parsed.

        Args:
            root: its folder.
            content: of its manifest.

        Returns:
            What looks at the manifest when it is parsed; it raises as this does.

        Raises:
            BundleUntrusted: if it may not be opened.
        """
        ...

    def sign(self, staged: Path, content: bytes) -> None:
        """Sign a bundle that was made here.

        Args:
            staged: its folder; the signature is written into it.
            content: of its manifest.
        """
        ...


_DECIDED: list[Trust] = []


def current_trust() -> Trust | None:
    """Return what decides; None where nothing was said."""
    return _DECIDED[-1] if _DECIDED else None


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Let a trust decide as long as the block runs, for all threads of the process.

    Args:
        trust: it.

    Yields:
        Nothing.
    """
    _DECIDED.append(trust)
    try:
        yield
    finally:
        _DECIDED.remove(trust)


@contextmanager
def making() -> Iterator[None]:
    """Take every bundle as long as the block runs: it opens what it makes, older forms included.

    What is made is signed as before. What it is made of must have been looked at already.

    Yields:
        Nothing.
    """
    decided = current_trust()
    if decided is None:
        yield
        return
    with trusting(_Signing(decided)):
        yield


class _Signing:
    """Signs as another does, and takes every bundle. See `Trust`."""

    def __init__(self, signs: Trust) -> None:
        self._signs = signs

    def check(self, root: Path, content: bytes) -> "Callable[[Manifest], None]":
        """See `Trust`."""
        return lambda manifest: None

    def sign(self, staged: Path, content: bytes) -> None:
        """See `Trust`."""
        self._signs.sign(staged, content)
