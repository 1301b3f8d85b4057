"""Lines that a person types, or that come through a pipe."""

import contextlib
import sys
from collections.abc import Iterator

from onhand.cli.output import say
from onhand.core.errors import InputError

__all__ = ["is_interactive", "typed_lines"]

PROMPT = "> "


def is_interactive() -> bool:
    """Say whether a person types and reads."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def typed_lines() -> Iterator[str]:
    """Read lines until the input ends.

    Ctrl-C at the prompt empties the line; twice in a row it ends the program.

    Yields:
        The lines, without their ends.

    Raises:
        InputError: if a line is not text.
        KeyboardInterrupt: at the second Ctrl-C.
    """
    if not is_interactive():
        yield from _piped_lines()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives `input` a history and editing)
    was_interrupted = False
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            say("")
            if was_interrupted:
                raise
            was_interrupted = True
            say("note: Ctrl-C again, Ctrl-D or /exit ends the program")
            continue
        was_interrupted = False
        yield line


def _piped_lines() -> Iterator[str]:
    number = 1
    try:
        while line := sys.stdin.readline():
            yield line.rstrip("\r\n")
            number += 1
    except UnicodeDecodeError as error:
        raise InputError(f"stdin: line {number} or one after it is not text: {error}") from error
