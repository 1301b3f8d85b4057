"""Ceilings: what learning may take, asked before each step."""

from dataclasses import replace

import pytest

from onhand.core.errors import InputError
from onhand.device.learning.ceilings import (
    GO,
    Ceilings,
    Gauges,
    Permission,
    Spent,
    Watch,
    all_of,
)


def gauges(*, held: int = 0, battery: tuple[float, bool | None] | None = None) -> Gauges:
    """What a device would say."""
    return Gauges(memory_bytes=lambda: held, battery=lambda: battery)


def test_a_watch_holds_memory_and_battery() -> None:
    """Memory ends it, a low battery makes it wait unless the device is on mains."""
    spent = Spent()

    assert Watch(Ceilings(memory_bytes=100), gauges(held=101))(spent).kind == "end"
    assert Watch(Ceilings(memory_bytes=100), gauges(held=99))(spent) == GO
    low = Ceilings(battery_percent=30)
    assert Watch(low, gauges(battery=(0.2, False)))(spent).kind == "wait"
    assert Watch(low, gauges(battery=(0.2, None)))(spent).kind == "wait"
    assert Watch(low, gauges(battery=(0.2, True)))(spent) == GO
    assert Watch(low, gauges(battery=(0.4, False)))(spent) == GO
    assert Watch(low, gauges())(spent) == GO


def test_a_share_of_the_time_is_kept_by_resting() -> None:
    """After a second of work at a quarter, three seconds of rest, in pieces."""
    watch = Watch(Ceilings(cpu_share=0.25), gauges())
    spent = Spent(seconds=1.0, last_step_s=1.0)
    rests = [watch(spent) for _ in range(4)]

    assert [one.wait_s for one in rests] == [1.0, 1.0, 1.0, 0.0]
    assert [one.kind for one in rests] == ["wait", "wait", "wait", "go"]
    assert watch(replace(spent, seconds=1.5, last_step_s=0.5)).wait_s == 1.0
    assert Watch(Ceilings(cpu_share=1), gauges())(spent) == GO


def test_several_permits_are_all_asked() -> None:
    """The first that is not given decides."""
    assert all_of([])(Spent()) == GO
    stop = Permission("end", "enough")
    assert all_of([lambda _: GO, lambda _: stop])(Spent()) == stop


@pytest.mark.parametrize(
    "ceilings",
    [
        {"seconds": 0},
        {"memory_bytes": -1},
        {"energy_j": float("inf")},
        {"battery_percent": 101},
        {"cpu_share": 0},
    ],
)
def test_ceilings_that_cannot_be_are_refused(ceilings: dict[str, float]) -> None:
    """With the value."""
    with pytest.raises(InputError, match=next(iter(ceilings))):
        Ceilings(**ceilings)  # type: ignore[arg-type]
