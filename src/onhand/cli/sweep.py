"""`onhand sweep`: many builds, on this machine or on a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson
from onhand.cli.output import say, write_json, write_table
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.host.scale.executor import Executor

__all__ = ["command"]

_UNFINISHED: Final = 1


def command(
    context: typer.Context,
    sweep: Annotated[
        Path, typer.Argument(metavar="SWEEP.toml", help="What is built.", show_default=False)
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where the bundles go.")
    ],
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Ray cluster that builds; without it, here."),
    ] = None,
    at_once: Annotated[
        int,
        typer.Option(min=1, help="Trials on a machine at once; above 1 they disturb timings."),
    ] = 1,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a trial begins anew whose worker died.")
    ] = 3,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave what the folder has a result of.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build several sources, for several devices, within several budgets.

    Raises:
        InputError: if a ceiling on time is to be judged while other trials run.
        Exit: if a trial came to no result.
    """
    from onhand.host.scale.running import run_sweep
    from onhand.host.scale.sweep import read_sweep

    read = read_sweep(sweep, _build_options())
    if at_once > 1 and read.is_timed:
        raise InputError(
            f"{sweep}: its budgets limit times, and {at_once} trials at once would disturb each "
            f"other's; leave --at-once out"
        )
    settings: Settings = context.obj
    with host_extra("building"), shown_progress() as progress:
        table = run_sweep(
            read,
            output,
            _executor(ray, at_once, retries),
            home=settings.home(),
            is_resumed=resume,
            progress=progress,
        )
    if at_once > 1:
        say(f"note: {at_once} trials ran at once: figures of time and energy are disturbed")
    _show(table, output, as_json=as_json)


def _executor(ray: str | None, at_once: int, retries: int) -> "Executor":
    from onhand.host.scale.cluster import RayExecutor
    from onhand.host.scale.executor import LocalExecutor

    if ray is None:
        return LocalExecutor(at_once=at_once, retries=retries)
    return RayExecutor(
        address=ray,
        at_once=at_once,
        retries=retries,
        tell=lambda sentence: say(f"note: {sentence}"),
    )


def _build_options() -> dict[str, bool]:
    """Return the options of `onhand build`: name -> whether it is a flag."""
    from onhand.cli import build

    app = typer.Typer(add_completion=False)
    app.command("build")(build.command)
    given = typer.main.get_command(app)
    return {
        parameter.name: bool(getattr(parameter, "is_flag", False))
        for parameter in getattr(given, "params", [])
        if parameter.name is not None and parameter.opts[0].startswith("-")
    }


def _show(table: Mapping[str, object], output: Path, *, as_json: bool) -> None:
    """Write the table.

    Raises:
        Exit: if a trial came to no result.
    """
    from onhand.host.scale.running import PAGE

    rows = table["trials"]
    trials = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if as_json:
        write_json(table)
    else:
        keys = ("name", "outcome", "machine", "message")
        write_table(
            ["trial", "outcome", "machine", ""], [[str(row[k]) for k in keys] for row in trials]
        )
    say(f"note: all of it as a page: {output / PAGE}")
    if any(row["outcome"] in {"failed", "lost"} for row in trials):
        raise typer.Exit(_UNFINISHED)
