"""One request that may leave only without what is personal: replaced once, restored in its answer.

Nothing of it is ever written; it ends with the request.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from onhand.core.errors import InputError
from onhand.device.privacy.bodies import veiled
from onhand.device.privacy.detectors import find_all
from onhand.device.privacy.placeholders import Placeholders
from onhand.device.privacy.restoring import PieceRestorer
from onhand.device.privacy.spans import Detector, Found
from onhand.device.serving.asks import Wire
from onhand.device.serving.refusals import BackendFailed, Refusal

__all__ = ["Redaction", "Veil", "Veiled", "kept_here"]

_MOST_HERE: Final = 4 * 1024  # letters: what is longer would hold the event loop up


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """How a server takes personal data out of requests; shared by all of them.

    Attributes:
        names: finds names of persons; None where nothing does, and names leave.
        find: finds the rest.
    """

    names: Detector | None = None
    find: Callable[..., list[Found]] = field(default=find_all)

    def veil(self) -> "Veil":
        """Return what one request keeps to itself."""
        return Veil(self)

    def found(self, text: str) -> list[Found]:
        """Find what is personal in a text."""
        return self.find(text, names=self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Veiled:
    """A request that may leave.

    Attributes:
        fields: of its body.
        placeholders: what stands for what.
        is_json: whether its answer is JSON.
    """

    fields: Mapping[str, object]
    placeholders: Placeholders = field(repr=False)
    is_json: bool

    def restorer(self) -> PieceRestorer:
        """Return what puts values back into one answer."""
        return PieceRestorer(self.placeholders, is_json=self.is_json)


class Veil:
    """One request's personal data. Threads may share it."""

    def __init__(self, redaction: Redaction) -> None:
        """Use `Redaction.veil`."""
        self._redaction = redaction
        self._lock = threading.Lock()
        self._veiled: Veiled | None = None

    @property
    def finds_names(self) -> bool:
        """Whether names of persons are looked for."""
        return self._redaction.names is not None

    async def over(self, wire: Wire) -> tuple[Wire, Veiled]:
        """Return a request as it may leave.

        Args:
            wire: as it was asked; the same one each time.

        Returns:
            It, and what restores its answer.

        Raises:
            BackendFailed: if it is not understood, or a detector fails: it stays here.
        """
        is_slow = self._redaction.names is not None or _letters(wire.fields) > _MOST_HERE
        made = await asyncio.to_thread(self._made, wire) if is_slow else self._made(wire)
        return replace(wire, fields=made.fields), made

    def _made(self, wire: Wire) -> Veiled:
        with self._lock:
            if self._veiled is None:
                self._veiled = self._computed(wire)
            return self._veiled

    def _computed(self, wire: Wire) -> Veiled:
        wanted = wire.fields.get("response_format")
        kind = wanted.get("type", "text") if isinstance(wanted, Mapping) else "text"
        try:
            fields, placeholders = veiled(wire.fields, self._redaction.found)
        except InputError as error:
            raise kept_here(str(error)) from error
        except Exception as error:  # noqa: BLE001 (whatever fails: nothing leaves)
            # Without its words, which may be those of the text.
            raise kept_here(f"a detector failed ({type(error).__name__})") from None
        return Veiled(fields=fields, placeholders=placeholders, is_json=kind != "text")


def kept_here(reason: str) -> BackendFailed:
    """Return that a request does not leave; what answers on this device still may.

    Args:
        reason: without anything of the request.
    """
    message = f"the request does not leave this device: {reason}"
    refusal = Refusal(status=403, message=message, code="kept_here")
    return BackendFailed(message, refusal, is_fault=False, is_lasting=True)


def _letters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_letters(one) for one in value.values())
    return sum(_letters(one) for one in value) if isinstance(value, list) else 0
