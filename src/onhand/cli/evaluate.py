"""`onhand evaluate`: a bundle beside its original on a text."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.measurements import write_measurements
from onhand.cli.options import AsJson, BundleFolder, Engine, Kv, Prefill, Threads, Variant
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings

__all__ = ["command"]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    text: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A UTF-8 text that calibration has not seen."),
    ],
    original: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The original model; without it, the one recorded at build time."
        ),
    ] = None,
    original_adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The adapter merged into it; without it, the one recorded."
        ),
    ] = None,
    variant: Variant = None,
    engine: Engine = None,
    threads: Threads = None,
    kv: Kv = None,
    prefill: Prefill = "exact",
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="Most tokens of the text, from its beginning.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with its original on a text."""
    settings: Settings = context.obj
    with host_extra("comparing with the original"), shown_progress() as progress:
        from onhand.host.evaluate import evaluate_bundle

        figures = evaluate_bundle(
            name,
            text,
            original=original,
            original_adapter=original_adapter,
            variant=variant,
            engine=engine,
            threads=threads,
            kv=kv,
            prefill=prefill,
            max_tokens=max_tokens,
            home=settings.home(),
            progress=progress,
        )
    write_measurements(figures, as_json=as_json)
