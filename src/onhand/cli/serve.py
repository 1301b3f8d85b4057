"""`onhand serve`: bundles behind an API that OpenAI's clients speak."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.output import say, write
from onhand.cli.settings import Settings
from onhand.cli.trusted import AllowUnsigned

__all__ = ["command"]

_Names = Annotated[
    list[Path] | None, typer.Argument(metavar="NAME...", help="Folders of bundles to serve.")
]
_Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings: models, keys, limits (serve.toml).")
]
_Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")
]
_Open = Annotated[
    bool,
    typer.Option("--open", help="Ask for no key: every program on this device may ask."),
]
_Check = Annotated[bool, typer.Option("--check", help="Only check the settings.")]


def command(
    context: typer.Context,
    names: _Names = None,
    *,
    allow_unsigned: AllowUnsigned = False,
    config: _Config = None,
    port: _Port = None,
    open_to_all: _Open = False,
    check: _Check = False,
) -> None:
    """Serve bundles on this device: http://127.0.0.1:8321/v1 for OpenAI's clients.

    Raises:
        InputError: if there is nothing to serve.
    """
    from onhand.device.serving.assembling import opened_state, read_settings, with_bundles
    from onhand.device.serving.settings import ServeSettings

    asked = context.ensure_object(Settings)
    settings = ServeSettings()
    if config is not None:
        settings = read_settings(config, environment=asked.environment)
    settings = with_bundles(settings, names or ())
    if port is not None:
        settings = replace(settings, server=replace(settings.server, port=port))
    if open_to_all:
        settings = replace(settings, access=replace(settings.access, open=True))
    if check:
        from onhand.device.serving.shelving import what_fits

        for sentence in what_fits(settings, home=asked.home()):
            say(sentence)
        counts = {
            "model": len(settings.models),
            "backend": len(settings.backends),
            "key": len(settings.tenants),
        }
        words = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items())
        write(f"{words}, port {settings.server.port}: valid\n")
        return
    from onhand.device.freed_memory import use_few_heaps
    from onhand.device.serving.entrance import opened_doorkeeper
    from onhand.device.serving.journal import logging_to
    from onhand.device.serving.models.shelved import look_soon
    from onhand.device.serving.server import claimed_address, serve

    doorkeeper = opened_doorkeeper(settings, home=asked.home(), told=say)
    use_few_heaps()
    logging_to(sys.stderr, is_json=settings.log.format == "json", requests=settings.log.requests)
    with (
        claimed_address(settings) as address,
        opened_state(settings, home=asked.home(), told=say) as state,
    ):
        if hasattr(signal, "SIGHUP"):  # not on Windows
            signal.signal(signal.SIGHUP, lambda *_: look_soon(state.on_device))
        serve(state, settings, listening=_show_address, doorkeeper=doorkeeper, address=address)


def _show_address(url: str) -> None:
    say(f"a page to talk to the models and to watch them: {url}/")
    write(f"{url}/v1\n")
