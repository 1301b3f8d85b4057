"""What left the device for one answer: where to, in which form, and counts; never values."""

from collections.abc import Callable, Iterable
from typing import Final

from onhand.device.serving.asks import Departure

__all__ = ["LEFT_HEADER", "NOTHING", "Ledger", "left_field"]

LEFT_HEADER: Final = "x-left-device"
NOTHING: Final = "nothing"
_LATER: Final = "told-at-the-end"


class Ledger:
    """One request's. Of one event loop."""

    def __init__(self) -> None:
        self._left: dict[int, list[Departure]] = {}

    def note(self, index: int, departure: Departure) -> Callable[[], None]:
        """Note that a choice leaves; return what takes that back.

        Args:
            index: number of the choice.
            departure: where to, and how; what was kept here is not noted.
        """
        listed = self._left.setdefault(index, [])
        if departure.form != "kept":
            listed.append(departure)

        def taken_back() -> None:
            if departure in listed:
                listed.remove(departure)

        return taken_back

    def left(self, index: int) -> tuple[Departure, ...]:
        """Return what left for one choice, each server and form once."""
        return _once(self._left.get(index, ()))

    def header(self, *, may_grow: bool) -> str:
        """Return what a header says of all choices.

        Args:
            may_grow: whether more may leave when the header has gone out; the answer's end says
                it then.
        """
        every = _once(one for listed in self._left.values() for one in listed)
        if not every:
            return _LATER if may_grow else NOTHING
        return ", ".join(_told(one) for one in every)


def left_field(departure: Departure) -> dict[str, object]:
    """Return what an answer's JSON says of a departure."""
    told: dict[str, object] = {"backend": departure.backend, "form": departure.form}
    if departure.form == "redacted":
        told |= {"replaced": dict(departure.found), "names_looked_for": departure.finds_names}
    return told


def _told(one: Departure) -> str:
    parts = [one.form, f"backend={one.backend}"]
    if one.form == "redacted":
        parts += [f"{kind}={n}" for kind, n in sorted(one.found.items())]
        parts += [] if one.finds_names else ["names=not-looked-for"]
    return "; ".join(parts)


def _once(departures: Iterable[Departure]) -> tuple[Departure, ...]:
    found: dict[tuple[str, str], Departure] = {}
    for one in departures:
        found.setdefault((one.backend, one.form), one)
    return tuple(found.values())
