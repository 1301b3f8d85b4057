"""Options of `onhand build`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Ablate",
    "AcceptEstimates",
    "AccuracyLevel",
    "Adapter",
    "Asymmetric",
    "Bits",
    "BudgetLimits",
    "Calibrate",
    "CalibrationExamples",
    "Data",
    "Device",
    "EmbedBits",
    "Feed",
    "Group",
    "Heldout",
    "Labels",
    "Learn",
    "MaxRam",
    "Method",
    "NoOriginal",
    "Output",
    "Plan",
    "Preset",
    "RecipeFile",
    "Resume",
    "ScaleBits",
    "Source",
    "Task",
    "Variants",
]

_HOW = "Compression"
_WORK = "The work"
_LEARNING = "Learning"

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A Hugging Face folder, a hub id, or another network: .onnx, .pt2, .keras, .h5, "
        ".tflite, a SavedModel.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="NAME", help="The bundle's folder; must not exist."),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PROFILE.toml",
        help="The device to build for: one of `onhand devices`, or a profile; without it, this "
        "one.",
    ),
]
BudgetLimits = Annotated[
    str | None,
    typer.Option(
        metavar="LIMITS",
        help='What must hold, as in "disk=400MiB,quality=1%"; alone, it is searched for.',
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A LoRA adapter in PEFT's layout, merged into the source."),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(metavar="TEXT", help="A text like those of use; its end is held out."),
]

_NETWORK = "Networks that are no language models"
Task = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        help="image-classification, detection, text-embedding, text-classification, "
        "audio-classification or features.",
        rich_help_panel=_NETWORK,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Examples: files, folders named after classes, files beside labels.csv or boxes.csv, "
        "or one .npz.",
        rich_help_panel=_NETWORK,
    ),
]
Heldout = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Examples that judge; without it, those of --data that compression did not see.",
        rich_help_panel=_NETWORK,
    ),
]
CalibrationExamples = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Examples that compression may see; the others judge it.",
        show_default="100",
        rich_help_panel=_NETWORK,
    ),
]
Feed = Annotated[
    str | None,
    typer.Option(
        metavar="unit|signed|imagenet|pixels|FILE.toml",
        help="How pictures are scaled (to 0..1, -1..1, PyTorch's way, 0..255), or all in a file.",
        rich_help_panel=_NETWORK,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Names of the classes.", rich_help_panel=_NETWORK),
]

RecipeFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml", help="A recipe, in place of the options below.", rich_help_panel=_HOW
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(help="Bits of a weight: 2, 3, 4 or 8.", show_default="4", rich_help_panel=_HOW),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="fast|good|best",
        help="How much work quality is worth: clip; gptq; gptq and trained scales (needs torch).",
        show_default="fast",
        rich_help_panel=_HOW,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="rtn|hqq|clip|awq|gptq|awq+gptq",
        help="How weights are rounded, from plain to thorough, in place of --preset.",
        show_default="clip",
        rich_help_panel=_HOW,
    ),
]
Group = Annotated[
    int | None,
    typer.Option(
        help="Inputs that share a scale: 32, 64 or 128.", show_default="32", rich_help_panel=_HOW
    ),
]
Asymmetric = Annotated[
    bool,
    typer.Option("--asymmetric", help="Store a zero point per group.", rich_help_panel=_HOW),
]
EmbedBits = Annotated[
    int | None,
    typer.Option(
        help="Bits of embedding and head; without it, those of --bits.", rich_help_panel=_HOW
    ),
]
ScaleBits = Annotated[
    int | None,
    typer.Option(
        help="Bits of a scale in the bundle: 16, or 8, which is smaller.", rich_help_panel=_HOW
    ),
]
Variants = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES|N",
        help="Several variants in one bundle, as in int8,int4; the first is the default. A number: "
        "so many points of the front that a search finds.",
        rich_help_panel=_HOW,
    ),
]
Recover = Annotated[
    bool,
    typer.Option(
        "--recover",
        help="Of a network: train its integers on the original's answers to --data.",
        rich_help_panel=_HOW,
    ),
]
AccuracyLevel = Annotated[
    int, typer.Option(help="4 multiplies in int8, 0 in float32.", rich_help_panel=_HOW)
]

Learn = Annotated[
    str | None,
    typer.Option(
        "--learnable",
        metavar="KIND[,OPTION=VALUE]",
        help="What it can learn on the device: lora, head, last-block or bias, as in "
        "lora,rank=8,alpha=16.",
        rich_help_panel=_LEARNING,
    ),
]

MaxRam = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Memory ceiling of the build, as in 4GiB.", rich_help_panel=_WORK
    ),
]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Say size, memory and minutes, or the front of a search; do nothing.",
        rich_help_panel=_WORK,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with an interrupted build of NAME.", rich_help_panel=_WORK
    ),
]
AcceptEstimates = Annotated[
    bool,
    typer.Option(
        "--accept-estimates",
        help="Let an estimated figure satisfy a limit.",
        rich_help_panel=_WORK,
    ),
]
NoOriginal = Annotated[
    bool,
    typer.Option(
        "--no-original",
        help="Leave out the original's speed and memory.",
        rich_help_panel=_WORK,
    ),
]
Ablate = Annotated[
    bool,
    typer.Option(
        "--ablate",
        help="Build without each technique too, and say what each brought: a build for each.",
        rich_help_panel=_WORK,
    ),
]
