"""Whether and how a request may leave for one other server: the last look before transport."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from onhand.device.privacy.restoring import PieceRestorer
from onhand.device.privacy.veil import Veil, kept_here
from onhand.device.serving.api.wire import wire_of
from onhand.device.serving.asks import Ask, Departure, Ending, Piece, Wire
from onhand.device.serving.backends.settings import BackendSettings
from onhand.device.serving.refusals import BackendFailed

__all__ = ["Leaving", "left_with"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A request that may leave.

    Attributes:
        wire: as it leaves.
        ask: whose.
        departure: what is said of it.
        restorer: puts values back into its answer; None where nothing was taken out.
    """

    wire: Wire
    ask: Ask
    departure: Departure
    restorer: PieceRestorer | None = field(default=None, repr=False)

    def left(self) -> Callable[[], None]:
        """Say that it leaves; return what takes that back."""
        return _said(self.ask, self.departure)

    def restored(self, part: Piece | Ending) -> Iterable[Piece | Ending]:
        """Return a part of the answer as the client is to have it."""
        return (part,) if self.restorer is None else self.restorer.push(part)


async def left_with(ask: Ask, settings: BackendSettings) -> Leaving:
    """Return a request in the form in which one server may have it.

    Args:
        ask: what is asked; its class was decided before.
        settings: of the server.

    Returns:
        It.

    Raises:
        BackendFailed: if it may not leave at all, or what is personal in it cannot be taken out.
    """
    privacy = ask.wishes.privacy
    wire = wire_of(ask)
    if privacy == "public" or (privacy == "redact" and settings.privacy == "redact"):
        return Leaving(wire=wire, ask=ask, departure=Departure(backend=settings.name, form="as-is"))
    try:
        veil = _veil(ask)
        wire, veiled = await veil.over(wire)
    except BackendFailed:
        _said(ask, Departure(backend=settings.name, form="kept"))
        raise
    departure = Departure(
        backend=settings.name,
        form="redacted",
        found=veiled.placeholders.counts,
        finds_names=veil.finds_names,
    )
    return Leaving(wire=wire, ask=ask, departure=departure, restorer=veiled.restorer())


def _veil(ask: Ask) -> Veil:
    if ask.wishes.privacy != "redact":
        raise kept_here("it is private")
    if ask.veil is None:
        raise kept_here("nothing here takes personal data out of it")
    return ask.veil


def _said(ask: Ask, departure: Departure) -> Callable[[], None]:
    return _nothing if ask.left is None else ask.left(departure)


def _nothing() -> None:
    """Take nothing back."""
