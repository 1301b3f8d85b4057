"""What the reader of an answer should know about it, as notes on stderr."""

from onhand.cli.output import say
from onhand.device.generate import Generation, TextSession

__all__ = ["note_continuation", "note_ending", "note_engines"]


def note_engines(session: TextSession) -> None:
    """Say which preferred engines were passed over, and why."""
    for engine, reason in session.passed_over.items():
        say(f"note: {session.engine_name} runs it, because {engine} cannot: {reason}")


def note_continuation(session: TextSession) -> None:
    """Say how a model that answers messages is asked, when a text is continued instead."""
    if session.takes_messages:
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
