"""`onhand probe`: what this device has, as a profile that a build can aim at."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli import on_board
from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson
from onhand.cli.output import say, write, write_json, write_table
from onhand.cli.profile_table import profile_rows
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.core.profile_changes import BUSY, Change, are_comparable, profile_changes
from onhand.core.progress import Progress

if TYPE_CHECKING:
    from onhand.host.target.measuring import BoardWays

__all__ = ["command"]


def command(
    context: typer.Context,
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PROFILE.toml", help="Save the profile here."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|OLD.toml",
            help="Say what changed since an earlier probe, or is unlike a known device.",
        ),
    ] = None,
    costs: Annotated[
        bool,
        typer.Option(
            "--costs",
            help="Measure as well what parts of a step cost here, so that `onhand build --plan` "
            "says times of this device; kept in the state folder.",
        ),
    ] = False,
    on: on_board.On = None,
    identity: on_board.Identity = None,
    ssh_config: on_board.SshConfig = None,
    python: on_board.Python = None,
    wheels: on_board.Wheels = None,
    keep: on_board.Keep = False,
    timeout: on_board.Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Measure what this device, or a board, has, and save it as a profile."""
    from onhand.device.known_devices import read_device
    from onhand.device.probe import save_profile

    # What is wrong with the options is told before the measuring.
    board, home = on_board.ways(context), context.ensure_object(Settings).home()
    old = None if compare is None else read_device(compare)
    _check_folder(output)
    _check_costs(costs=costs, is_elsewhere=board is not None)
    profile = _probed(board, home, costs=costs)
    if output is not None:
        save_profile(profile, output)
        say(f"note: saved as {output}")
    _note_load(profile)
    changes = None if old is None else _changes(old, profile)
    if as_json:
        compared = {} if changes is None else {"changes": [asdict(one) for one in changes]}
        write_json(asdict(profile) | compared)
        return
    write_table(["this device" if board is None else str(board.address), ""], profile_rows(profile))
    if changes is not None:
        _write_changes(changes, since=str(compare))


def _probed(board: "BoardWays | None", home: Path, *, costs: bool) -> DeviceProfile:
    from onhand.device.probe import probe

    with shown_progress() as progress:
        if board is not None:
            from onhand.host.target.measuring import probe_on

            return probe_on(board, progress=progress)
        profile = probe(home, progress=progress)
        if costs:
            _measure_costs(profile, home, progress)
    return profile


def _changes(old: DeviceProfile, new: DeviceProfile) -> Sequence[Change]:
    """Return what changed; say where speeds could not be compared."""
    if not are_comparable(old, new):
        say(
            "note: speeds were not compared, since others kept processors busy at one of the probes"
        )
    return profile_changes(old, new)


def _write_changes(changes: Sequence[Change], *, since: str) -> None:
    if changes:
        write_table(["changed", "before", "now", ""], map(_change, changes))
    else:
        write(f"nothing changed since {since} beyond what two probes differ by\n")


def _check_costs(*, costs: bool, is_elsewhere: bool) -> None:
    """Refuse what cannot be done at once.

    Raises:
        InputError: if costs of a board are asked for.
    """
    if costs and is_elsewhere:
        raise InputError("--costs measures this device: run it on the board itself")


def _measure_costs(profile: DeviceProfile, home: Path, progress: Progress) -> None:
    with host_extra("forecasting"):
        from onhand.host.costs.kept import calibrate_anew

        calibrate_anew(home, profile, progress=progress)


def _check_folder(output: Path | None) -> None:
    """Refuse a place that has no folder.

    Raises:
        InputError: if there is none.
    """
    if output is not None and not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; make it first")


def _note_load(profile: DeviceProfile) -> None:
    busy = profile.others_busy
    if busy is not None and busy >= BUSY:
        say(
            f"note: other programs kept {busy:.0%} of the processors busy: speeds are lower than "
            f"they could be; probe again when they are done"
        )


def _change(one: Change) -> tuple[str, str, str, str]:
    factor = "" if one.factor is None else f"{one.factor:.2f} times"
    return one.name, one.before, one.after, factor
