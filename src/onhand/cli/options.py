"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.device.engines.base import KvKind
from onhand.device.engines.choosing import HeadUse, PrefillUse

__all__ = [
    "Adapter",
    "AsJson",
    "BundleFolder",
    "Engine",
    "Head",
    "Kv",
    "MaxTokens",
    "MeasuredVersion",
    "MinP",
    "Prefill",
    "RepetitionPenalty",
    "Seed",
    "Speculate",
    "Stop",
    "Temperature",
    "Threads",
    "TopK",
    "TopP",
    "Trials",
    "Variant",
    "Verbose",
    "Version",
]

BundleFolder = Annotated[
    Path, typer.Argument(metavar="NAME", help="The bundle's folder.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Variant = Annotated[
    str | None,
    typer.Option(
        help="Which of the bundle's variants; without it, its default, or a network's fastest."
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Which engine, as native, native:avx2 for one instruction set, or onnx:cuda for one "
        "accelerator; without it, the quickest here."
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="A LoRA adapter in PEFT's layout, added to the model as it runs."
    ),
]
Head = Annotated[
    HeadUse,
    typer.Option(
        help="full scores all tokens; two-stage looks for candidates in a copy of 2 bits first."
    ),
]
Kv = Annotated[
    KvKind | None,
    typer.Option(
        help="What keys and values are kept as, in engines that can; without it, their own way."
    ),
]
Prefill = Annotated[
    PrefillUse,
    typer.Option(
        help="bf16 reads prompts faster, in engines and on processors that can; answers may differ."
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        metavar="off|lookup|DIR",
        help="Check several drafted tokens in a step: copied from the text so far, or guessed by "
        "the smaller bundle in DIR. Answers stay what they are.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of one step; without it, the quickest number of them."),
]
Trials = Annotated[
    bool,
    typer.Option(
        help="At the first opening, time engines, accelerators and threads for a few seconds; "
        "what is quickest is remembered. Without, the first engine that can and all threads."
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="N|base",
        help="A version learned on this device, or base: the bundle as it was built; without it, "
        "the one in use.",
    ),
]
MeasuredVersion = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="N|base",
        help="A version learned on this device; without it, or as base, the bundle as it was "
        "built.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Say how engine and threads were chosen."),
]

_SAMPLING = "Choosing tokens"
MaxTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most tokens of an answer; without it, as many as the context holds.",
        rich_help_panel=_SAMPLING,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        help="0 takes the most likely token, higher varies more.", rich_help_panel=_SAMPLING
    ),
]
TopK = Annotated[
    int,
    typer.Option(help="Keep this many of the likeliest tokens; 0: all.", rich_help_panel=_SAMPLING),
]
TopP = Annotated[
    float,
    typer.Option(
        help="Keep the likeliest tokens that hold this probability.", rich_help_panel=_SAMPLING
    ),
]
MinP = Annotated[
    float,
    typer.Option(
        help="Keep tokens at least this many times as likely as the likeliest.",
        rich_help_panel=_SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        help="Above 1 makes tokens that came before less likely.", rich_help_panel=_SAMPLING
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="The same seed draws the same tokens.", rich_help_panel=_SAMPLING),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="End the answer before this text; may be given several times.",
        rich_help_panel=_SAMPLING,
    ),
]
