"""`onhand report`: the evidence that was measured for a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import say, write, write_json
from onhand.cli.report_table import write_report_table
from onhand.core.bundle import REPORT, REPORT_PAGE, read_manifest
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import parse_json
from onhand.device.report_data import parse_report
from onhand.device.report_records import Report
from onhand.device.state import write_text_atomically

__all__ = ["command"]

_MAX_REPORT_BYTES = 16 * 2**20


def command(
    name: BundleFolder,
    page: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="Where --html writes; without it, in the bundle."),
    ] = None,
    *,
    html: Annotated[
        bool, typer.Option("--html", help="Write the report as one page with plots.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Print the recipe that gives more bits where most is lost."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the evidence that was measured for a bundle.

    Raises:
        InputError: if a path is given without --html, --repair with another form, or there is
            nothing to repair.
    """
    if repair and (html or as_json):
        raise InputError("--repair prints a recipe alone; leave --html and --json out")
    if page is not None and not html:
        raise InputError(f"{page}: a path goes with --html, as in --html {page}")
    table, report = _read(name)
    if repair:
        write(_recipe(report))
        return
    place = page or name / REPORT_PAGE
    if html:
        with host_extra("the page"):
            from onhand.host.report import render_report

            content = render_report(table)
        write_text_atomically(place, content)
    if as_json:
        write_json(table)
    else:
        write_report_table(report)
        for note in report.notes:
            say(f"note: {note}")
    if html or place.is_file():
        say(f"note: as a page with plots: {place}")


def _recipe(report: Report) -> str:
    """Return the recipe that the default variant's report holds.

    Raises:
        InputError: if it holds none.
    """
    variant = report.default_variant
    repair = report.variants[variant].repair
    if repair is None:
        raise InputError(f"variant {variant!r} has no repair: nothing in it can be given more bits")
    return repair.recipe


def _read(root: Path) -> tuple[dict[str, object], Report]:
    """Return a bundle's report, as it is written and with types.

    Raises:
        InputError: if there is no bundle or no report.
        BundleCorrupt: if the report is damaged, or that of another bundle.
    """
    _, digest = read_manifest(root)
    path = root / REPORT
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_REPORT_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{root}: has no {REPORT}: nothing was measured for it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_REPORT_BYTES:
        raise BundleCorrupt(f"{path}: is over {_MAX_REPORT_BYTES} bytes")
    try:
        table = parse_json(content)
        if not isinstance(table, dict):
            raise InputError("report: is not a JSON object")
        report = parse_report(table)
    except InputError as error:
        raise BundleCorrupt(f"{path}: {error}") from error
    if report.manifest_sha256 != digest:
        raise BundleCorrupt(
            f"{path}: is the report of another bundle: it names the manifest "
            f"{report.manifest_sha256}, this one has {digest}"
        )
    return table, report
