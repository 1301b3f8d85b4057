"""`onhand rollback`: back to an earlier learned version, or to the bundle as it was built."""

from typing import Annotated

import typer

from onhand.cli.learned import version_number
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import write, write_json

__all__ = ["command"]

_To = Annotated[
    str | None,
    typer.Option(
        metavar="N|base",
        help="Which version; base for the bundle as it was built. Without it, the one that the "
        "version in use was learned from.",
    ),
]


def command(
    context: typer.Context, name: BundleFolder, *, to: _To = None, as_json: AsJson = False
) -> None:
    """Use an earlier version of what this device learned; the others are kept.

    A server that serves the bundle changes over as well, and no answer that runs is broken off.
    """
    from onhand.device.learning.in_use import open_versions

    versions = open_versions(name, context.obj.home())
    before = versions.current().number
    now = versions.rollback(version_number(to, option="--to"))
    if as_json:
        write_json({"before": before, "current": now})
        return
    used = f"version {now} is in use" if now else "the bundle is used as it was built"
    was = f"version {before}" if before else "the bundle as it was built"
    write(f"{used}; before it was {was}\n")
