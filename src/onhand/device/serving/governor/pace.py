"""How fast answers come, over the last seconds, and how far from the best that was ever seen."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["Baseline", "TokenTimes"]

# Fewer tokens say too little about the slowest twentieth of them.
_LEAST_TOKENS: Final = 60
# Of the way to a longer time that a baseline goes in a second: a tenth in about a minute and a
# half, so that what changed for good is accepted, and heat is seen before it is.
_RISE: Final = 0.001
_FALL: Final = 0.3


class TokenTimes:
    """Times per token over a window. One thread at a time."""

    def __init__(self, *, window_s: float) -> None:
        """Start empty.

        Args:
            window_s: seconds that count.
        """
        self._window_s = window_s
        self._kept: deque[tuple[float, Sequence[float]]] = deque()

    def add(self, at_s: float, token_s: Sequence[float]) -> None:
        """Take times that were measured since the last call.

        Args:
            at_s: now.
            token_s: seconds from a token to the next, any number of them.
        """
        if token_s:
            self._kept.append((at_s, token_s))
        while self._kept and self._kept[0][0] <= at_s - self._window_s:
            self._kept.popleft()

    def clear(self) -> None:
        """Forget all: what comes next is measured under another setting."""
        self._kept.clear()

    def slow(self, share: float = 0.95) -> float | None:
        """Return what a share of the times stays within; None if there are too few."""
        times = sorted(one for _, some in self._kept for one in some)
        if len(times) < _LEAST_TOKENS:
            return None
        return times[min(int(len(times) * share), len(times) - 1)]


class Baseline:
    """Learns how long steps take at best, for each way to compute them. One thread at a time.

    Heat makes a processor slower whatever else is read from it; so does whatever shares its
    memory. A time below the best known one is soon believed, one above it hardly ever.
    """

    def __init__(self) -> None:
        """Start without knowing any."""
        self._best_s: dict[tuple[object, ...], float] = {}

    def drift(
        self, way: tuple[object, ...], step_s: Mapping[int, float], *, learns: bool = True
    ) -> float | None:
        """Compare steps with the best, and learn from them.

        Args:
            way: how they were computed: model and variant.
            step_s: answers in a step -> median seconds of such steps.
            learns: whether they count for the best.

        Returns:
            How many times as long as at best they took, the mean over all; None if there is none.
        """
        found: list[float] = []
        for n, seconds in step_s.items():
            if not seconds > 0:
                continue
            best_s = self._best_s.get((*way, n))
            if best_s is None and not learns:
                continue
            best_s = seconds if best_s is None else best_s
            found.append(seconds / best_s)
            if not learns:
                continue
            rate = _FALL if seconds < best_s else _RISE
            self._best_s[*way, n] = best_s + rate * (seconds - best_s)
        return sum(found) / len(found) if found else None
