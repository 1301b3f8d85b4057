"""Patterns of names, as options of passes have them."""

from fnmatch import fnmatchcase

from onhand.core.errors import InputError

__all__ = ["checked_patterns", "pattern_of"]


def checked_patterns(given: object) -> tuple[str, ...]:
    """Return patterns from a recipe's list.

    Args:
        given: a list or tuple of texts; a text alone would be a list of letters.

    Returns:
        The patterns.

    Raises:
        InputError: if it is something else.
    """
    if not isinstance(given, tuple | list) or not all(isinstance(item, str) for item in given):
        raise InputError(f"keep is {given!r}, must be a list of patterns, as ['head.*']")
    return tuple(given)


def pattern_of(name: str, patterns: tuple[str, ...]) -> str | None:
    """Return the first pattern that a name has, or None."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)
