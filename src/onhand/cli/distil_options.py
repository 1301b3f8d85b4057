"""Options of `onhand distil`; what each stands at is said by the pass."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Alpha",
    "Augment",
    "Batch",
    "Epochs",
    "LearningRate",
    "Output",
    "Precision",
    "Seed",
    "Steps",
    "Student",
    "Teacher",
    "Temperature",
]

_TRAINING = "Training"

Teacher = Annotated[
    str, typer.Argument(metavar="TEACHER", help="The large network.", show_default=False)
]
Student = Annotated[
    str | None,
    typer.Option(
        metavar="width=W,depth=D|FILE",
        help="The teacher with a share of its channels and residual blocks, or a network.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="OUT.onnx", help="The student; must not exist."),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Times to go through the examples.", show_default="10", rich_help_panel=_TRAINING
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Steps, in place of epochs.", rich_help_panel=_TRAINING)
]
Batch = Annotated[
    int | None,
    typer.Option(help="Examples of one step.", show_default="16", rich_help_panel=_TRAINING),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="The learning rate at its height.", show_default="1e-4", rich_help_panel=_TRAINING
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="How soft answers of classes are.", show_default="2", rich_help_panel=_TRAINING
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="Share of known labels in the loss.", show_default="0", rich_help_panel=_TRAINING
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="flip,crop,mixup",
        help="What pictures are turned into on the way.",
        rich_help_panel=_TRAINING,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="auto|float32|bfloat16",
        help="Of products.",
        show_default="auto",
        rich_help_panel=_TRAINING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Of all that is drawn.", show_default="0", rich_help_panel=_TRAINING),
]
