"""`onhand join`: several networks, or what stands around one, become one network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli import build_options as shared
from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson, Threads
from onhand.cli.output import say, write_json, write_table
from onhand.core.errors import InputError
from onhand.core.units import format_bytes

if TYPE_CHECKING:
    from onhand.host.networks.joining.writing import Joined

__all__ = ["command"]


_Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="CONFIG.toml|NETWORK...",
        help="What is joined, in a file; with --average, the networks.",
        show_default=False,
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="OUT.onnx", help="The network to make; must not exist."),
]
_Average = Annotated[
    bool, typer.Option("--average", help="Average the weights of networks of one form.")
]
_Weights = Annotated[
    str | None,
    typer.Option(
        metavar="W,W,...", help="Of each network in the average.", show_default="the same"
    ),
]


def command(
    sources: _Sources,
    *,
    output: _Output = None,
    average: _Average = False,
    weights: _Weights = None,
    task: shared.Task = None,
    data: shared.Data = None,
    feed: shared.Feed = None,
    labels: shared.Labels = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make one network of several, or of one and the steps around it.

    Raises:
        InputError: if an option is missing or out of range.
    """
    if output is None:
        raise InputError("where to? give -o OUT.onnx")
    examples = {"--data": data, "--task": task, "--feed": feed, "--labels": labels}
    for option, value in {"--weights": weights, **examples}.items():
        if value is not None and not average:
            raise InputError(f"{option} is for --average; leave it out")
        if value is not None and option in examples and (data is None or task is None):
            raise InputError("examples that choose networks need --data and --task")
    if not average and len(sources) != 1:
        raise InputError(f"{len(sources)} sources: give one CONFIG.toml, or --average")
    with host_extra("joining"):
        from onhand.host.networks.joining.configured import average_networks, join_networks
        from onhand.host.networks.joining.scoring import Contest

        if average:
            contest = None
            if data is not None and task is not None:
                contest = Contest(task=task, data=data, feed=feed, labels=labels)
            made = average_networks(
                sources, output, weights=_shares(weights), contest=contest, threads=threads
            )
        else:
            made = join_networks(sources[0], output, threads=threads)
    _write(made, as_json=as_json)


def _shares(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--weights is {text!r}, must be numbers, as in 2,1,1") from error


def _write(made: "Joined", *, as_json: bool) -> None:
    if as_json:
        write_json({
            "difference": made.difference,
            "notes": list(made.notes),
            "parts_bytes": made.parts_bytes,
            "path": str(made.path),
            "size_bytes": made.size_bytes,
        })
        return
    write_table(
        (made.path.name, ""),
        [
            ("weights", format_bytes(made.size_bytes)),
            ("weights of its parts", format_bytes(made.parts_bytes)),
            ("largest difference of an answer", f"{made.difference:.1g}"),
        ],
    )
    for note in made.notes:
        say(f"note: {note}")
