"""When a backend that failed gets requests again: a state machine with a clock from outside."""

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from onhand.device.serving.backends.settings import BalanceSettings

__all__ = ["Breaker", "BreakerState"]

BreakerState = Literal["closed", "open", "half-open"]

_DRAW: Final = random.SystemRandom().random
_WINDOW: Final = 20  # requests that are looked back at
_LEAST: Final = 10  # of them, before their share of failures says anything
_SHARE: Final = 0.5


class Breaker:
    """Closed: requests pass. Open: none does. Half-open: one at a time, to try.

    It opens after some failures in a row, or when half of the last requests failed, each time for
    longer. One thread.

    Attributes:
        awaits_probe: whether, when its time is over, it stays open until a probe succeeded; else
            the next request is the try.
        n_opened: times that it has opened.
    """

    def __init__(
        self,
        settings: BalanceSettings,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float] = _DRAW,
    ) -> None:
        """Begin closed.

        Args:
            settings: when it opens, and for how long.
            clock: seconds that only grow.
            draw: numbers from 0 to 1, so that many devices do not come back at one moment.
        """
        self._settings = settings
        self._clock = clock
        self._draw = draw
        self._epoch = 0  # what began before the last change of state says nothing about it
        self._streak = 0
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._is_open = False
        self._is_probed = False
        self._is_trying = False
        self._until_s = 0.0
        self._closed_s = clock()
        self._n_in_a_row = 0
        self._rests_until_s = 0.0
        self.awaits_probe = False
        self.n_opened = 0

    @property
    def state(self) -> BreakerState:
        """Which of the three."""
        if not self._is_open:
            return "closed"
        return "half-open" if self._may_try else "open"

    @property
    def permits(self) -> bool:
        """Whether a request may be sent now."""
        if self._clock() < self._rests_until_s:
            return False
        return not self._is_open or (self._may_try and not self._is_trying)

    @property
    def wants_probe(self) -> bool:
        """Whether a probe that succeeds would let requests pass again."""
        return self._is_open and not self._is_probed and self._clock() >= self._until_s

    @property
    def wait_s(self) -> float:
        """Seconds until a request may pass, as far as can be said; 0 for now."""
        until_s = self._rests_until_s
        if self._is_open:
            until_s = max(until_s, self._until_s)
        return max(until_s - self._clock(), 0.0)

    def begin(self) -> int:
        """Note that a request is sent.

        Returns:
            What `succeeded`, `failed` or `left` is told when it has ended.
        """
        self._is_trying = self._is_open
        return self._epoch

    def succeeded(self, epoch: int) -> None:
        """Note that a request was answered."""
        if epoch != self._epoch:
            return
        self._streak = 0
        self._recent.append(True)
        if self._is_open:
            self._is_open = False
            self._closed_s = self._clock()
            self._change()

    def failed(self, epoch: int) -> None:
        """Note that a request was not answered, and the backend is to blame."""
        if epoch != self._epoch:
            return
        self._streak += 1
        self._recent.append(False)
        n_failed = self._recent.count(False)
        is_often = len(self._recent) >= _LEAST and n_failed >= _SHARE * len(self._recent)
        if self._is_open or self._streak >= self._settings.failures or is_often:
            self._open()

    def left(self, epoch: int) -> None:
        """Note that a request ended in a way that says nothing about the backend."""
        if epoch == self._epoch:
            self._is_trying = False

    def rest(self, seconds: float) -> None:
        """Let no request pass for a while: the backend asked for that."""
        self._rests_until_s = max(self._rests_until_s, self._clock() + seconds)

    def probed(self, is_well: bool) -> None:
        """Note how a probe went while it is open."""
        if not self.wants_probe:
            return
        if is_well:
            self._is_probed = True
        else:
            self._open()

    @property
    def _may_try(self) -> bool:
        return self._clock() >= self._until_s and (self._is_probed or not self.awaits_probe)

    def _open(self) -> None:
        settings = self._settings
        if not self._is_open:
            self.n_opened += 1
            # Well for long: what was before is forgotten.
            if self._clock() - self._closed_s > settings.most_eject_s:
                self._n_in_a_row = 0
        self._is_open = True
        seconds = min(settings.eject_s * 2.0 ** min(self._n_in_a_row, 30), settings.most_eject_s)
        self._n_in_a_row += 1
        self._until_s = self._clock() + seconds * (0.8 + 0.4 * self._draw())
        self._change()

    def _change(self) -> None:
        self._epoch += 1
        self._streak = 0
        self._recent.clear()
        self._is_trying = False
        self._is_probed = False
