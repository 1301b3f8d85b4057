"""What the reader of an answer should know about it, as notes on stderr."""

from pathlib import Path
from typing import Any, Final

import typer

from onhand.cli.learned import note_learned, version_number
from onhand.cli.output import say
from onhand.cli.progress import Lines
from onhand.core.errors import ResourceError
from onhand.device.generate import Generation, TextSession
from onhand.device.speculate import SpeculationCounts

__all__ = ["note_continuation", "note_ending", "note_engines", "opening_options"]

_OPENING: Final = frozenset({
    "variant",
    "engine",
    "threads",
    "context",
    "adapter",
    "head",
    "kv",
    "prefill",
    "speculate",
})


def opening_options(context: typer.Context) -> dict[str, Any]:
    """Return what `onhand.device.opening.open` is given, of a command's options.

    Args:
        context: of the command; options that it does not have are left out.
    """
    given = {name: value for name, value in context.params.items() if name in _OPENING}
    return given | {
        "home": _home(context),
        "progress": Lines(),
        "trials": context.params["trials"],
        "version": version_number(context.params["version"]),
    }


def _home(context: typer.Context) -> Path | None:
    """Return the state folder; None where there is none, and nothing is to be kept in it.

    Raises:
        ResourceError: if there is none, and ways are to be timed.
    """
    try:
        found: Path = context.obj.home()
    except ResourceError:
        if context.params["trials"] or context.params["version"] is not None:
            raise
        return None
    return found


def note_engines(session: TextSession, *, verbose: bool = False) -> None:
    """Say which engine was taken by a trial, or which preferred ones were passed over, and why.

    And which version answers, where it was learned on this device.

    Args:
        session: just opened.
        verbose: whether to say so of a trial of an earlier opening, too.
    """
    note_learned(session.learned)
    choice = session.choice
    if choice is not None and (verbose or choice.source == "timed"):
        say(f"note: {choice.sentence()}")
    if choice is not None and choice.source in {"timed", "remembered"}:
        for engine, reason in session.passed_over.items():
            if verbose or choice.source == "timed":
                say(f"note: {engine} is not used: {reason}")
        return
    for engine, reason in session.passed_over.items():
        say(f"note: {session.engine_name} runs it, because {engine} cannot: {reason}")


def note_continuation(session: TextSession, *, chat: bool) -> None:
    """Say how a model that answers messages is asked, when a text is continued instead."""
    if session.takes_messages and not chat:
        say("note: the text is continued; --chat gives it as a message to answer")


def note_ending(answer: Generation) -> None:
    """Say where an answer was cut, or the conversation before it was.

    Args:
        answer: read to its end.
    """
    if answer.dropped_messages:
        say(f"note: the oldest {answer.dropped_messages} messages did not fit and were left out")
    if answer.finish_reason == "length":
        say(f"note: cut after {answer.generated_tokens} tokens, as --max-tokens says")
    if answer.finish_reason == "context":
        say(f"note: cut after {answer.generated_tokens} tokens: the context is full")
    if answer.speculation is not None:
        say(_drafting(answer.speculation))


def _drafting(counts: SpeculationCounts) -> str:
    if counts.drafted == 0:
        why = "nothing to guess from" if counts.off_steps == 0 else "it would not have paid"
        return f"note: no tokens were drafted in {counts.steps} steps: {why}"
    return (
        f"note: {counts.accepted} of {counts.drafted} drafted tokens were right "
        f"({counts.acceptance:.0%}), {counts.tokens_per_step:.2f} tokens a step; nothing to guess "
        f"in {counts.idle_steps} of {counts.steps} steps, held back in {counts.off_steps}"
    )
