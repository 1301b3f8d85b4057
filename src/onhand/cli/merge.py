"""`onhand merge`: what was learned becomes part of a new bundle's matrices."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli import networks
from onhand.cli.host_extra import host_extra
from onhand.cli.learned import version_number
from onhand.cli.options import AsJson, BundleFolder, Threads
from onhand.cli.output import say, write_json
from onhand.cli.progress import shown_progress
from onhand.cli.trusted import AllowUnsigned

if TYPE_CHECKING:
    from onhand.host.build import BuildResult

__all__ = ["command"]


_Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Of a network that is no language model: examples that judge, as for `onhand build`.",
    ),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NEW", help="The new bundle; must not exist.")
    ],
    version: Annotated[
        str | None,
        typer.Option(metavar="N", help="Which learned version; without it, the one in use."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A LoRA adapter in PEFT's layout, in place of what was learned."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The original model; without it, the bundle's own weights are rounded again.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="TEXT", help="As for `onhand build`.")
    ] = None,
    data: _Data = None,
    threads: Threads = None,
    no_original: Annotated[
        bool, typer.Option("--no-original", help="Leave out the original's speed and memory.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merge what was learned, or an adapter, into a bundle's weights: a new bundle."""
    if networks.is_network(name):
        networks.refuse(context, "adapter", "source", "calibrate", why="language models")
        _network(context)
        return
    networks.refuse_for_text(context, name, "data")
    with host_extra("merging"), shown_progress() as progress:
        from onhand.host.merging import MergeOptions, merge_bundle

        options = MergeOptions(
            adapter=adapter,
            version=version_number(version),
            source=source,
            calibrate=calibrate,
            threads=threads,
            measure_original=not no_original,
        )
        made = merge_bundle(name, output, options, home=context.obj.home(), progress=progress)
    _show(made, again=source is None, as_json=as_json)


def _network(context: typer.Context) -> None:
    """Merge what a network that is no language model has learned."""
    asked = context.params
    with host_extra("merging"), shown_progress() as progress:
        from onhand.host.networks.merging import NetworkMergeOptions, merge_network

        options = NetworkMergeOptions(
            version=version_number(asked["version"]),
            data=asked["data"],
            threads=asked["threads"],
            measure_original=not asked["no_original"],
        )
        made = merge_network(
            asked["name"], asked["output"], options, home=context.obj.home(), progress=progress
        )
    _show(made, again=False, as_json=asked["as_json"])


def _show(made: "BuildResult", *, again: bool, as_json: bool) -> None:
    if as_json:
        write_json(made.report)
    else:
        from onhand.cli.report_table import write_report_table
        from onhand.device.report_data import parse_report

        write_report_table(parse_report(made.report))
    if again:
        say(
            "note: the matrices that changed were rounded a second time; the report compares with "
            "the old bundle and what was merged into it"
        )
    say(f"note: the bundle is {made.root}; its report as a page: {made.root / 'report.html'}")
