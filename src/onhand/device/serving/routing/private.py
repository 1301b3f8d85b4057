"""A request's privacy class, decided before anybody is asked: all that follows keeps to it."""

from collections.abc import Callable
from dataclasses import replace

from onhand.device.privacy.veil import Redaction
from onhand.device.serving.asks import Ask, Departure
from onhand.device.serving.wishes import Privacy

__all__ = ["decided"]


def decided(
    ask: Ask,
    privacy: Privacy,
    *,
    redaction: Redaction | None,
    counted: Callable[[Departure], None],
) -> Ask:
    """Return a request that carries its class, and what takes personal data out of it.

    Args:
        ask: as it came.
        privacy: the class that counts.
        redaction: of the server; None where nothing takes personal data out.
        counted: told of what leaves, beside whom the request itself tells.

    Returns:
        It.
    """
    told = ask.left

    def left(departure: Departure) -> Callable[[], None]:
        counted(departure)
        return _nothing if told is None else told(departure)

    return replace(
        ask,
        wishes=replace(ask.wishes, privacy=privacy),
        veil=redaction.veil() if redaction is not None and privacy == "redact" else None,
        left=left,
    )


def _nothing() -> None:
    """Take nothing back."""
