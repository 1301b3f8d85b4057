"""`onhand evaluate`: a bundle beside its original on a text."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.cli import networks
from onhand.cli.host_extra import host_extra
from onhand.cli.learned import note_as_built, version_number
from onhand.cli.measurements import write_measurements
from onhand.cli.options import (
    AsJson,
    BundleFolder,
    Engine,
    Kv,
    MeasuredVersion,
    Prefill,
    Threads,
    Variant,
)
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.cli.trusted import AllowUnsigned
from onhand.core.errors import InputError
from onhand.device.learning.in_use import LearnedVersion

__all__ = ["command"]

_OF_DECODERS = ("text", "original_adapter", "kv", "prefill", "max_tokens")
_MaxTokens = Annotated[
    int | None, typer.Option(min=2, help="Most tokens of the text, from its beginning.")
]


_OriginalAdapter = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The adapter merged into it; without it, the one recorded."),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A UTF-8 text that calibration has not seen."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of a network: examples that calibration has not seen, as for `onhand build`.",
        ),
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The original model; without it, the one recorded at build time."
        ),
    ] = None,
    original_adapter: _OriginalAdapter = None,
    variant: Variant = None,
    engine: Engine = None,
    threads: Threads = None,
    kv: Kv = None,
    prefill: Prefill = "exact",
    max_tokens: _MaxTokens = None,
    version: MeasuredVersion = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with its original on a text, or on examples."""
    if networks.is_network(name):
        _network(context)
        return
    networks.refuse_for_text(context, name, "data")
    number = version_number(version) or 0
    with host_extra("comparing with the original"), shown_progress() as progress:
        from onhand.host.evaluate import evaluate_bundle

        figures = evaluate_bundle(
            name,
            _asked(text, "--text FILE"),
            original=original,
            original_adapter=original_adapter,
            variant=variant,
            engine=engine,
            threads=threads,
            kv=kv,
            prefill=prefill,
            max_tokens=max_tokens,
            version=LearnedVersion(number, context.obj.home()) if number else None,
            home=context.obj.home(),
            progress=progress,
        )
    if not number:
        note_as_built(name, context.obj.home)
    write_measurements(figures, as_json=as_json)


def _network(context: typer.Context) -> None:
    """Compare a network that is no language model with its original."""
    networks.refuse(context, *_OF_DECODERS, why="language models")
    asked, ways = context.params, networks.ways(context)
    settings: Settings = context.obj
    data = _asked(asked["data"], "--data DIR")
    with host_extra("comparing with the original"), shown_progress() as progress:
        from onhand.host.networks.evaluate import evaluate_network

        figures = evaluate_network(
            ways.root,
            data,
            original=asked["original"],
            variant=ways.variant,
            engine=ways.engine,
            threads=ways.threads,
            version=version_number(asked["version"]) or 0,
            home=settings.home(),
            progress=progress,
        )
    if not version_number(asked["version"]):
        note_as_built(ways.root, settings.home)
    write_measurements(figures, as_json=asked["as_json"])


def _asked(given: Path | None, option: str) -> Path:
    """Return what to judge by.

    Raises:
        InputError: if it was not given.
    """
    if given is None:
        raise InputError(f"nothing to compare by: give {option}; see onhand evaluate --help")
    return given
