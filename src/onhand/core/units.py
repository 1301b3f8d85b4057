"""Sizes, times and fractions as people write them: "400MiB", "50ms", "1%"."""

import math
import re

from onhand.core.errors import InputError

__all__ = ["format_bytes", "format_seconds", "parse_bytes", "parse_fraction", "parse_number"]

_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z%/]*)\s*")


def parse_number(text: str, *, suffixes: dict[str, float]) -> float:
    """Read a positive number with one of the given suffixes.

    Args:
        text: such as "50ms".
        suffixes: suffix in lower case -> factor; "" is a bare number.

    Returns:
        The number times the factor of its suffix.

    Raises:
        InputError: if the text is not a number, or its suffix is not known.
    """
    match = _NUMBER.fullmatch(text)
    known = ", ".join(repr(suffix) for suffix in suffixes if suffix)
    if match is None:
        raise InputError(f"{text!r} is not a number with a unit such as {known}")
    number, suffix = match.groups()
    if suffix.lower() not in suffixes:
        raise InputError(f"{text!r}: unknown unit {suffix!r}; known: {known}")
    value = float(number) * suffixes[suffix.lower()]
    if not math.isfinite(value):
        raise InputError(f"{text!r} is too large")
    return value


def parse_bytes(text: str) -> int:
    """Read a size: "400MiB", "1.5GB", "1048576"; raises InputError."""
    return round(parse_number(text, suffixes={k: float(v) for k, v in _BYTES.items()}))


def parse_fraction(text: str) -> float:
    """Read a share: "1%" is 0.01, and so is "0.01"; raises InputError."""
    return parse_number(text, suffixes={"": 1.0, "%": 0.01})


def format_bytes(size: float) -> str:
    """Write a size for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def format_seconds(seconds: float) -> str:
    """Write a time for people: "3.2 ms", "0.125 ms", "4.1 s", "2 min 05 s"."""
    if 0 < abs(seconds) < 0.001:
        return f"{seconds * 1000:.3f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120 or not math.isfinite(seconds):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
