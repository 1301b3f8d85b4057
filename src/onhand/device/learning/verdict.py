"""What a gate said about a candidate: kept beside it as its report."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import flag, object_of, parse_json, shown

__all__ = ["Verdict", "parse_verdict", "render_verdict"]

FORMAT: Final = 1
_MOST_ENTRIES, _LONGEST = 1000, 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision about a candidate, with all that led to it.

    Attributes:
        is_accepted: whether it may be used.
        reasons: why not; empty for one that is accepted.
        figures: name -> finite value: what was compared, before and after.
    """

    is_accepted: bool
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def render_verdict(verdict: Verdict) -> bytes:
    """Return the one byte string of a verdict: sorted keys, final newline."""
    table = {
        "figures": {name: value for name, value in verdict.figures.items() if math.isfinite(value)},
        "format": FORMAT,
        "is_accepted": verdict.is_accepted,
        "reasons": list(verdict.reasons),
    }
    return json.dumps(table, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def parse_verdict(content: bytes, *, where: str) -> Verdict:
    """Read and validate a report.

    Args:
        content: the file's bytes; the caller has bounded their number.
        where: the file, for messages.

    Returns:
        The verdict.

    Raises:
        BundleCorrupt: if anything in it is missing, unknown or not valid.
    """
    try:
        return _verdict(parse_json(content))
    except InputError as error:
        raise BundleCorrupt(f"{where}: {error}") from error


def _verdict(value: object) -> Verdict:
    table = object_of(value, "report", {"figures", "format", "is_accepted", "reasons"})
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    return Verdict(
        is_accepted=flag(table, "is_accepted", "report"),
        reasons=_texts(table.get("reasons")),
        figures=_figures(table.get("figures")),
    )


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
        raise InputError(f"reasons must be a list of up to {_MOST_ENTRIES} texts")
    texts = tuple(one for one in value if isinstance(one, str) and len(one) <= _LONGEST)
    if len(texts) != len(value):
        raise InputError(f"a reason is no text of up to {_LONGEST} letters")
    return texts


def _figures(value: object) -> dict[str, float]:
    if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
        raise InputError(f"figures must be an object of up to {_MOST_ENTRIES} numbers")
    figures: dict[str, float] = {}
    for name, one in value.items():
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise InputError(f"figure {shown(name)} is {shown(one)}, no finite number")
        figures[name] = float(one)
    return figures
