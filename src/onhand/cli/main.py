"""The entry point: finds the command, and turns every error into a sentence and an exit code."""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from onhand.cli.output import printable, say
from onhand.cli.settings import Settings
from onhand.cli.trusted import trust_of
from onhand.cli.unsealed import unsealing_of
from onhand.cli.usage import usage_sentence
from onhand.core.errors import (
    BudgetExceeded,
    BundleError,
    BundleUntrusted,
    EngineError,
    InputError,
    OnhandError,
    ResourceError,
    VaultError,
)

__all__ = ["COMMANDS", "EXIT_CODES", "main"]

# Each is `command` in the module of its name, imported only when it is asked for.
COMMANDS: Final = {
    "build": "Compress a model into a bundle that holds a budget, and prove it.",
    "sweep": "Build several sources, for several devices, within several budgets.",
    "join": "Make one network of several, or of one and the steps around it.",
    "distil": "Train a small network on the answers of a large one.",
    "probe": "Measure what this device has, and save it as a profile.",
    "devices": "Show the well-known devices that --device takes by name.",
    "inspect": "Show what a bundle holds and which engines can run it here.",
    "verify": "Check every file of a bundle against its manifest, and its signature.",
    "sign": "Vouch for a bundle with a key.",
    "seal": "Encrypt a bundle for the devices that may open it.",
    "trust": "Show and change the keys whose bundles this device takes.",
    "report": "Show the evidence that was measured for a bundle.",
    "chat": "Talk with a bundle's model.",
    "run": "Answer one prompt.",
    "serve": "Serve bundles to OpenAI's clients, on this device.",
    "audit": "Check what was recorded of requests, show it, or export it.",
    "keys": "Make, list and take back the keys of who may ask a server.",
    "versions": "List what this device has learned of a bundle.",
    "rollback": "Use an earlier version of what was learned.",
    "feedback": "Show what users taught, and what waits in quarantine.",
    "learn": "Teach a bundle on this device, without forgetting what it can do.",
    "meta": "Find starting values from which few examples of a new class are enough.",
    "bench": "Measure a bundle's speed, memory and energy, here or on a board.",
    "evaluate": "Compare a bundle with its original on a text.",
    "export": "Write a bundle in the format of another runtime.",
    "vault": "Keys of what lies on this device's disk: make, show, rotate, erase.",
    "merge": "Merge what was learned, or an adapter, into a new bundle.",
}
# The first class that matches an error decides.
EXIT_CODES: Final = {
    BundleUntrusted: 7,
    InputError: 2,
    BundleError: 3,
    BudgetExceeded: 4,
    EngineError: 5,
    ResourceError: 6,
    VaultError: 8,
    OnhandError: 1,
}
_USAGE, _MEMORY, _INTERRUPTED, _BROKEN_PIPE = 2, 6, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the arguments; None for the process's own.

    Returns:
        The exit code.
    """
    if argv is None and sys.argv[1:2] == ["serve"]:
        _start_again_for_long()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    name = next((word for word in arguments[:1] if word in COMMANDS), None)
    called = f"onhand {name}" if name else "onhand"
    is_debugging = os.environ.get("ONHAND_DEBUG", "") not in {"", "0"}
    home = os.environ.get("ONHAND_HOME")
    settings = Settings(Path(home).expanduser() if home else None, environment=dict(os.environ))
    _accept_any_text()
    try:
        with trust_of(settings, name), unsealing_of(settings):
            code = _run(arguments, settings, name)
        sys.stdout.flush()
        return code
    # Help is drawn by rich, which ends the program itself where its reader is gone.
    except (BrokenPipeError, SystemExit):
        _drop_output()
        return _BROKEN_PIPE
    except (OnhandError, typer.TyperException, MemoryError, KeyboardInterrupt) as error:
        if is_debugging:
            traceback.print_exc()
        sentence, code = _explained(error, called)
        say(f"{called}: {sentence}")
        return code


def _start_again_for_long() -> None:
    """Become the same process with the settings that memory needs to stay level for months."""
    from onhand.device.freed_memory import without_thread_caches

    environment = without_thread_caches(os.environ)
    if environment is not None and sys.executable:
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 (this very program)


def _run(arguments: list[str], settings: Settings, name: str | None) -> int:
    command = typer.main.get_command(_app(name))
    try:
        with command.make_context("onhand", arguments, obj=settings) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _app(name: str | None) -> typer.Typer:
    """Return the application with one real command; the others are names and summaries."""
    app = typer.Typer(
        add_completion=False,
        callback=_options,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Put a large model on the device in the user's hand, prove that it fits, "
        "and talk to it.",
    )
    for other, summary in COMMANDS.items():
        app.command(other, help=summary)(_command(other) if other == name else _nothing)
    return app


def _command(name: str) -> Callable[..., None]:
    command: Callable[..., None] = importlib.import_module(f"onhand.cli.{name}").command
    return command


def _nothing() -> None:
    """Stand for a command that was not asked for."""


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        sys.stdout.write(f"onhand {version('onhand')}\n")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Stand for what is said before a command."""


def _explained(error: BaseException, called: str) -> tuple[str, int]:
    """Return the sentence and the exit code of an error."""
    if isinstance(error, typer.TyperException):
        return usage_sentence(error.format_message(), command=called), _USAGE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", _INTERRUPTED
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs or choose a smaller setting", _MEMORY
    code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    return " ".join(printable(str(error)).split()), code


def _accept_any_text() -> None:
    # A terminal without UTF-8, or a file name that is none, must not end the program.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that nothing complains when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
