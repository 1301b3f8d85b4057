"""When a server learns: only where nobody is kept waiting, and nothing runs out."""

from dataclasses import replace

import pytest

from onhand.core.errors import InputError
from onhand.device.serving.feedback.idle import Moment, decide
from onhand.device.serving.feedback.settings import LearningSettings

SETTINGS = LearningSettings(enabled=True, least_examples=20, idle_s=60.0, retry_s=600.0)
CALM = Moment(idle_s=61.0, n_new=20)


def test_it_learns_when_idle_and_taught() -> None:
    """All is calm, and there is enough to learn."""
    decision = decide(CALM, SETTINGS)

    assert (decision.action, decision.reason) == ("start", "20 new examples, idle for 61 s")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_new": 19}, "19 of 20 new examples"),
        ({"idle_s": 59.0}, "idle for 59 of 60 s"),
        ({"idle_s": 0.0}, "requests are answered"),
        ({"is_other_learning": True}, "another model learns"),
        ({"rested_s": 500.0}, "it learned a moment ago; 100 s are left to rest"),
        ({"battery": 0.4, "is_plugged": False}, "the battery is at 40%, and not on mains"),
        ({"battery": 0.4, "is_plugged": None}, "the battery is at 40%, and not on mains"),
        ({"others_cpus": 1.5}, "others keep 1.5 processors busy"),
        ({"memory_pressure": 0.5}, "work waits for memory 50% of the time"),
        ({"held_back": "the governor holds answers back"}, "the governor holds answers back"),
        ({"is_draining": True}, "the server is about to end"),
    ],
)
def test_what_keeps_it_from_learning(change: dict[str, object], reason: str) -> None:
    """Each alone is enough, and is said."""
    decision = decide(replace(CALM, **change), SETTINGS)  # type: ignore[arg-type] # its fields

    assert (decision.action, decision.reason) == ("leave", reason)


@pytest.mark.parametrize(
    ("change", "held_by"),
    [
        ({"battery": 0.4, "is_plugged": False}, "battery"),
        ({"memory_pressure": 0.5}, "memory"),
        ({"held_back": "fewer threads"}, "governor"),
        ({"others_cpus": 1.5}, "others"),
        ({"idle_s": 0.0}, ""),
        ({"n_new": 19, "held_back": "fewer threads"}, ""),
        ({"is_draining": True}, ""),
    ],
)
def test_what_of_the_device_forbids_it_is_named(change: dict[str, object], held_by: str) -> None:
    """Where there is enough to learn; requests and rests end by themselves."""
    assert decide(replace(CALM, **change), SETTINGS).held_by == held_by  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"battery": 0.4, "is_plugged": True},
        {"battery": 0.6, "is_plugged": False},
        {"rested_s": 601.0},
        {"others_cpus": 0.1, "memory_pressure": 0.01},
    ],
)
def test_what_does_not_keep_it(change: dict[str, float]) -> None:
    """Mains, charge enough, a rest that is over, and a device that is nearly idle."""
    assert decide(replace(CALM, **change), SETTINGS).action == "start"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({}, "leave"),
        ({"n_new": 0}, "leave"),
        ({"idle_s": 1.0}, "leave"),
        ({"others_cpus": 2.0}, "leave"),
        ({"idle_s": 0.0}, "stop"),
        ({"battery": 0.1, "is_plugged": False}, "stop"),
        ({"is_draining": True}, "stop"),
        ({"held_back": "fewer threads"}, "stop"),
    ],
)
def test_what_ends_a_training(change: dict[str, object], action: str) -> None:
    """A request does, and what runs out; its own use of processors does not."""
    now = replace(CALM, is_learning=True, **change)  # type: ignore[arg-type] # its fields

    assert decide(now, SETTINGS).action == action


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_examples": 0},
        {"cpu_share": 0.0},
        {"held_out": 1.0},
        {"idle_s": float("nan")},
        {"lowest_battery": 1.5},
        {"method": ""},
    ],
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    """A slip is said when they are read."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        LearningSettings(**wrong)  # type: ignore[arg-type] # wrong on purpose
