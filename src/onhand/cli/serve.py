"""`onhand serve`: bundles behind an API that OpenAI's clients speak."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli.output import say, write
from onhand.cli.settings import Settings
from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.device.serving.caches.exact import ExactCache
    from onhand.device.serving.settings import CacheSettings

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
    from onhand.device.serving.caches.block_figures import open_blocks
    from onhand.device.serving.models.opening import open_served
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
    if check:
        n_keys = len(settings.tenants)
        write(f"{len(settings.models)} models, {n_keys} keys, port {settings.server.port}: valid\n")
        return
    from onhand.device.serving.server import serve
    from onhand.device.serving.state import ServerState

    home = context.ensure_object(Settings).home()
    with ExitStack() as opened:
        blocks = open_blocks(settings.cache, home)
        if blocks is not None:
            opened.callback(blocks.close)
        models = []
        for one in settings.models:
            models.append(open_served(one, home=home, blocks=blocks))
            opened.callback(models[-1].close)
            say(f"{models[-1].name}: engine {models[-1].engine_name}")
        if not settings.tenants:
            say("no keys are configured: every program on this device may ask")
        exact = _exact_cache(settings.cache, home)
        state = ServerState(models, exact=exact, blocks=blocks)
        opened.callback(state.close)
        serve(state, settings, listening=lambda url: write(f"{url}/v1\n"))


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
