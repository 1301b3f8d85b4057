"""`onhand chat`: a conversation on the terminal, or line by line through a pipe."""

import re
from dataclasses import dataclass, field
from typing import Annotated

import typer

from onhand.cli import options as given
from onhand.cli.answers import note_ending, note_engines, opening_options
from onhand.cli.output import say, write
from onhand.cli.trusted import AllowUnsigned
from onhand.cli.typed import is_interactive, typed_lines
from onhand.core.errors import ContextOverflow, InputError
from onhand.device.generate import TextSession
from onhand.device.prompts import Overflow
from onhand.device.sampling import Sampling
from onhand.device.template import Message

__all__ = ["command"]

_USUAL = Sampling()
_COMMAND = re.compile(r"/[a-z]+")
_HELP = """/help   this list
/reset  forget the conversation
/exit   end the program, as Ctrl-D does
Ctrl-C  stop the answer"""

_System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Instructions before the conversation.")
]
_Context = Annotated[
    int | None,
    typer.Option(min=1, help="Most tokens of the conversation; without it, the model's own."),
]
_AtTheEnd = Annotated[
    Overflow, typer.Option(help="What to do when the conversation does not fit any more.")
]


def command(
    called: typer.Context,
    name: given.BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    system: _System = None,
    context: _Context = None,
    overflow: _AtTheEnd = "error",
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
) -> None:
    """Talk with a bundle's model; through a pipe, every line is one turn. /help lists more."""
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    from onhand.device.opening import open as open_session

    with open_session(name, **opening_options(called)) as session:
        note_engines(session, verbose=verbose)
        _talk(
            _Conversation(
                session=session,
                system=() if system is None else (Message("system", system),),
                max_tokens=max_tokens,
                sampling=sampling,
                stop=tuple(stop or ()),
                overflow=overflow,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    """What was said, and how answers are made. One thread at a time."""

    session: TextSession
    system: tuple[Message, ...]
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    overflow: Overflow
    turns: list[Message] = field(default_factory=list)

    def answer(self, text: str) -> None:
        """Stream the answer to one turn; Ctrl-C stops it, and what was said so far stays.

        Raises:
            ContextOverflow: if the conversation does not fit; the turn is forgotten then.
        """
        question = Message("user", text)
        pieces: list[str] = []
        answer = None
        try:
            answer = self.session.generate(
                [*self.system, *self.turns, question],
                max_tokens=self.max_tokens,
                sampling=self.sampling,
                stop=self.stop,
                overflow=self.overflow,
            )
            for piece in answer:
                pieces.append(piece)
                write(piece)
        except KeyboardInterrupt:
            if answer is not None:
                answer.close()
            write("\n")
            say("note: stopped")
            if not pieces:
                return
        else:
            write("\n")
            note_ending(answer)
        self.turns.extend((question, Message("assistant", "".join(pieces))))


def _talk(conversation: _Conversation) -> None:
    if is_interactive():
        say(f"{_HELP}\n")
    for line in typed_lines():
        text = line.strip()
        if text == "/exit":
            return
        if text == "/help":
            say(_HELP)
        elif text == "/reset":
            conversation.turns.clear()
            say("note: the conversation is forgotten")
        elif _COMMAND.fullmatch(text):
            _refuse(f"unknown command {text!r}; /help lists what there is")
        elif text:
            _answer(conversation, text)


def _answer(conversation: _Conversation, text: str) -> None:
    try:
        conversation.answer(text)
    except ContextOverflow as error:
        advice = "/reset starts over, --overflow drop-oldest leaves out the oldest turns"
        if not is_interactive():
            raise
        say(f"onhand chat: {error} ({advice})")


def _refuse(sentence: str) -> None:
    """Tell a person what is wrong, and end a program's input.

    Raises:
        InputError: if no person types.
    """
    if not is_interactive():
        raise InputError(sentence)
    say(f"onhand chat: {sentence}")
