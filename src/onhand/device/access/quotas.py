"""Quotas: how many requests, tokens and answers at once a key has.

Source:
    The token bucket: Turner 1986, "New directions in communications", IEEE Communications 24 (10).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = ["Bucket", "Meter", "Meters", "Quota"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Ceilings of one key; 0 for none.

    Attributes:
        requests_per_minute: as many may come at once, and then as they come back.
        tokens_per_minute: of prompts and answers together, counted when an answer has ended.
        at_once: requests that are answered at the same time.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    at_once: int = 0

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            InputError: if one is negative.
        """
        for name in ("requests_per_minute", "tokens_per_minute", "at_once"):
            if not 0 <= getattr(self, name) <= 10**12:
                raise InputError(f"{name} is {getattr(self, name)}, must be 0 or more")


class Bucket:
    """Holds a minute's worth, and fills again steadily. Not for several threads at once."""

    def __init__(self, per_minute: int, *, now_s: float) -> None:
        """Begin full.

        Args:
            per_minute: what it holds, and what comes back in a minute.
            now_s: seconds of a clock that only grows.
        """
        self._most, self._level, self._at_s = float(per_minute), float(per_minute), now_s

    def wait_s(self, amount: float, *, now_s: float) -> float:
        """Return the seconds until so much is in it; 0 if it is."""
        self._fill(now_s)
        lacking = min(amount, self._most) - self._level
        return max(0.0, lacking * 60 / self._most)

    def take(self, amount: float, *, now_s: float) -> None:
        """Take so much out, into debt where it does not hold it."""
        self._fill(now_s)
        self._level -= amount

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._at_s)
        self._level = min(self._most, self._level + passed_s * self._most / 60)
        self._at_s = max(self._at_s, now_s)


class Meter:
    """What one key has used of its quota. May be shared between threads."""

    def __init__(self, quota: Quota, *, clock: Callable[[], float]) -> None:
        """Begin with everything left.

        Args:
            quota: the ceilings.
            clock: seconds that only grow.
        """
        self.quota = quota
        self._clock, self._lock = clock, threading.Lock()
        now_s = clock()
        self._requests = Bucket(quota.requests_per_minute, now_s=now_s)
        self._tokens = Bucket(quota.tokens_per_minute, now_s=now_s)
        self.n_active = 0

    def enter(self) -> tuple[str, float] | None:
        """Let a request in, or say which ceiling it meets and for how many seconds.

        Returns:
            None if it is in; `leave` has to follow.
        """
        with self._lock:
            now_s, quota = self._clock(), self.quota
            if quota.at_once and self.n_active >= quota.at_once:
                return "at_once", 1.0
            # One token at least: a debt has to be paid before anything is answered.
            if quota.tokens_per_minute and (wait := self._tokens.wait_s(1, now_s=now_s)):
                return "tokens_per_minute", wait
            if quota.requests_per_minute:
                if wait := self._requests.wait_s(1, now_s=now_s):
                    return "requests_per_minute", wait
                self._requests.take(1, now_s=now_s)
            self.n_active += 1
            return None

    def leave(self, n_tokens: int) -> None:
        """Let a request out.

        Args:
            n_tokens: of its prompt and answer.
        """
        with self._lock:
            self.n_active -= 1
            if self.quota.tokens_per_minute:
                self._tokens.take(n_tokens, now_s=self._clock())


class Meters:
    """The meters of all keys. May be shared between threads."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """Begin without any.

        Args:
            clock: seconds that only grow.
        """
        self._clock, self._lock = clock, threading.Lock()
        self._meters: dict[str, Meter] = {}

    def of(self, name: str, quota: Quota) -> Meter:
        """Return a key's meter; a new one where its quota changed.

        Args:
            name: of the key.
            quota: as it is now.
        """
        with self._lock:
            found = self._meters.get(name)
            if found is None or found.quota != quota:
                found = self._meters[name] = Meter(quota, clock=self._clock)
            return found
