"""The process: listens, says where, and lets running answers end when it is told to stop."""

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from onhand.core.errors import ResourceError
from onhand.device.access.doorkeeper import Doorkeeper
from onhand.device.freed_memory import give_back_memory
from onhand.device.serving.app import make_app
from onhand.device.serving.entrance import tls_context
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState

if TYPE_CHECKING:
    import uvicorn

__all__ = ["claimed_address", "make_server", "serve"]

_TRIM_TICKS: Final = 100  # of a tenth of a second
_BACKLOG: Final = 512

_LOG = logging.getLogger("onhand.serving")


def serve(
    state: ServerState,
    settings: ServeSettings,
    *,
    listening: Callable[[str], None],
    doorkeeper: Doorkeeper | None = None,
    address: socket.socket | None = None,
) -> None:
    """Answer requests until a signal ends the process.

    The first SIGTERM or SIGINT lets no new request in, and ends when all answers that run have
    reached their readers or `drain_s` is over; the second ends at once.

    Args:
        state: the models.
        settings: where to listen, and who may call.
        listening: told the address once requests are taken.
        doorkeeper: knows the keys; None for those of the settings alone.
        address: that of the settings, claimed before the models were opened; None to claim it now.

    Raises:
        ResourceError: if the address cannot be listened at.
        InputError: if a certificate cannot be read.
    """
    server = make_server(state, settings, doorkeeper)
    listener = claimed_address(settings) if address is None else address
    try:
        listener.listen(_BACKLOG)
    except OSError as error:  # claimed, but another process was quicker to listen
        raise ResourceError(_taken(settings, error)) from error
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.server.certificate else "http"
    listening(f"{scheme}://{shown}:{port}")
    # What was loaded stays: without this every full search for garbage goes through it, for a
    # twentieth of a second in which no stream goes on.
    gc.collect()
    gc.freeze()
    with listener:
        asyncio.run(server.serve(sockets=[listener]))


def claimed_address(settings: ServeSettings) -> socket.socket:
    """Return a socket that is bound to the address of the settings, and does not listen yet.

    Models take long to open: an address that is taken is noticed before, and nobody who asks
    meanwhile is left without an answer.

    Args:
        settings: where to listen.

    Returns:
        The socket; close it.

    Raises:
        ResourceError: if the address is taken, or none of this device.
    """
    host, port = settings.server.host, settings.server.port
    is_6 = ":" in host
    listener = socket.socket(socket.AF_INET6 if is_6 else socket.AF_INET)
    try:
        if is_6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if os.name == "posix":  # elsewhere it would let two processes have one address
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ResourceError(_taken(settings, error)) from error
    # asyncio sets it only where a socket names its protocol, which those that are accepted here do
    # not; without, a small answer waits 40 ms for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _taken(settings: ServeSettings, error: OSError) -> str:
    where = f"{settings.server.host}:{settings.server.port}"
    return f"{where}: cannot be listened at: {error.strerror}; choose another port"


def make_server(
    state: ServerState, settings: ServeSettings, doorkeeper: Doorkeeper | None = None
) -> "uvicorn.Server":
    """Return a server that drains.

    Args:
        state: the models.
        settings: who may call.
        doorkeeper: knows the keys; None for those of the settings alone.

    Returns:
        What serves sockets.

    Raises:
        InputError: if a certificate cannot be read.
    """
    import uvicorn

    config = uvicorn.Config(
        make_app(state, settings, doorkeeper),
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
        loop="asyncio",
        http="h11",
        ws="none",
    )
    config.load()
    config.ssl = tls_context(settings.server)
    return _drained(state, settings)(config)


def _drained(state: ServerState, settings: ServeSettings) -> "type[uvicorn.Server]":
    import uvicorn

    class DrainedServer(uvicorn.Server):
        """A server that takes no new requests first, and closes its connections then."""

        stop_at: float | None = None

        async def startup(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self, sockets: list[socket.socket] | None = None
        ) -> None:
            """Begin to listen."""
            await state.start()
            await super().startup(sockets)

        async def shutdown(  # type: ignore[explicit-override] # likewise
            self, sockets: list[socket.socket] | None = None
        ) -> None:
            """Close all connections."""
            await super().shutdown(sockets)
            await state.stop()

        def handle_exit(  # type: ignore[explicit-override] # likewise
            self, sig: int, frame: FrameType | None
        ) -> None:
            """Begin to end; at once the second time."""
            if state.is_draining:
                super().handle_exit(sig, frame)
                self.force_exit = True
                return
            state.is_draining = True
            self.stop_at = time.monotonic() + settings.server.drain_s

        async def on_tick(  # type: ignore[explicit-override] # likewise
            self, counter: int
        ) -> bool:
            """Say whether to end; asked ten times a second."""
            if self.stop_at is not None and not self.should_exit:
                is_late = time.monotonic() >= self.stop_at
                if is_late:
                    await asyncio.to_thread(state.break_off)
                # What was computed may still be on its way to somebody who reads slowly.
                is_sent = is_late or not self.server_state.tasks
                self.should_exit = state.n_active == 0 and is_sent
            if counter % _TRIM_TICKS == _TRIM_TICKS - 1:
                # Many threads answer, each with a heap of its own, and what they free is scattered.
                await asyncio.to_thread(give_back_memory)
            return await super().on_tick(counter)

    return DrainedServer
