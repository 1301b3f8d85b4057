"""Results on stdout: one JSON object for programs, or lines and tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from onhand.core.errors import EngineError

__all__ = ["counted", "is_terminal", "printable", "say", "write", "write_json", "write_table"]

# C0 but for tab and line feed, DEL, and C1: a terminal would obey them.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
del _CONTROLS[ord("\t")], _CONTROLS[ord("\n")]
_ANY_WIDTH = 1000


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey: control characters are escaped."""
    return text.translate(_CONTROLS)


def counted(n: int, things: str) -> str:
    """Return a number of things: "1 step", "2 steps"."""
    return f"{n} {things.removesuffix('s') if n == 1 else things}"


def is_terminal() -> bool:
    """Say whether a person reads stdout."""
    return sys.stdout.isatty()


def say(line: str) -> None:
    """Write one line for people on stderr."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Write a part of the result on stdout at once, escaped where a terminal shows it."""
    sys.stdout.write(printable(text) if is_terminal() else text)
    sys.stdout.flush()


def write_json(value: Mapping[str, object]) -> None:
    """Write the whole result as one JSON object.

    Args:
        value: what JSON can hold.

    Raises:
        EngineError: if a figure in it is NaN or infinite, which is no JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise EngineError(f"the result cannot be written as JSON: {error}") from error
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Write a table, as wide as it needs where no terminal limits it.

    Args:
        headings: one for each column.
        rows: one text for each column.
        title: a line above it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if is_terminal() else _ANY_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, title=title and Text(printable(title)), title_justify="left")
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Rich would end the program itself where the reader of stdout is gone.
    with console.capture() as drawn:
        console.print(table)
    sys.stdout.write(drawn.get())
    sys.stdout.flush()
