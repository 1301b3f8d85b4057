"""`onhand distil`: a small network learns what a large one says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from onhand.cli import build_options as shared
from onhand.cli import distil_options as given
from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson, Threads
from onhand.cli.output import say, write_json, write_table
from onhand.cli.progress import shown_progress
from onhand.core.errors import InputError
from onhand.core.units import format_bytes

if TYPE_CHECKING:
    from onhand.host.networks.passes.distil import Distil
    from onhand.host.networks.student import Distilled

__all__ = ["command"]


def command(
    context: typer.Context,
    teacher: given.Teacher,
    *,
    student: given.Student = None,
    output: given.Output = None,
    task: shared.Task = None,
    data: shared.Data = None,
    feed: shared.Feed = None,
    labels: shared.Labels = None,
    epochs: given.Epochs = None,
    steps: given.Steps = None,
    batch: given.Batch = None,
    learning_rate: given.LearningRate = None,
    temperature: given.Temperature = None,
    alpha: given.Alpha = None,
    augment: given.Augment = None,
    precision: given.Precision = None,
    seed: given.Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a small network on the answers of a large one.

    Raises:
        InputError: if an option is missing or out of range.
        KeyboardInterrupt: if the user ends it; what is trained is kept.
    """
    if student is None or output is None or task is None or data is None:
        needed = {"--student": student, "-o": output, "--task": task, "--data": data}
        missing = next(name for name, value in needed.items() if value is None)
        raise InputError(f"{missing} is missing; needed are {', '.join(needed)}")
    with host_extra("distilling"):
        from onhand.host.networks.student import distil_network

        options = _options(context.params)
        try:
            with shown_progress() as progress:
                made = distil_network(
                    teacher,
                    student,
                    output,
                    options,
                    task=task,
                    data=data,
                    feed=feed,
                    labels=labels,
                    threads=threads,
                    progress=progress,
                )
        except KeyboardInterrupt:
            say(f"note: what is trained is kept beside {output}: the same command goes on with it")
            raise
    _write(made, as_json=as_json)


def _options(given: Mapping[str, Any]) -> "Distil":
    """Return the pass with the options that were given; the class checks each value."""
    from onhand.host.networks.passes.distil import Distil

    names = ("epochs", "steps", "batch", "learning_rate", "temperature", "alpha", "precision")
    chosen = {name: given[name] for name in (*names, "seed") if given[name] is not None}
    if given["augment"] is not None:
        chosen["augment"] = tuple(kind.strip() for kind in given["augment"].split(","))
    return Distil(**chosen)


def _write(made: "Distilled", *, as_json: bool) -> None:
    if as_json:
        write_json({
            "n_operations": {"student": made.n_operations[1], "teacher": made.n_operations[0]},
            "notes": list(made.notes),
            "path": str(made.path),
            "size_bytes": {"student": made.size_bytes[1], "teacher": made.size_bytes[0]},
        })
        return
    rows = zip(("teacher", "student"), made.size_bytes, made.n_operations, strict=True)
    write_table(
        ("", "weights", "operations"),
        [(name, format_bytes(size), f"{count / 1e6:.1f} M") for name, size, count in rows],
    )
    for note in made.notes:
        say(f"note: {note}")
