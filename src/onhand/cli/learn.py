"""`onhand learn`: teach a bundle on this device, from a file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from onhand.cli.learn_report import write_foreseen, write_learned
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.core.errors import InputError
from onhand.core.units import parse_bytes
from onhand.device.learning.ceilings import Ceilings
from onhand.device.learning.learn import foresee, learn
from onhand.device.learning.settings import HELD_OUT_SHARE, LearnSettings
from onhand.device.learning.trainer import interrupts

__all__ = ["command"]

_INTERRUPTED = 130
_CEILINGS = "What it may take"
_TRAINING = "How it is trained"


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="What to learn: a text; JSON lines of messages, of prompt and completion, or of "
            "text or path and label; a table of text and label; or a folder for each class.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="How to learn without forgetting: naive, replay, der++, er-ace, ewc, lwf, olora, "
            "prototypes, or several, as replay+ewc."
        ),
    ] = "replay",
    remember: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Examples of what it can do already: the method holds on to most of them, and "
            "the others judge what was forgotten.",
        ),
    ] = None,
    heldout: Annotated[
        str,
        typer.Option(
            metavar="FILE|SHARE",
            help="Examples that judge and are not learned: a file, or a share of --data.",
        ),
    ] = str(HELD_OUT_SHARE),
    epochs: Annotated[
        int,
        typer.Option(
            min=1, help="How often each example is taught.", rich_help_panel=_TRAINING
        ),
    ] = 3,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of the optimizer, in place of epochs.", rich_help_panel=_TRAINING
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Examples at a time.", rich_help_panel=_TRAINING)
    ] = 8,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1, help="Batches that make one step together.", rich_help_panel=_TRAINING
        ),
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; without it, what is usual for what is learned.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"],
        typer.Option(help="How gradients become steps.", rich_help_panel=_TRAINING),
    ] = "adamw",
    schedule: Annotated[
        Literal["cosine", "constant"],
        typer.Option(help="The learning rate over the steps.", rich_help_panel=_TRAINING),
    ] = "cosine",
    seed: Annotated[
        int,
        typer.Option(min=0, help="The same seed learns the same.", rich_help_panel=_TRAINING),
    ] = 0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of a step; without it, all that may be used."),
    ] = None,
    memory: Annotated[
        Literal["fast", "low"],
        typer.Option(
            help="low gives memory back after each step, and takes longer.",
            rich_help_panel=_CEILINGS,
        ),
    ] = "fast",
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds of all its steps.", rich_help_panel=_CEILINGS),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory of the process, as 600MiB.", rich_help_panel=_CEILINGS
        ),
    ] = None,
    max_energy: Annotated[
        float | None, typer.Option(help="Joules of all its steps.", rich_help_panel=_CEILINGS)
    ] = None,
    min_battery: Annotated[
        float | None,
        typer.Option(
            help="Percent of charge below which it waits, unless on mains.",
            rich_help_panel=_CEILINGS,
        ),
    ] = None,
    cpu_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the time in which it computes, above 0 to 1.",
            rich_help_panel=_CEILINGS,
        ),
    ] = None,
    use: Annotated[
        bool,
        typer.Option(help="Put the new version into use where it passes its gate."),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read everything, say what would be done, and do nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Teach a bundle on this device; the same command again goes on where it was broken off."""
    settings = LearnSettings(
        method=method,
        epochs=epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        rate=rate,
        optimizer=optimizer,
        schedule=schedule,
        heldout=_heldout(heldout),
        remember=remember,
        seed=seed,
        memory=memory,
        ceilings=Ceilings(
            seconds=max_seconds,
            memory_bytes=None if max_memory is None else parse_bytes(max_memory),
            energy_j=max_energy,
            battery_percent=min_battery,
            cpu_share=cpu_share,
        ),
        use=use,
    )
    around: Settings = context.obj
    if dry_run:
        foreseen = foresee(name, data, settings=settings, home=around.home(), threads=threads)
        write_foreseen(foreseen, as_json=as_json)
        return
    with shown_progress() as progress, interrupts() as is_interrupted:
        made = learn(
            name,
            data,
            settings=settings,
            home=around.home(),
            threads=threads,
            is_interrupted=is_interrupted,
            progress=progress,
        )
    write_learned(made, as_json=as_json)
    if made.ended == "interrupted":
        raise typer.Exit(_INTERRUPTED)


def _heldout(given: str) -> Path | float:
    """Return a share, or a file.

    Raises:
        InputError: if it is neither.
    """
    try:
        return float(given)
    except ValueError:
        path = Path(given)
    if not path.exists():
        raise InputError(f"--heldout {given}: is neither a share as 0.1 nor a file that is there")
    return path
