"""Learned versions in the options and notes of commands."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onhand.cli.output import say
from onhand.core.errors import InputError, ResourceError

if TYPE_CHECKING:
    from onhand.device.learning.in_use import InUse

__all__ = ["note_as_built", "note_learned", "version_number"]


def version_number(text: str | None, *, option: str = "--version") -> int | None:
    """Return the number that an option names.

    Args:
        text: "base" or "0" for the bundle as it was built, or digits; None where it was not given.
        option: its name for messages.

    Returns:
        The number, 0 for "base"; None where it was not given.

    Raises:
        InputError: if it is something else.
    """
    if text is None:
        return None
    if text in {"base", "0"}:
        return 0
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) > 0:
        return int(text)
    raise InputError(f"{option} is {text!r}, must be a version's number, or base")


def note_as_built(root: Path, home: Callable[[], Path]) -> None:
    """Say that a bundle is measured as it was built, where this device has learned a version of it.

    Args:
        root: the bundle's folder.
        home: gives the state folder; a user who has none has learned nothing.
    """
    from onhand.core.bundle import MANIFEST, unchecked_bundle
    from onhand.device.learning.in_use import learned_here

    if not (root / MANIFEST).exists():
        return  # whoever opens it says so
    bundle = unchecked_bundle(root)
    try:
        learned = learned_here(bundle, home())
    except ResourceError:
        return
    if learned is not None and learned.number:
        say(f"note: measured as it was built, without {learned.sentence()}")


def note_learned(learned: "InUse") -> None:
    """Say which learned version answers, and which damaged ones do not.

    Args:
        learned: of an opened bundle.
    """
    for sentence in learned.passed_over:
        say(f"warning: {sentence}")
    if learned.number or learned.passed_over:
        say(f"note: {learned.sentence()} answers")
