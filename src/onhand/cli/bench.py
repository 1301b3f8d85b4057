"""`onhand bench`: speed, memory and energy on this device."""

from typing import Annotated

import typer

from onhand.cli.measurements import write_measurements
from onhand.cli.options import AsJson, BundleFolder, Engine, Head, Kv, Prefill, Threads, Variant
from onhand.cli.progress import shown_progress
from onhand.device.bench import GENERATED_TOKENS, PROMPT_TOKENS, bench

__all__ = ["command"]


def command(
    name: BundleFolder,
    *,
    variant: Variant = None,
    engine: Engine = None,
    threads: Threads = None,
    head: Head = "full",
    kv: Kv = None,
    prefill: Prefill = "exact",
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the prompt.")
    ] = PROMPT_TOKENS,
    generated_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens of the answer.")
    ] = GENERATED_TOKENS,
    runs: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle's speed, memory and energy on this device."""
    with shown_progress() as progress:
        figures = bench(
            name,
            variant=variant,
            engine=engine,
            threads=threads,
            head=head,
            kv=kv,
            prefill=prefill,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            runs=runs,
            progress=progress,
        )
    write_measurements(figures, as_json=as_json)
