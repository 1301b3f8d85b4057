"""Options of commands that measure on a board instead of here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli import networks

if TYPE_CHECKING:
    from onhand.host.target.measuring import BoardWays

__all__ = ["Identity", "Keep", "On", "Python", "SshConfig", "Timeout", "Wheels", "given", "ways"]

_PANEL = "On a board"
_OPTIONS = ("identity", "ssh_config", "python", "wheels", "keep", "timeout")

On = Annotated[
    str | None,
    typer.Option(
        metavar="ssh://USER@BOARD",
        help="Measure there, over SSH: the runtime and the bundle are copied.",
        rich_help_panel=_PANEL,
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The private key; without it, OpenSSH's.", rich_help_panel=_PANEL
    ),
]
SshConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A configuration of OpenSSH; without it, the user's.",
        rich_help_panel=_PANEL,
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A Python there that has this onhand; without it, it is installed.",
        rich_help_panel=_PANEL,
    ),
]
Wheels = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Packages to copy along, for a board without an index.",
        rich_help_panel=_PANEL,
    ),
]
Keep = Annotated[
    bool,
    typer.Option("--keep", help="Leave all there for the next time.", rich_help_panel=_PANEL),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Most time for all of it.",
        show_default="3600",
        rich_help_panel=_PANEL,
    ),
]


def ways(context: typer.Context) -> "BoardWays | None":
    """Return the board that a command's options name, or None where it is to run here.

    Raises:
        InputError: if the address is none, or an option for boards is given without one.
    """
    asked = context.params
    if asked["on"] is None:
        networks.refuse(context, *_OPTIONS, why="a board, and --on names none")
        return None
    from onhand.host.target.address import parse_address
    from onhand.host.target.measuring import LIMIT_S, BoardWays

    return BoardWays(
        address=parse_address(asked["on"]),
        identity=asked["identity"],
        config=asked["ssh_config"],
        python=asked["python"],
        wheels=asked["wheels"],
        is_kept=asked["keep"],
        limit_s=LIMIT_S if asked["timeout"] is None else asked["timeout"],
    )


def given(context: typer.Context, *names: str) -> list[str]:
    """Return the options that were given, as on a command line.

    Args:
        context: of the command.
        names: of its parameters, each with one value.

    Returns:
        The words.
    """
    words: list[str] = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name != "DEFAULT":
            words += [parameter.opts[0], str(context.params[parameter.name])]
    return words
