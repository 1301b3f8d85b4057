"""Fixtures for every test: no network, a state folder of its own, the real data where it is."""

import os
import signal
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from onhand.device.networks import timing

ROOT = Path(__file__).parents[1]

# Most tests open bundles that nobody signed; those of signatures say otherwise.
os.environ.setdefault("ONHAND_TRUST", "any")

settings.register_profile("onhand", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("onhand")


def _is_loopback(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if text in {None, "", "localhost"}:
        return True
    try:
        return ip_address(str(text)).is_loopback
    except ValueError:  # a name: it would have to be looked up
        return False


def pytest_configure() -> None:
    """Let Ctrl-C be heard: a shell that starts the tests in the background has it ignored.

    Programs that tests start, and interrupt, would inherit that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: at the end of a run the quick ones fill every worker."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails at once, not after a timeout."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    lookup = socket.getaddrinfo

    def check(family: int, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(host):
            raise RuntimeError(f"tests may not use the network: {address!r}")

    def local_connect(self: socket.socket, address: Any) -> None:
        check(self.family, address)
        connect(self, address)

    def local_connect_ex(self: socket.socket, address: Any) -> int:
        check(self.family, address)
        return connect_ex(self, address)

    def local_lookup(host: Any, *args: Any, **kwargs: Any) -> object:
        check(socket.AF_INET, host)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", local_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", local_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", local_lookup)


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of a wider scope write into the state folder goes to a temporary one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONHAND_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cares whether engines are timed after a rest; its own asks for one."""
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of this test alone; it does not exist yet."""
    place = tmp_path / "onhand-home"
    monkeypatch.setenv("ONHAND_HOME", str(place))
    return place


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and data; a test that needs it is skipped where it is not."""
    place = Path(os.environ.get("ONHAND_ASSETS", ROOT.parent / "shared" / "assets"))
    if not place.is_dir():
        pytest.skip(f"no real models and data at {place}: set ONHAND_ASSETS to their folder")
    return place


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20240607)
