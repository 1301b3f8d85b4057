"""`onhand versions`: what this device has learned of a bundle, and which version is in use."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import say, write, write_json, write_table
from onhand.core.units import format_bytes

if TYPE_CHECKING:
    from onhand.device.learning.versions import Standing, Version, Versions

__all__ = ["command"]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="DIR",
            help="Make a LoRA adapter in PEFT's layout a version, and put it into use; no gate "
            "judges it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what this device has learned of a bundle: each version, its gate, and which is in use.

    Raises:
        Exit: with 3 where a version that should be in use is damaged.
    """
    from onhand.device.learning.in_use import open_versions

    if adapter is not None:
        from onhand.device.learning.adapters import import_adapter

        made = import_adapter(name, adapter, home=context.obj.home())
        say(
            f"note: {adapter} is version {made.number}, and in use; no gate judged it: onhand "
            "rollback takes it back"
        )
    versions = open_versions(name, context.obj.home())
    standing, damaged = versions.current(), versions.damaged()
    if as_json:
        write_json(_described(versions, standing, damaged))
    else:
        _show(versions, standing, damaged)
    for sentence in standing.passed_over:
        say(f"note: {sentence}")
    if standing.passed_over:
        raise typer.Exit(3)


def _described(
    versions: "Versions", standing: "Standing", damaged: dict[int, str]
) -> dict[str, object]:
    return {
        "current": standing.number,
        "damaged": {str(number): why for number, why in damaged.items()},
        "folder": str(versions.folder),
        "passed_over": list(standing.passed_over),
        "versions": [_version(one) for one in versions.list_versions()],
    }


def _version(one: "Version") -> dict[str, object]:
    return {
        "counts": dict(one.counts),
        "figures": dict(one.verdict.figures),
        "is_accepted": one.verdict.is_accepted,
        "made_at_s": one.made_at_s,
        "method": one.method,
        "number": one.number,
        "parent": one.parent,
        "reasons": list(one.verdict.reasons),
        "sha256": one.sha256,
        "size_bytes": one.size_bytes,
    }


def _show(versions: "Versions", standing: "Standing", damaged: dict[int, str]) -> None:
    found = versions.list_versions()
    if not found:
        write("nothing is learned yet: the bundle is used as it was built\n")
        return
    rows = [_row(one, damaged, current=standing.number) for one in found]
    write_table(["", "version", "from", "made", "method", "size", "gate"], rows)
    if standing.number == 0:
        write("the bundle is used as it was built\n")


def _row(one: "Version", damaged: dict[int, str], *, current: int) -> list[str]:
    from onhand.device.learning.adapters import IMPORTED

    made = datetime.fromtimestamp(one.made_at_s, tz=UTC).strftime("%Y-%m-%d %H:%M")
    gate = "passed" if one.verdict.is_accepted else f"refused: {'; '.join(one.verdict.reasons)}"
    if one.method == IMPORTED:
        gate = "not judged"
    counts = "".join(f", {n} {what}" for what, n in sorted(one.counts.items()))
    return [
        "in use" if one.number == current else "",
        str(one.number),
        str(one.parent) if one.parent else "as built",
        made,
        one.method + counts,
        format_bytes(one.size_bytes),
        "damaged" if one.number in damaged else gate,
    ]
