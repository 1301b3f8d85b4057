"""Backends are asked whether they are well; those that are not get no requests."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.backends.health import Health, HealthChecker
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.settings import BalanceSettings

BALANCE = BalanceSettings(failures=1, eject_s=10, most_eject_s=60)


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


class Probing:
    """A backend whose probes end as a test says."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well
        self.gate: asyncio.Event | None = None
        self.n_probes = 0

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`."""
        yield Piece("x")

    async def probe(self) -> bool:
        """See `Probed`."""
        self.n_probes += 1
        if self.gate is not None:
            await self.gate.wait()
        return self.is_well


def member(backend: Probing, clock: Clock, *, name: str = "a", probe_s: float = 0.0) -> Member:
    return Member(backend, name=name, route="peer", balance=BALANCE, probe_s=probe_s, clock=clock)


@pytest.mark.parametrize(
    ("probes", "is_up"),
    [("", True), ("-", True), ("--", False), ("-+-", True), ("--+", True), ("+--", False)],
)
def test_two_probes_that_fail_take_it_down_and_one_brings_it_back(probes: str, is_up: bool) -> None:
    """One packet that is lost is no reason."""
    health = Health(interval_s=1, clock=Clock())
    for probe in probes:
        health.probed(probe == "+")

    assert health.is_up is is_up


def test_it_is_asked_at_its_interval() -> None:
    """And not at all without one."""
    clock = Clock()
    health = Health(interval_s=5, clock=clock)
    never = Health(interval_s=0, clock=clock)
    due = [health.is_due]
    health.probed(True)
    due.append(health.is_due)
    clock.now_s = 5
    due.append(health.is_due)

    assert due == [True, False, True]
    assert not never.is_due


def test_one_that_is_down_gets_no_requests_until_it_is_well() -> None:
    """Found by probes alone."""
    clock, backend = Clock(), Probing(is_well=False)
    asked = member(backend, clock, probe_s=1)
    checker = HealthChecker([asked])

    async def check_thrice() -> list[bool]:
        permits = []
        for backend.is_well in (False, False, True):
            await checker.check()
            permits.append(asked.permits)
            clock.now_s += 1
        return permits

    assert asyncio.run(check_thrice()) == [True, False, True]


def test_what_was_ejected_comes_back_by_a_probe() -> None:
    """No request is spent on it before; without a checker the next request would be the try."""
    clock, backend = Clock(), Probing(is_well=False)
    asked = member(backend, clock)
    checker = HealthChecker([asked])

    async def come_back() -> list[bool]:
        await checker.start()
        asked.breaker.failed(asked.breaker.begin())
        permits = []
        for clock.now_s, backend.is_well in (
            (5.0, True),
            (13.0, False),
            (20.0, True),
            (40.0, True),
        ):
            await checker.check()
            permits.append(asked.permits)
        await checker.stop()
        await checker.stop()
        return permits

    assert asyncio.run(come_back()) == [False, False, False, True]
    assert backend.n_probes == 2


def test_one_probe_that_hangs_holds_up_no_other() -> None:
    """And is not sent again before it has ended."""
    clock = Clock()
    hanging, well = Probing(), Probing()
    members = [member(hanging, clock, probe_s=1), member(well, clock, name="b", probe_s=1)]

    async def run() -> None:
        hanging.gate = asyncio.Event()
        checker = HealthChecker(members)
        await checker.start()
        for _ in range(3):
            clock.now_s += 1
            while well.n_probes < clock.now_s:
                await asyncio.sleep(0.01)
        await checker.stop()

    asyncio.run(run())

    assert hanging.n_probes == 1
    assert well.n_probes >= 3
