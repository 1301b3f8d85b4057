"""When a server learns: a pure decision over what the device does at the moment."""

from dataclasses import dataclass
from typing import Literal

from onhand.device.serving.feedback.settings import LearningSettings

__all__ = ["Decision", "HeldBy", "Moment", "decide"]

HeldBy = Literal["", "battery", "governor", "memory", "others"]
"""What of the device keeps a model from learning; "" for nothing."""

_MOST_PRESSURE = 0.2
_BUSY_OTHERS = 0.5  # processors


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known of one model and the device, now.

    Attributes:
        idle_s: seconds since any request of the server ended; 0 while one runs or waits.
        n_new: examples that were taken since the model last learned.
        is_learning: whether its training runs.
        is_other_learning: whether another model's does.
        rested_s: seconds since its last training ended; None where there was none.
        battery: charge, 0 to 1; None where there is none, or nobody knows.
        is_plugged: whether the device is on mains; None where nobody knows.
        others_cpus: processors that other processes keep busy, without learning; None: not known.
        memory_pressure: share of the time in which work waited for memory; None: not known.
        held_back: what the governor gave up that has not come back, and why; "" for nothing.
        is_draining: whether the server is about to end.
    """

    idle_s: float
    n_new: int = 0
    is_learning: bool = False
    is_other_learning: bool = False
    rested_s: float | None = None
    battery: float | None = None
    is_plugged: bool | None = None
    others_cpus: float | None = None
    memory_pressure: float | None = None
    held_back: str = ""
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a model's learning.

    Attributes:
        action: "start" a training, or go on with one; "stop" the one that runs, between two of
            its steps; "leave" all as it is.
        reason: why, for people.
        held_by: what of the device alone forbids it, where there is enough to learn.
    """

    action: Literal["start", "stop", "leave"]
    reason: str
    held_by: HeldBy = ""


def decide(now: Moment, settings: LearningSettings) -> Decision:
    """Decide whether a model learns now.

    Requests come first: one that runs or waits ends a training between two steps, of which none
    is lost.

    Args:
        now: what is known.
        settings: when it may learn.

    Returns:
        What to do.
    """
    obstacle, held_by = _obstacle(now, settings)
    if now.is_learning:
        return Decision("stop", obstacle, held_by) if obstacle else Decision("leave", "it learns")
    if now.is_other_learning:
        return Decision("leave", "another model learns")
    if now.n_new < settings.least_examples:
        return Decision("leave", f"{now.n_new} of {settings.least_examples} new examples")
    if now.rested_s is not None and now.rested_s < settings.retry_s:
        left_s = settings.retry_s - now.rested_s
        return Decision("leave", f"it learned a moment ago; {left_s:.0f} s are left to rest")
    if obstacle:
        return Decision("leave", obstacle, held_by)
    if now.idle_s < settings.idle_s:
        return Decision("leave", f"idle for {now.idle_s:.0f} of {settings.idle_s:g} s")
    if now.others_cpus is not None and now.others_cpus > _BUSY_OTHERS:
        return Decision("leave", f"others keep {now.others_cpus:.1f} processors busy", "others")
    return Decision("start", f"{now.n_new} new examples, idle for {now.idle_s:.0f} s")


def _obstacle(now: Moment, settings: LearningSettings) -> tuple[str, HeldBy]:
    """Return what forbids learning, also while it runs, and what of the device that is."""
    if now.is_draining:
        return "the server is about to end", ""
    if now.idle_s <= 0:
        return "requests are answered", ""
    is_low = now.battery is not None and now.battery < settings.lowest_battery
    if is_low and now.is_plugged is not True:
        return f"the battery is at {now.battery:.0%}, and not on mains", "battery"
    if now.memory_pressure is not None and now.memory_pressure > _MOST_PRESSURE:
        return f"work waits for memory {now.memory_pressure:.0%} of the time", "memory"
    if now.held_back:
        return now.held_back, "governor"
    return "", ""
