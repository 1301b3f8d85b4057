"""All detectors together: what is personal in a text, without overlaps."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from onhand.device.privacy.contacts import find_emails
from onhand.device.privacy.credentials import find_secrets
from onhand.device.privacy.hosts import find_hosts, find_urls
from onhand.device.privacy.money import find_cards, find_ibans
from onhand.device.privacy.people import find_ids
from onhand.device.privacy.phones import find_phones
from onhand.device.privacy.spans import KINDS, Detector, Found, Kind
from onhand.device.privacy.views import viewed

__all__ = ["DETECTORS", "find_all", "parted"]

DETECTORS: Final[Mapping[Kind, Detector]] = MappingProxyType({
    "secret": find_secrets,
    "url": find_urls,
    "email": find_emails,
    "iban": find_ibans,
    "id": find_ids,
    "card": find_cards,
    "phone": find_phones,
    "host": find_hosts,
})
"""Every kind but names, which no rule finds."""


def find_all(text: str, *, names: Detector | None = None) -> list[Found]:
    """Find what is personal in a text.

    Args:
        text: any.
        names: finds names; None where nothing does.

    Returns:
        It, in order and without overlaps; places are those of the text as it was given.
    """
    view = viewed(text)
    found = [one for detector in DETECTORS.values() for one in detector(view.text)]
    if names is not None:
        found += names(view.text)
    return [
        Found(
            kind=one.kind,
            start=view.source(one.start),
            end=view.source(one.end),
            value=one.value,
        )
        for one in parted(found)
    ]


def parted(found: Iterable[Found]) -> Sequence[Found]:
    """Return what is found without overlaps, in order.

    Args:
        found: of one text; of two that overlap the kind that is earlier in `KINDS` stays, of one
            kind the longer. What of the other one reaches beyond it is kept as a part of it, so
            that nothing that was found is left out.

    Returns:
        What stays.
    """
    ranked = sorted(found, key=lambda one: one.start)
    kept: list[Found] = []
    for one in ranked:
        last = kept[-1] if kept else None
        if last is None or one.start >= last.end:
            kept.append(one)
            continue
        better = min(last, one, key=lambda each: (KINDS.index(each.kind), each.start - each.end))
        start, end = last.start, max(last.end, one.end)
        is_whole = (better.start, better.end) == (start, end)
        kept[-1] = Found(
            kind=better.kind,
            start=start,
            end=end,
            value=better.value if is_whole else f"{last.value} {one.value}",
        )
    return kept
