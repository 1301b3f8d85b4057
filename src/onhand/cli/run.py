"""`onhand run`: one prompt, one answer."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from onhand.cli import networks
from onhand.cli import options as given
from onhand.cli.answers import note_continuation, note_ending, note_engines, opening_options
from onhand.cli.learned import version_number
from onhand.cli.output import write, write_json
from onhand.cli.trusted import AllowUnsigned
from onhand.core.errors import InputError
from onhand.device.generate import Generation, TextSession
from onhand.device.sampling import Sampling
from onhand.device.template import Message

__all__ = ["command"]

_USUAL = Sampling()

_Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt; without it, stdin.")]
_PromptFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A UTF-8 file with the prompt.")
]
_Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        metavar="FILE",
        help="Of a network: a picture, a sound, or .npz; may be given several times.",
    ),
]
_Top = Annotated[int, typer.Option(min=1, help="Of a network: classes to show.")]


_OF_DECODERS = (
    "adapter",
    "chat",
    "head",
    "kv",
    "prefill",
    "speculate",
    "trials",
    "verbose",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
)


def command(
    context: typer.Context,
    name: given.BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    input_files: _Inputs = None,
    top: _Top = 5,
    prompt: _Prompt = None,
    prompt_file: _PromptFile = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a user's message, not text to continue.")
    ] = False,
    variant: given.Variant = None,
    engine: given.Engine = None,
    threads: given.Threads = None,
    trials: given.Trials = True,
    adapter: given.Adapter = None,
    head: given.Head = "full",
    kv: given.Kv = None,
    prefill: given.Prefill = "exact",
    speculate: given.Speculate = None,
    version: given.Version = None,
    max_tokens: given.MaxTokens = None,
    temperature: given.Temperature = _USUAL.temperature,
    top_k: given.TopK = _USUAL.top_k,
    top_p: given.TopP = _USUAL.top_p,
    min_p: given.MinP = _USUAL.min_p,
    repetition_penalty: given.RepetitionPenalty = _USUAL.repetition_penalty,
    seed: given.Seed = None,
    stop: given.Stop = None,
    verbose: given.Verbose = False,
    as_json: given.AsJson = False,
) -> None:
    """Answer one prompt; or, of another network, pictures, sounds or texts."""
    if networks.is_network(name):
        _network(context)
        return
    networks.refuse_for_text(context, name, "input_files", "top")
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    text = _prompt(prompt, prompt_file)
    from onhand.device.opening import open as open_session

    with open_session(name, **opening_options(context)) as session:
        note_engines(session, verbose=verbose)
        note_continuation(session, chat=chat)
        asked = [Message("user", text)] if chat else text
        _answer(session, asked, max_tokens, sampling, tuple(stop or ()), as_json=as_json)


def _answer(
    session: TextSession,
    asked: str | list[Message],
    max_tokens: int | None,
    sampling: Sampling,
    stop: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    begun = time.perf_counter()
    answer = session.generate(asked, max_tokens=max_tokens, sampling=sampling, stop=stop)
    if as_json:
        _write_object(answer, begun, session.engine_name)
    else:
        _stream(answer)


def _network(context: typer.Context) -> None:
    """Answer examples by a network that is no language model."""
    networks.refuse(context, *_OF_DECODERS, why="language models")
    asked = context.params
    if networks.finds_boxes(asked["name"]):
        networks.refuse(context, "top", why="networks that name classes")
    prompt, path = asked["prompt"], asked["prompt_file"]
    texts = [] if prompt is None and path is None else [_prompt(prompt, path)]
    networks.run(
        networks.ways(context),
        asked["input_files"] or [],
        texts,
        asked["top"],
        version=version_number(asked["version"]),
        home=context.obj.home(),
        as_json=asked["as_json"],
    )


def _stream(answer: Generation) -> None:
    try:
        for piece in answer:
            write(piece)
    finally:
        # What breaks an answer off is told on a line of its own.
        write("\n")
    note_ending(answer)


def _write_object(answer: Generation, begun: float, engine_name: str) -> None:
    text = "".join(answer)
    speculation = answer.speculation
    write_json({
        **({} if speculation is None else {"speculation": speculation.to_json()}),
        "engine": engine_name,
        "finish_reason": answer.finish_reason,
        "generated_tokens": answer.generated_tokens,
        "prompt_tokens": answer.prompt_tokens,
        "seconds": time.perf_counter() - begun,
        "text": text,
    })


def _prompt(prompt: str | None, path: Path | None) -> str:
    """Return the prompt; one line end at the end of a file or of stdin is not part of it.

    Raises:
        InputError: if there is none, two, or one that cannot be read.
    """
    if prompt is not None and path is not None:
        raise InputError("--prompt and --prompt-file are both given; give one of the two")
    if prompt is not None:
        return prompt
    if path is None and sys.stdin.isatty():
        raise InputError("no prompt: give --prompt TEXT or --prompt-file FILE, or pipe a text in")
    try:
        text = sys.stdin.read() if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompt {path or 'on stdin'} cannot be read: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")
