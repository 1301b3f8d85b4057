"""`onhand report`: the evidence that was measured for a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import say, write, write_json
from onhand.cli.report_table import write_pair_table, write_report_table
from onhand.core.bundle import REPORT, REPORT_PAGE, read_manifest
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import parse_json
from onhand.device.report_data import parse_report
from onhand.device.report_pair import pair_reports
from onhand.device.report_records import Report
from onhand.device.state import write_text_atomically

__all__ = ["command"]

_MAX_REPORT_BYTES = 16 * 2**20


def command(
    name: BundleFolder,
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OTHER]",
            help="Another bundle, or a report.json of another device, to stand beside it; with "
            "--html the page's place.",
        ),
    ] = None,
    *,
    html: Annotated[
        bool, typer.Option("--html", help="Write the report as one page with plots.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PAGE.html", help="Write the page there."),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Print the recipe that gives more bits where most is lost."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the evidence that was measured for a bundle, or for two side by side.

    Raises:
        InputError: if options exclude each other, the second path is no bundle and no report, or
            there is nothing to repair.
    """
    if repair and (html or as_json or output):
        raise InputError("--repair prints a recipe alone; leave --html, -o and --json out")
    if html and other is not None and output is not None:
        raise InputError(f"the page goes to {output} or to {other}? give one of them")
    table, report = _read(name)
    if repair:
        write(_recipe(report))
    elif html or other is None:
        _one(name, table, report, output or other, html=html or output is not None, as_json=as_json)
    else:
        _two((table, report), other, output, as_json=as_json)


def _one(
    name: Path,
    table: dict[str, object],
    report: Report,
    page: Path | None,
    *,
    html: bool,
    as_json: bool,
) -> None:
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


def _two(
    first: tuple[dict[str, object], Report], other: Path, output: Path | None, *, as_json: bool
) -> None:
    """Show two reports side by side."""
    table, report = _read_other(other)
    pair = pair_reports(first[1], report)
    if output is not None:
        with host_extra("the page"):
            from onhand.host.report_pair import render_pair

            content = render_pair(first[0], table)
        write_text_atomically(output, content)
    if as_json:
        write_json(pair.to_json())
    else:
        write_pair_table(pair)
    for warning in pair.warnings:
        say(f"note: {warning}")
    if output is not None:
        say(f"note: as a page with plots: {output}")


def _read_other(place: Path) -> tuple[dict[str, object], Report]:
    """Return the report of a bundle, or one that lies alone: of another device.

    Raises:
        InputError: if it is neither.
    """
    if place.is_dir():
        return _read(place)
    if place.suffix != ".json":
        raise InputError(
            f"{place}: is no bundle and no report.json; a page's path goes with --html, as in "
            f"--html {place}"
        )
    return _parsed(place)


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
    table, report = _parsed(path)
    if report.manifest_sha256 != digest:
        raise BundleCorrupt(
            f"{path}: is the report of another bundle: it names the manifest "
            f"{report.manifest_sha256}, this one has {digest}"
        )
    return table, report


def _parsed(path: Path) -> tuple[dict[str, object], Report]:
    """Read a report file.

    Raises:
        InputError: if there is none.
        BundleCorrupt: if it is damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_REPORT_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent}: has no {path.name}: nothing was measured for it"
        ) from error
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
    return table, report
