"""A real server on a port of this machine, around a model whose answers are known."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import uvicorn.server
from tests.device.test_generate import END, TEMPLATE, FakeLoaded, Rule, letters, mixing
from tests.device.test_opening import make_bundle

from onhand.device.access.doorkeeper import Doorkeeper
from onhand.device.access.settings import AccessSettings
from onhand.device.opening import OpenedBundle
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.server import make_server
from onhand.device.serving.settings import ModelSettings, ServeSettings
from onhand.device.serving.state import Served as ServedModel
from onhand.device.serving.state import ServerState
from onhand.device.template import ChatTemplate
from onhand.device.text_files import TextFiles

__all__ = ["Served", "client_of", "fake_model", "serving"]


class _Hurried:
    """`asyncio`, but for the tenths of a second that a server sleeps between two looks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        """Sleep no longer than a hundredth of a second."""
        await asyncio.sleep(min(seconds, 0.01))


# Each test that has a server would wait a quarter of a second for its end.
setattr(uvicorn.server, "asyncio", _Hurried())  # noqa: B010 (it is no part of its interface)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs.

    Attributes:
        url: its address.
        state: its models.
        server: what listens.
    """

    url: str
    state: ServerState
    server: uvicorn.Server


def fake_model(
    place: Path,
    rule: Rule = mixing,
    *,
    loaded: FakeLoaded | None = None,
    name: str = "toy",
    blocks: BlockStore | None = None,
    **settings: int,
) -> LocalModel:
    """A model that says what a rule says, with a tokenizer of letters."""
    opened = OpenedBundle(
        bundle=make_bundle(place / name),
        files=TextFiles(
            tokenizer=letters(), template=ChatTemplate(TEMPLATE), stop_ids=frozenset({END})
        ),
        loaded=loaded or FakeLoaded(rule),
        engine_name="fake",
        passed_over={},
    )
    given = ModelSettings(bundle=str(place / name), name=name)
    given = replace(given, **settings)  # type: ignore[arg-type] # numbers
    return LocalModel(opened, given, blocks=blocks)


@contextmanager
def serving(
    *models: ServedModel,
    settings: ServeSettings | None = None,
    state: ServerState | None = None,
    doorkeeper: Doorkeeper | None = None,
) -> Iterator[Served]:
    """Serve some models as long as the block runs; to everybody, where no key is given."""
    state = state or ServerState(models)
    settings = settings or ServeSettings()
    if not settings.tenants and doorkeeper is None:
        settings = replace(settings, access=AccessSettings(open=True))
    server = make_server(state, settings, doorkeeper)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
    )
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", state, server)
    finally:
        server.should_exit = True
        thread.join(20)
        state.close()
        listener.close()


def client_of(served: Served) -> openai.OpenAI:
    """The official client, as it comes; close it."""
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
