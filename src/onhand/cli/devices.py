"""`onhand devices`: the profiles of well-known devices that come with onhand."""

from dataclasses import asdict
from typing import Annotated

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import write, write_json, write_table
from onhand.cli.profile_table import profile_rows
from onhand.core.profile import DeviceProfile
from onhand.core.units import format_bytes

__all__ = ["command", "device_row"]

HEADINGS = ("device", "processor", "threads", "memory", "bandwidth", "int8", "power")


def command(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One device, whole and with its sources.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the well-known devices that --device takes by name."""
    from onhand.device.known_devices import known_device, known_devices

    if name is not None:
        profile = known_device(name)
        if as_json:
            write_json(asdict(profile))
            return
        write_table([f"{name} (estimated)", ""], profile_rows(profile))
        for source in profile.sources:
            write(f"- {source}\n")
        return
    profiles = {one: known_device(one) for one in known_devices()}
    if as_json:
        write_json({one: asdict(profile) for one, profile in profiles.items()})
        return
    write_table(HEADINGS, [device_row(one) for one in profiles.values()])
    write("all figures are estimates from public sources; onhand devices NAME shows them\n")


def device_row(profile: DeviceProfile) -> tuple[str, ...]:
    """Return a device's line in the table of all."""
    bandwidth = max(profile.read_bandwidth, default=0.0)
    integers = [one.rate for one in profile.matrix_rates if one.kind == "int8"]
    return (
        profile.name,
        profile.processor,
        str(profile.usable_threads),
        format_bytes(profile.memory_bytes),
        f"{bandwidth / 1e9:.1f} GB/s" if bandwidth else "not known",
        f"{max(integers) / 1e9:.0f} G/s" if integers else "not known",
        f"{profile.watts:g} W",
    )
