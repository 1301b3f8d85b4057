"""`onhand learn`: teach a bundle on this device, from a file."""

import os
from pathlib import Path

import typer

from onhand.cli import learn_options as options
from onhand.cli.learn_report import write_foreseen, write_learned
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.cli.trusted import AllowUnsigned
from onhand.core.errors import InputError
from onhand.core.units import parse_bytes
from onhand.device.learning.ceilings import Ceilings
from onhand.device.learning.learn import foresee, learn
from onhand.device.learning.preferences import Preferring
from onhand.device.learning.settings import HELD_OUT_SHARE, LearnSettings
from onhand.device.learning.trainer import interrupts

__all__ = ["command"]

_INTERRUPTED = 130


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    data: options.Data,
    method: options.Method = "replay",
    remember: options.Remember = None,
    heldout: options.Heldout = str(HELD_OUT_SHARE),
    epochs: options.Epochs = 3,
    steps: options.Steps = None,
    batch: options.Batch = 8,
    accumulate: options.Accumulate = 1,
    rate: options.Rate = None,
    optimizer: options.Optimizer = "adamw",
    schedule: options.Schedule = "cosine",
    average: options.Average = 0.0,
    repeats: options.Repeats = 1,
    vary: options.Vary = 0,
    rehearse: options.Rehearse = 0,
    scope: options.Scope = None,
    new_rows: options.NewRows = "zeros",
    beta: options.Beta = 0.1,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    memory: options.Memory = "fast",
    max_seconds: options.MaxSeconds = None,
    max_memory: options.MaxMemory = None,
    max_energy: options.MaxEnergy = None,
    min_battery: options.MinBattery = None,
    cpu_share: options.CpuShare = None,
    use: options.Use = True,
    dry_run: options.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Teach a bundle on this device; the same command again goes on where it was broken off.

    Raises:
        Exit: with the code of an interrupt, where somebody interrupted.
    """
    around: Settings = context.obj
    settings = _settings(context)
    if dry_run:
        foreseen = foresee(name, data, settings=settings, home=around.home(), threads=threads)
        write_foreseen(foreseen, as_json=as_json)
        return
    with shown_progress() as progress, interrupts(told=_say_interrupted) as is_interrupted:
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


def _say_interrupted() -> None:
    # Not by `say`: a handler may run in the midst of what writes to the same buffer.
    os.write(2, b"\nit ends after this step; Ctrl-C again ends it at once\n")


_SAME = (
    "method",
    "epochs",
    "steps",
    "batch",
    "accumulate",
    "rate",
    "optimizer",
    "schedule",
    "average",
    "repeats",
    "remember",
    "vary",
    "rehearse",
    "scope",
    "new_rows",
    "seed",
    "memory",
    "use",
)


def _settings(context: typer.Context) -> LearnSettings:
    """Return what the options say."""
    asked = context.params
    max_memory = asked["max_memory"]
    return LearnSettings(
        preferring=Preferring(beta=asked["beta"]),
        heldout=_heldout(asked["heldout"]),
        ceilings=Ceilings(
            seconds=asked["max_seconds"],
            memory_bytes=None if max_memory is None else parse_bytes(max_memory),
            energy_j=asked["max_energy"],
            battery_percent=asked["min_battery"],
            cpu_share=asked["cpu_share"],
        ),
        **{key: asked[key] for key in _SAME},
    )


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
