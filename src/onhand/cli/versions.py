"""`onhand versions`: what this device has learned of a bundle, and which version is in use."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli.options import AsJson, BundleFolder, Threads
from onhand.cli.output import counted, say, write, write_json, write_table
from onhand.core.errors import InputError
from onhand.core.units import format_bytes
from onhand.device.learning.importing import Imported, Judges, import_learned, was_judged

if TYPE_CHECKING:
    from onhand.device.learning.versions import Standing, Version, Versions

__all__ = ["command"]


_Import = Annotated[
    Path | None,
    typer.Option(
        "--import",
        metavar="DIR",
        help="Make what was learned elsewhere a version, in use if it passes its gate: a LoRA "
        "adapter in PEFT's layout, or what `onhand export --to safetensors` wrote.",
    ),
]
_Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --import: examples of what it should know, as for `onhand learn`.",
    ),
]
_Remember = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --import: examples of what must not be lost; without it, those that the bundle "
        "carries.",
    ),
]
_Unjudged = Annotated[
    bool, typer.Option("--unjudged", help="With --import: take it as it is; no gate judges it.")
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    folder: _Import = None,
    data: _Data = None,
    remember: _Remember = None,
    unjudged: _Unjudged = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """List what this device has learned of a bundle: each version, its gate, and which is in use.

    Raises:
        Exit: with 3 where a version that should be in use is damaged; with 4 where what was
            imported did not pass its gate.
        InputError: if options of an import are given without one.
    """
    from onhand.device.learning.in_use import open_versions

    is_refused = False
    if folder is not None:
        judges = Judges(data=data, remember=remember, is_waived=unjudged)
        made = import_learned(name, folder, judges, home=context.obj.home(), threads=threads)
        _say_imported(made, folder)
        is_refused = not made.is_used
    elif data is not None or remember is not None or unjudged or threads is not None:
        raise InputError("--data, --remember, --unjudged and --threads are for --import DIR")
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
    if is_refused:
        raise typer.Exit(4)


def _say_imported(made: Imported, folder: Path) -> None:
    number = made.version.number
    if not made.is_judged:
        how = f"{folder} is version {number}, and in use; no gate judged it"
    elif made.is_used:
        how = f"{folder} is version {number}; it passed its gate and is in use"
    else:
        why = "; ".join(made.version.verdict.reasons)
        say(f"warning: {folder} is version {number}, refused by its gate and not used: {why}")
        return
    say(f"note: {how}: onhand rollback takes it back")


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
        "is_judged": was_judged(one),
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
    made = datetime.fromtimestamp(one.made_at_s, tz=UTC).strftime("%Y-%m-%d %H:%M")
    gate = "passed" if one.verdict.is_accepted else f"refused: {'; '.join(one.verdict.reasons)}"
    if not was_judged(one):
        gate = "not judged"
    counts = "".join(f", {counted(n, what)}" for what, n in sorted(one.counts.items()))
    return [
        "in use" if one.number == current else "",
        str(one.number),
        str(one.parent) if one.parent else "as built",
        made,
        one.method + counts,
        format_bytes(one.size_bytes),
        "damaged" if one.number in damaged else gate,
    ]
