"""`onhand bench`: speed, memory and energy on this device."""

from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli import networks, on_board
from onhand.cli.learned import note_as_built, version_number
from onhand.cli.measurements import write_measurements
from onhand.cli.options import (
    AsJson,
    BundleFolder,
    Engine,
    Head,
    Kv,
    MeasuredVersion,
    Prefill,
    Threads,
    Trials,
    Variant,
)
from onhand.cli.progress import shown_progress
from onhand.cli.trusted import AllowUnsigned
from onhand.core.errors import InputError
from onhand.device.bench import GENERATED_TOKENS, PROMPT_TOKENS, bench
from onhand.device.learning.in_use import LearnedVersion

__all__ = ["command"]

if TYPE_CHECKING:
    from onhand.host.target.measuring import BoardWays

_OF_DECODERS = ("trials", "head", "kv", "prefill", "prompt_tokens", "generated_tokens")


_PromptTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of the prompt.", show_default=str(PROMPT_TOKENS))
]
_GeneratedTokens = Annotated[
    int | None,
    typer.Option(min=2, help="Tokens of the answer.", show_default=str(GENERATED_TOKENS)),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    variant: Variant = None,
    engine: Engine = None,
    threads: Threads = None,
    trials: Trials = True,
    head: Head = "full",
    kv: Kv = None,
    prefill: Prefill = "exact",
    prompt_tokens: _PromptTokens = None,
    generated_tokens: _GeneratedTokens = None,
    version: MeasuredVersion = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 5,
    on: on_board.On = None,
    identity: on_board.Identity = None,
    ssh_config: on_board.SshConfig = None,
    python: on_board.Python = None,
    wheels: on_board.Wheels = None,
    keep: on_board.Keep = False,
    timeout: on_board.Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle's speed, memory and energy, on this device or on a board."""
    board = on_board.ways(context)
    if board is not None:
        _bench_on(context, board, as_json=as_json)
        return
    number = version_number(version) or 0
    if not number:
        note_as_built(name, context.obj.home)
    if networks.is_network(name):
        networks.refuse(context, *_OF_DECODERS, why="language models")
        home = context.obj.home()
        networks.bench(networks.ways(context), runs, version=number, home=home, as_json=as_json)
        return
    with shown_progress() as progress:
        figures = bench(
            name,
            variant=variant,
            engine=engine,
            threads=threads,
            head=head,
            kv=kv,
            prefill=prefill,
            prompt_tokens=PROMPT_TOKENS if prompt_tokens is None else prompt_tokens,
            generated_tokens=GENERATED_TOKENS if generated_tokens is None else generated_tokens,
            runs=runs,
            home=context.obj.home() if trials else None,
            version=LearnedVersion(number, context.obj.home()) if number else None,
            progress=progress,
        )
    write_measurements(figures, as_json=as_json)


def _bench_on(context: typer.Context, board: "BoardWays", *, as_json: bool) -> None:
    """Measure on a board.

    Raises:
        InputError: if a version of this device is asked for.
    """
    if context.params["version"] is not None:
        raise InputError("--version is of this device: a board has learned others; leave it out")
    from onhand.host.target.measuring import bench_on

    words = on_board.given(context, "variant", "engine", "threads", "runs", *_OF_DECODERS)
    with shown_progress() as progress:
        made = bench_on(context.params["name"], board, options=words, progress=progress)
    write_measurements(made.figures, as_json=as_json)
