"""`onhand probe`: what this device has, as a profile that a build can aim at."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import say, write_json, write_table
from onhand.cli.progress import shown_progress
from onhand.core.profile import DeviceProfile
from onhand.core.units import format_bytes

__all__ = ["command"]


def command(
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PROFILE.toml", help="Save the profile here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what this device has, and save it as a profile."""
    from onhand.device.probe import probe, save_profile

    with shown_progress() as progress:
        profile = probe(progress=progress)
    if output is not None:
        save_profile(profile, output)
        say(f"note: saved as {output}")
    if as_json:
        write_json(asdict(profile))
    else:
        write_table(["this device", ""], _rows(profile))


def _rows(profile: DeviceProfile) -> list[tuple[str, str]]:
    bandwidth = ", ".join(
        f"{rate / 1e9:.1f} GB/s with {n}" for n, rate in enumerate(profile.read_bandwidth, start=1)
    )
    return [
        ("name", profile.name),
        ("system", f"{profile.system} on {profile.machine}"),
        ("processor", profile.processor),
        ("physical cores", str(profile.physical_cores)),
        ("usable threads", str(profile.usable_threads)),
        ("instruction sets", " ".join(profile.instruction_sets) or "none known"),
        ("memory", format_bytes(profile.memory_bytes)),
        ("memory bandwidth", f"{bandwidth} thread(s)" if bandwidth else "not measured"),
        ("power when busy", f"{profile.watts:g} W ({profile.watts_source})"),
        ("energy counter", profile.energy_counter or "none readable: energy is estimated"),
    ]
