"""One of several backends: what it has to do, how fast it is, and whether it is well."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from onhand.core.errors import EngineBusy, InputError, OnhandError
from onhand.device.serving.asks import Backend, Route, Source
from onhand.device.serving.backends.breaker import Breaker
from onhand.device.serving.backends.choosing import Candidate
from onhand.device.serving.backends.health import Health
from onhand.device.serving.backends.settings import BalanceSettings
from onhand.device.serving.refusals import BackendFailed

__all__ = ["Member", "Probed", "Use"]

_NEW: Final = 0.3  # weight of the newest time to the first text
_HALF_LIFE_S: Final = 10.0  # after which what was slow is worth another look


@runtime_checkable
class Probed(Protocol):
    """A backend that can be asked whether it is well."""

    async def probe(self) -> bool:
        """Say whether it is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One answer of a member, from its beginning to its end."""

    number: int
    epoch: int
    begun_s: float


class Member:
    """One backend among several. One event loop.

    Attributes:
        name: of the backend.
        route: where it is.
        backend: what answers.
        weight: its share of the work.
        max_active: most answers at once.
        breaker: whether it gets requests, by how the last ones went.
        health: whether it is well, by what it says.
        n_requests: that it got.
        n_failures: of those, its own failures.
        freed: called whenever an answer has ended.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        name: str,
        route: Route,
        balance: BalanceSettings,
        weight: float = 1.0,
        max_active: int = 16,
        probe_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take a backend in.

        Args:
            backend: what answers.
            name: what it is called.
            route: where it is.
            balance: when it is left alone.
            weight: its share of the work, above 0.
            max_active: most answers at once.
            probe_s: seconds between two questions whether it is well; 0 for none.
            clock: seconds that only grow.
        """
        self.name = name
        self.route = route
        self.backend = backend
        self.weight = weight
        self.max_active = max_active
        self.breaker = Breaker(balance, clock=clock)
        self.health = Health(interval_s=probe_s, clock=clock)
        self.n_requests = 0
        self.n_failures = 0
        self.freed: list[Callable[[], None]] = []
        self._clock = clock
        self._n_active = 0
        self._first_s = 0.0
        self._measured_s = 0.0
        self._is_measured = False
        self._waiting: dict[int, float] = {}  # id of a use without text -> when it began

    @property
    def n_active(self) -> int:
        """Answers that it computes now."""
        return self._n_active

    @property
    def is_free(self) -> bool:
        """Whether it takes one more."""
        return self._n_active < self.max_active

    @property
    def permits(self) -> bool:
        """Whether it is well enough to be asked."""
        return self.health.is_up and self.breaker.permits

    @property
    def source(self) -> Source:
        """What is said of it when it answers."""
        return Source(route=self.route, backend=self.name)

    @property
    def first_s(self) -> float:
        """Seconds that the first text is expected to take; what nobody measured for long fades.

        One that has let a request wait for longer than it usually takes is as slow as that.
        """
        now_s = self._clock()
        usual_s = self._first_s * math.exp2((self._measured_s - now_s) / _HALF_LIFE_S)
        oldest_s = min(self._waiting.values(), default=now_s)
        return max(usual_s, now_s - oldest_s)

    @property
    def candidate(self) -> Candidate:
        """What a choice is made by."""
        return Candidate(
            name=self.name, weight=self.weight, n_active=self._n_active, first_s=self.first_s
        )

    def begin(self) -> "Use":
        """Note that it is asked.

        Returns:
            What the next two are told.
        """
        self.n_requests += 1
        self._n_active += 1
        use = Use(number=self.n_requests, epoch=self.breaker.begin(), begun_s=self._clock())
        self._waiting[use.number] = use.begun_s
        return use

    def saw_first(self, use: "Use") -> None:
        """Note that the first text of an answer has come: as far as it goes, it is well."""
        self._waiting.pop(use.number, None)
        now_s = self._clock()
        first_s = now_s - use.begun_s
        usual_s = self._first_s if self._is_measured else first_s
        self._first_s = usual_s + _NEW * (first_s - usual_s)
        self._measured_s = now_s
        self._is_measured = True
        self.breaker.succeeded(use.epoch)

    def ended(self, use: "Use", error: OnhandError | None, *, is_whole: bool) -> None:
        """Note that an answer has ended.

        Args:
            use: from `begin`.
            error: what broke it off; None for nothing.
            is_whole: whether it came to its end; one that did not, without an error, was left
                by its reader.
        """
        self._waiting.pop(use.number, None)
        self._n_active -= 1
        if isinstance(error, BackendFailed) and error.retry_after_s is not None:
            self.breaker.rest(error.retry_after_s)
        if is_whole or isinstance(error, InputError):
            self.breaker.succeeded(use.epoch)
        elif error is None or not _is_fault(error):
            self.breaker.left(use.epoch)
        else:
            self.n_failures += 1
            self.breaker.failed(use.epoch)
        for freed in self.freed:
            freed()


def _is_fault(error: OnhandError) -> bool:
    if isinstance(error, BackendFailed):
        return error.is_fault
    return not isinstance(error, EngineBusy)
