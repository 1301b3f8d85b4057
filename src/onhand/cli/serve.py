"""`onhand serve`: bundles behind an API that OpenAI's clients speak."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli.output import say, write
from onhand.cli.settings import Settings
from onhand.core.errors import InputError
from onhand.core.units import format_bytes

if TYPE_CHECKING:
    from onhand.device.serving.caches.exact import ExactCache
    from onhand.device.serving.models.facts import Facts
    from onhand.device.serving.models.shelf import Shelf
    from onhand.device.serving.models.versions import Entry
    from onhand.device.serving.settings import CacheSettings, ServeSettings

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
_Check = Annotated[bool, typer.Option("--check", help="Only check the settings.")]


def command(
    context: typer.Context,
    names: _Names = None,
    *,
    config: _Config = None,
    port: _Port = None,
    check: _Check = False,
) -> None:
    """Serve bundles on this device: http://127.0.0.1:8321/v1 for OpenAI's clients.

    Raises:
        InputError: if there is nothing to serve.
    """
    from onhand.device.serving.settings import ModelSettings, ServeSettings, parse_settings

    settings = ServeSettings()
    if config is not None:
        environment = context.ensure_object(Settings).environment
        settings = parse_settings(_text_of(config), environment=environment, where=str(config))
    added = tuple(ModelSettings(bundle=str(name)) for name in names or ())
    settings = replace(settings, models=(*added, *settings.models))
    if port is not None:
        settings = replace(settings, server=replace(settings.server, port=port))
    if not settings.models:
        raise InputError("there is no model to serve; name a bundle's folder, or give --config")
    home = context.ensure_object(Settings).home()
    if check:
        _check(settings, home)
        return
    _serve(settings, home)


def _check(settings: "ServeSettings", home: Path) -> None:
    """Say whether the settings are valid, and what would fit."""
    with _shelf(settings, home, has_thread=False) as shelf:
        n_keys = len(settings.tenants)
        n_models, port = len(settings.models), settings.server.port
        write(f"{n_models} models, {n_keys} keys, port {port}: valid\n")
        left = shelf.total_bytes
        say(f"memory: {format_bytes(left)} for models, conversations and caches")
        for one in settings.models:
            facts = shelf.add(one).place().facts
            least = facts.least_bytes
            left -= least if one.load == "start" else 0
            verdict = "fits" if least <= shelf.total_bytes else "DOES NOT FIT, even alone"
            if one.load == "start" and left < 0 and verdict == "fits":
                verdict = "fits, but not beside those above: it waits for its first request"
                left += least
            say(
                f"{facts.name}: engine {facts.engine_name}, about "
                f"{format_bytes(facts.footprint.idle_bytes)}{_context(facts)}: {verdict}"
            )


def _context(facts: "Facts") -> str:
    if facts.is_network:
        return ""
    full = format_bytes(facts.footprint.session_bytes(facts.context))
    return f" and {full} for a conversation of {facts.context} tokens"


def _serve(settings: "ServeSettings", home: Path) -> None:
    import signal

    from onhand.device.serving.models.shelf_metrics import show_shelf
    from onhand.device.serving.models.shelved import shelved
    from onhand.device.serving.server import serve
    from onhand.device.serving.state import ServerState

    with ExitStack() as opened:
        exact = _exact_cache(settings.cache, home)
        if exact is not None:
            opened.callback(exact.close)
        shelf = opened.enter_context(_shelf(settings, home))
        entries = [shelf.add(one) for one in settings.models]
        state = ServerState([shelved(shelf, entry) for entry in entries], exact=exact)
        opened.callback(state.close)
        for entry in entries:
            _open_at_start(shelf, entry)
        if not settings.tenants:
            say("no keys are configured: every program on this device may ask")
        show_shelf(shelf, state.metrics)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            signal.signal(signal.SIGHUP, lambda *_: shelf.look_soon())
        serve(state, settings, listening=lambda url: write(f"{url}/v1\n"))


def _open_at_start(shelf: "Shelf", entry: "Entry") -> None:
    if entry.settings.load == "demand":
        say(f"{entry.name}: is opened when it is asked")
    elif shelf.fits_beside(entry) or not shelf.fits_alone(entry):
        shelf.open_now(entry)  # says so where it cannot fit
        say(f"{entry.name}: engine {entry.place().facts.engine_name}")
    else:
        say(f"{entry.name}: there is no room beside the others: it is opened when it is asked")


@contextmanager
def _shelf(settings: "ServeSettings", home: Path, *, has_thread: bool = True) -> "Iterator[Shelf]":
    from onhand.device.serving.models.shelf import Shelf

    shelf = Shelf(
        settings.shelf,
        memory_bytes=settings.server.memory_bytes,
        home=home,
        has_thread=has_thread,
    )
    try:
        if settings.cache.exact_bytes and not settings.cache.on_disk:
            shelf.set_aside(settings.cache.exact_bytes)
        yield shelf
    finally:
        shelf.close()


def _exact_cache(settings: "CacheSettings", home: Path) -> "ExactCache | None":
    from onhand.device.serving.caches.exact import ExactCache

    if not settings.exact_bytes:
        return None
    place = home / "cache" / "answers.sqlite" if settings.on_disk else None
    return ExactCache(place, most_bytes=settings.exact_bytes)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: cannot be read: {reason}") from error
