"""What is measured of backends and spent on them: small state, with time passed in."""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from onhand.core.errors import InputError
from onhand.device.serving.routing.situation import Expected

__all__ = ["Average", "Meter", "Purse", "SlidingQuantile", "TokenBucket"]

_WINDOW: Final = 256
_DAY_S: Final = 86400.0


class Average:
    """An average that forgets: the newest value counts `weight`, all earlier ones the rest."""

    def __init__(self, *, weight: float = 0.2) -> None:
        self._weight = weight
        self._value: float | None = None

    @property
    def value(self) -> float | None:
        """The average; None before the first value."""
        return self._value

    def add(self, value: float) -> None:
        """Take one more value."""
        if self._value is None:
            self._value = value
        else:
            self._value += self._weight * (value - self._value)


class SlidingQuantile:
    """A quantile of the last values."""

    def __init__(self, share: float, *, window: int = _WINDOW, least: int = 20) -> None:
        """Start with none.

        Args:
            share: which quantile, above 0 and below 1.
            window: values that count.
            least: values below which nothing is said.

        Raises:
            InputError: if the share or a count is out of bounds.
        """
        if not 0 < share < 1 or not 1 <= least <= window:
            raise InputError(
                f"quantile {share} of {window} values, at least {least}: out of bounds"
            )
        self._share = share
        self._least = least
        self._values: deque[float] = deque(maxlen=window)

    @property
    def value(self) -> float | None:
        """The smallest value that this share of them does not exceed; None for too few."""
        if len(self._values) < self._least:
            return None
        order = sorted(self._values)
        return order[math.ceil(self._share * len(order)) - 1]

    def add(self, value: float) -> None:
        """Take one more value, and forget the oldest where there are more than the window."""
        self._values.append(value)


class TokenBucket:
    """A budget for extra requests: a share of the ordinary ones, and a few at once at most.

    It starts with one, so that a device that has just begun may hedge once.
    """

    def __init__(self, share: float, *, most: float = 5.0) -> None:
        """Start it.

        Args:
            share: extra requests for each ordinary one.
            most: that can be saved up.

        Raises:
            InputError: if one is out of bounds.
        """
        if not 0 <= share <= 1 or most < 1:
            raise InputError(f"budget of {share} with at most {most}: needs 0 to 1, and 1 or more")
        self._share = share
        self._most = most
        self._left = 1.0 if share else 0.0

    def earn(self) -> None:
        """Note an ordinary request."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Take one extra request; say whether there was one left."""
        if self._left < 1 - 1e-9:
            return False
        self._left -= 1
        return True


class Meter:
    """How one backend has been of late. One event loop at a time."""

    def __init__(self, *, quantile: float = 0.95) -> None:
        self._first = Average()
        self._token = Average()
        self._slow = SlidingQuantile(quantile)
        self.n_active = 0

    @property
    def expected(self) -> Expected:
        """What an answer should take."""
        return Expected(first_s=self._first.value, token_s=self._token.value)

    @property
    def slow_s(self) -> float | None:
        """Seconds to the first content that few answers exceed; None for too few answers."""
        return self._slow.value

    def saw_first(self, seconds: float) -> None:
        """Note the time from a question to its first content."""
        self._first.add(seconds)
        self._slow.add(seconds)

    def saw_answer(self, seconds: float, n_tokens: int) -> None:
        """Note a whole answer.

        Args:
            seconds: from the first content to the end.
            n_tokens: of the answer.
        """
        if n_tokens > 1:
            self._token.add(seconds / (n_tokens - 1))


class Purse:
    """What may be spent in a day, in the settings' currency."""

    def __init__(self, budget: float, *, now: Callable[[], float]) -> None:
        """Start it, unspent.

        Args:
            budget: of one day; 0 for no limit.
            now: seconds since 1970, UTC.
        """
        self._budget = budget
        self._now = now
        self._day = self._today()
        self._spent = 0.0

    @property
    def left(self) -> float | None:
        """What is left of today's; None without a limit."""
        return max(0.0, self._budget - self.spent) if self._budget else None

    @property
    def spent(self) -> float:
        """What was spent today."""
        if self._today() != self._day:
            self._day, self._spent = self._today(), 0.0
        return self._spent

    def pay(self, cost: float) -> None:
        """Note what an answer cost."""
        self._spent = self.spent + cost

    def _today(self) -> int:
        return int(self._now() // _DAY_S)
