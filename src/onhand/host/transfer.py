"""What a figure measured on this machine says of another device: an estimate, and called so."""

from collections.abc import Mapping
from dataclasses import replace

from onhand.core.budget import AXES
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile

__all__ = ["figures_for", "is_same_device"]

# Figures that read every weight for each token: they go with the memory's bandwidth.
_BOUND_BY_MEMORY = ("decode_tokens_per_s", "energy_j_per_token")


def is_same_device(device: DeviceProfile, here: DeviceProfile) -> bool:
    """Return whether a profile describes this machine: processor, cores and architecture."""
    return (device.processor, device.machine, device.physical_cores) == (
        here.processor,
        here.machine,
        here.physical_cores,
    )


def figures_for(
    device: DeviceProfile, here: DeviceProfile, figures: Mapping[str, Measurement]
) -> dict[str, Measurement]:
    """Turn figures of this machine into figures for a device.

    Sizes, memory and quality stay as measured. Times do not travel: on another device they are
    scaled, those bound by memory by its bandwidth and the others by its cores, and marked as
    estimated, so that a limit needs --accept-estimates.

    Args:
        device: the device built for.
        here: this machine, its bandwidth measured.
        figures: measured on this machine.

    Returns:
        The figures; unchanged if the device is this machine.
    """
    if is_same_device(device, here):
        return dict(figures)
    timed = {axis.measurement: axis for axis in AXES.values() if axis.timed}
    found = dict(figures)
    for name, axis in timed.items():
        if name not in figures:
            continue
        ratio, why = _speed_ratio(device, here, name)
        figure = figures[name]
        scale = ratio if axis.limit == "least" else 1 / ratio
        if name == "energy_j_per_token":
            scale *= device.watts / here.watts
        found[name] = replace(
            figure,
            value=figure.value * scale,
            spread=figure.spread * scale,
            estimated=True,
            how=f"{figure.how}  # measured on {here.name}, scaled to {device.name} by {why}",
        )
    return found


def _speed_ratio(device: DeviceProfile, here: DeviceProfile, name: str) -> tuple[float, str]:
    """Return how much faster the device is, and by what that is judged."""
    if name in _BOUND_BY_MEMORY and device.read_bandwidth and here.read_bandwidth:
        return max(device.read_bandwidth) / max(here.read_bandwidth), "read bandwidth"
    return device.usable_threads / here.usable_threads, "number of threads"
