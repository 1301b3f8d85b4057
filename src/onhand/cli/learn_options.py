"""Options of `onhand learn`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Accumulate",
    "Average",
    "Batch",
    "Beta",
    "CpuShare",
    "Data",
    "DryRun",
    "Epochs",
    "Heldout",
    "MaxEnergy",
    "MaxMemory",
    "MaxSeconds",
    "Memory",
    "Method",
    "MinBattery",
    "NewRows",
    "Optimizer",
    "Rate",
    "Rehearse",
    "Remember",
    "Repeats",
    "Schedule",
    "Scope",
    "Seed",
    "Steps",
    "Threads",
    "Use",
    "Vary",
]

_CEILINGS = "What it may take"
_TRAINING = "How it is trained"

Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="What to learn: a text; JSON lines of messages, of prompt and completion, or of "
        "text or path and label; a table of text and label; or a folder for each class.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help="How to learn without forgetting: naive, replay, der++, er-ace, ewc, lwf, olora, "
        "prototypes, or several, as replay+ewc; options behind commas, as der++,past_weight=1."
    ),
]
Remember = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Examples of what it can do already: the method holds on to most of them, and "
        "the others judge what was forgotten. Without it, those that the bundle carries.",
    ),
]
Heldout = Annotated[
    str,
    typer.Option(
        metavar="FILE|SHARE",
        help="Examples that judge and are not learned: a file, or a share of --data.",
    ),
]
Epochs = Annotated[
    int,
    typer.Option(min=1, help="How often each example is taught.", rich_help_panel=_TRAINING),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1, help="Steps of the optimizer, in place of epochs.", rich_help_panel=_TRAINING
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Examples at a time.", rich_help_panel=_TRAINING)]
Accumulate = Annotated[
    int,
    typer.Option(min=1, help="Batches that make one step together.", rich_help_panel=_TRAINING),
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; without it, what is usual for what is learned.",
        rich_help_panel=_TRAINING,
    ),
]
Optimizer = Annotated[
    Literal["adamw", "sgd"],
    typer.Option(help="How gradients become steps.", rich_help_panel=_TRAINING),
]
Schedule = Annotated[
    Literal["cosine", "constant"],
    typer.Option(help="The learning rate over the steps.", rich_help_panel=_TRAINING),
]
NewRows = Annotated[
    Literal["zeros", "imprinted"],
    typer.Option(
        help="How new classes begin: at zero, or, of a head on a frozen trunk, at the mean "
        "direction of their examples.",
        rich_help_panel=_TRAINING,
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, help="The same seed learns the same.", rich_help_panel=_TRAINING),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of a step; without it, all that may be used."),
]
Memory = Annotated[
    Literal["fast", "low"],
    typer.Option(
        help="low gives memory back after each step, and takes longer.",
        rich_help_panel=_CEILINGS,
    ),
]
Average = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Share of the steps, the last ones, after which values are averaged.",
        rich_help_panel=_TRAINING,
    ),
]
Scope = Annotated[
    bool | None,
    typer.Option(
        "--scope/--no-scope",
        help="Answer only prompts like those taught with what is learned, and others as the "
        "bundle was built; without either, as the version in use does. Language models.",
    ),
]
Repeats = Annotated[
    int,
    typer.Option(
        min=1,
        help="Times that it learns anew, with other draws; the mean of all is what is learned.",
        rich_help_panel=_TRAINING,
    ),
]
Vary = Annotated[
    int,
    typer.Option(
        min=0,
        help="Variants of each example, in which names that a JSON answer copies are exchanged.",
        rich_help_panel=_TRAINING,
    ),
]
Rehearse = Annotated[
    int,
    typer.Option(
        min=0,
        help="Remembered commands to try about other names; what is answered right is remembered.",
        rich_help_panel=_TRAINING,
    ),
]
Beta = Annotated[
    float,
    typer.Option(
        help="Of liked and disliked answers: the smaller, the further it may go from what it was.",
        rich_help_panel=_TRAINING,
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(help="Seconds of all its steps.", rich_help_panel=_CEILINGS),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Memory of the process, as 600MiB.", rich_help_panel=_CEILINGS
    ),
]
MaxEnergy = Annotated[
    float | None, typer.Option(help="Joules of all its steps.", rich_help_panel=_CEILINGS)
]
MinBattery = Annotated[
    float | None,
    typer.Option(
        help="Percent of charge below which it waits, unless on mains.",
        rich_help_panel=_CEILINGS,
    ),
]
CpuShare = Annotated[
    float | None,
    typer.Option(
        help="Share of the time in which it computes, above 0 to 1.",
        rich_help_panel=_CEILINGS,
    ),
]
Use = Annotated[
    bool,
    typer.Option(help="Put the new version into use where it passes its gate."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Read everything, say what would be done, and do nothing."),
]
