"""`onhand meta`: starting values from which a few examples of a new class are enough."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.options import AsJson, BundleFolder, Threads
from onhand.cli.output import write, write_json
from onhand.cli.progress import shown_progress
from onhand.device.threads import usable_threads

__all__ = ["command"]

_Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Labelled examples of many classes: JSON lines or a table of text and label, or a "
        "folder for each class.",
    ),
]
_Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="NEW", help="The new bundle; must not exist.")
]
_Method = Annotated[
    Literal["anil", "reptile"],
    typer.Option(help="anil moves the head alone within a task, reptile everything."),
]
_Ways = Annotated[int, typer.Option(min=2, help="Classes of a task.")]
_Shots = Annotated[int, typer.Option(min=1, help="Examples of each class that a task teaches.")]
_Rounds = Annotated[int, typer.Option(min=1, help="How often the starting values are moved.")]
_Rate = Annotated[
    float, typer.Option(help="Learning rate of the head within a task, plain gradient steps.")
]
_OuterRate = Annotated[
    float,
    typer.Option(
        help="Learning rate of the starting values; lower for a network that was trained on much."
    ),
]
_Seed = Annotated[int, typer.Option(min=0, help="The same seed finds the same.")]


def command(
    name: BundleFolder,
    *,
    data: _Data,
    output: _Output,
    method: _Method = "anil",
    ways: _Ways = 5,
    shots: _Shots = 5,
    rounds: _Rounds = 200,
    head_rate: _Rate = 0.5,
    outer_rate: _OuterRate = 1e-3,
    seed: _Seed = 0,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle that learns new classes from fewer examples than NAME; its answers are NAME's.

    A fifth of the classes only judges. Nothing is written where that shows no gain.
    """
    with host_extra("meta-learning"), shown_progress() as progress:
        from onhand.host.learning.meta import Meta
        from onhand.host.learning.meta_bundle import meta_bundle
        from onhand.host.learning.tasks import Shape

        how = Meta(
            method=method,
            shape=Shape(ways=ways, shots=shots),
            rounds=rounds,
            head_rate=head_rate,
            outer_rate=outer_rate,
            seed=seed,
        )
        made = meta_bundle(
            name,
            data,
            output,
            how,
            threads=threads or usable_threads(),
            progress=progress,
        )
    found = made.to_json()
    if as_json:
        write_json(found)
        return
    write(
        f"{found['examples']} examples of {found['classes']} classes; of "
        f"{found['judged_tasks']} tasks of {found['judged_classes']} classes kept apart, "
        f"{found['right_before']:.1%} were right before and {found['right_after']:.1%} are now\n"
    )
