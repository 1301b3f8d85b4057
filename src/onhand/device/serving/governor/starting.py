"""From a server's state to a governor that runs, with its figures in the server's metrics."""

import math
from collections.abc import Callable

from onhand.device.serving.governor.governor import Governor
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.sensors import Sensors
from onhand.device.serving.governor.setting import GovernorSettings, Setting
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.state import ServerState
from onhand.device.threads import physical_cores

__all__ = ["make_governor", "start_governor"]

_SETTINGS: dict[str, tuple[str, Callable[[Setting], float]]] = {
    "threads": ("Threads of a step.", lambda now: now.threads),
    "max_active": ("Answers computed at once.", lambda now: now.max_active),
    "max_stall": ("Longest step beside prompts, in plain steps.", lambda now: now.max_stall),
    "context": ("Ceiling of new answers in tokens; 0 for none.", lambda now: now.context),
    "variant_step": ("Variants below the usual one.", lambda now: now.variant_step),
    "speculation": ("Whether lone answers are drafted.", lambda now: now.speculation),
    "cloud_share": ("Share of new answers to be given elsewhere.", lambda now: now.cloud_share),
}
_READINGS: dict[str, tuple[str, Callable[[Readings], float | None]]] = {
    "cpu_pressure": ("Share of time that work waited for a CPU.", lambda now: now.cpu_pressure),
    "memory_pressure": (
        "Share of time that work waited for memory.",
        lambda now: now.memory_pressure,
    ),
    "others_cpus": ("Processors that others keep busy.", lambda now: now.others_cpus),
    "waiting_threads": ("Own threads without a processor.", lambda now: now.waiting_threads),
    "stolen": ("Share of CPU time that the host took.", lambda now: now.stolen),
    "throttled": ("Share of time stopped by a quota.", lambda now: now.throttled),
    "memory_available_bytes": (
        "Memory that can still be had.",
        lambda now: now.memory_available_bytes,
    ),
    "temperature_celsius": ("The hottest sensor.", lambda now: now.temperature_c),
    "battery": ("Charge, 0 to 1.", lambda now: now.battery),
    "waiting_requests": ("Requests that wait for their turn.", lambda now: now.n_waiting),
    "tokens_per_second": ("Tokens of all answers.", lambda now: now.tokens_per_s),
    "token_seconds": ("95th percentile of the time per token.", lambda now: now.token_s),
    "drift": ("Time of a step over the best known.", lambda now: now.drift),
}


def make_governor(
    state: ServerState, aims: GovernorSettings, *, read: Callable[[], Readings]
) -> Governor:
    """Make a governor of a server's models, and show its figures; it does not run yet.

    Args:
        state: the server's; it owns the governor from now on.
        aims: what is to be kept to.
        read: what the device says.

    Returns:
        The governor.
    """
    count = state.metrics.counter(
        "onhand_governor_changes", "Changes by the governor.", labels=("kind", "cause")
    )
    governor = Governor(
        lambda: tuple(state.models.values()),
        aims,
        read=read,
        processors=physical_cores(),
        changed=lambda change: count(change.kind, change.cause),
    )
    _show(governor, state.metrics)
    state.governor = governor
    return governor


def start_governor(state: ServerState, aims: GovernorSettings) -> Governor:
    """Make a governor that reads this device, and start it.

    Args:
        state: as in `make_governor`; closing it ends the governor.
        aims: likewise.

    Returns:
        The governor.
    """
    feedback = state.feedback
    helpers = tuple[int] if feedback is None else feedback.processes
    governor = make_governor(state, aims, read=Sensors(helpers=helpers).read)
    governor.start()
    return governor


def _show(governor: Governor, metrics: Metrics) -> None:
    def of_setting(value: Callable[[Setting], float]) -> Callable[[], float]:
        return lambda: float(value(governor.setting))

    def of_reading(value: Callable[[Readings], float | None]) -> Callable[[], float]:
        def read() -> float:
            now = governor.readings
            found = None if now is None else value(now)
            return math.nan if found is None else float(found)

        return read

    for name, (text, setting) in _SETTINGS.items():
        metrics.gauge(f"onhand_governor_{name}", text, of_setting(setting))
    for name, (text, reading) in _READINGS.items():
        metrics.gauge(f"onhand_governor_read_{name}", text, of_reading(reading))
