"""Stop strings: found across the borders of tokens, never shown, not even in part."""

from collections.abc import Sequence

from onhand.core.errors import InputError

__all__ = ["StopStrings"]


class StopStrings:
    """Lets text through until a stop string comes. One thread at a time.

    Text that may be the beginning of a stop string waits until that is decided.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Start with nothing held.

        Args:
            stops: the strings; none lets everything through.

        Raises:
            InputError: if a stop string is empty, or one string is given instead of a sequence.
        """
        if isinstance(stops, str):
            raise InputError(f"stop: {stops!r} is one string, expected a sequence: [{stops!r}]")
        if "" in stops:
            raise InputError("stop: an empty string stops nothing; leave it out")
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take more text.

        Args:
            text: what comes next.

        Returns:
            shown: what may be shown now.
            found: True if a stop string came; `shown` ends before it, and all else is dropped.
        """
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self._held = ""
            return text[: min(places)], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def finish(self) -> str:
        """Return what was held: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text begin the stop string."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
