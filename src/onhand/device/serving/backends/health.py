"""Whether backends say that they are well: a state machine, and what asks them now and then."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from onhand.device.serving.backends.members import Member, Probed

__all__ = ["Health", "HealthChecker"]

_FALL: Final = 2  # probes in a row that fail, after which a backend is down
_TICK_S: Final = 0.1


class Health:
    """Whether a backend is up, by the probes it answered. One thread."""

    def __init__(self, *, interval_s: float, clock: Callable[[], float]) -> None:
        """Begin up.

        Args:
            interval_s: seconds between two probes; 0 for none.
            clock: seconds that only grow.
        """
        self._interval_s = interval_s
        self._clock = clock
        self._next_s = clock()
        self._n_failed = 0

    @property
    def is_up(self) -> bool:
        """Whether it may be asked."""
        return self._n_failed < _FALL

    @property
    def is_due(self) -> bool:
        """Whether it is time for a probe."""
        return self._interval_s > 0 and self._clock() >= self._next_s

    def probed(self, is_well: bool) -> None:
        """Note how a probe went: one that succeeds is enough, one that fails is not."""
        self._n_failed = 0 if is_well or self._interval_s == 0 else self._n_failed + 1
        self._next_s = self._clock() + self._interval_s


class HealthChecker:
    """Asks backends in the background: those that are due, and those that may come back."""

    def __init__(self, members: Sequence["Member"]) -> None:
        """Prepare it.

        Args:
            members: those that can be asked are.
        """
        from onhand.device.serving.backends.members import Probed

        self._asked = [
            (member, member.backend) for member in members if isinstance(member.backend, Probed)
        ]
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin. From now on what was ejected comes back by a probe, not by a request."""
        for member, _ in self._asked:
            member.breaker.awaits_probe = True
        if self._asked and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and break off what is asked; safe to call twice."""
        for member, _ in self._asked:
            member.breaker.awaits_probe = False
        tasks = [*self._probes.values(), *([] if self._task is None else [self._task])]
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self) -> None:
        """Ask all whose time it is, and wait for what they say."""
        self._begin()
        await asyncio.gather(*self._probes.values())

    async def _run(self) -> None:
        while True:
            self._begin()
            await asyncio.sleep(_TICK_S)

    def _begin(self) -> None:
        # One that hangs holds up no other, and is not asked twice.
        for member, backend in self._asked:
            is_due = member.health.is_due or member.breaker.wants_probe
            if is_due and member.name not in self._probes:
                task = asyncio.create_task(self._probe(member, backend))
                self._probes[member.name] = task

    async def _probe(self, member: "Member", backend: "Probed") -> None:
        is_well = False
        with contextlib.suppress(OSError):
            is_well = await backend.probe()
        self._probes.pop(member.name, None)
        member.health.probed(is_well)
        member.breaker.probed(is_well)
        for freed in member.freed:
            freed()
