"""The address of a server: claimed before its models open, listened at when they have."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onhand.core.errors import ResourceError
from onhand.device.serving.server import claimed_address
from onhand.device.serving.settings import NetworkSettings, ServeSettings


def settings(port: int, host: str = "127.0.0.1") -> ServeSettings:
    """Those of a server at an address."""
    return ServeSettings(server=replace(NetworkSettings(), host=host, port=port))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_claimed_address_takes_no_connection_yet(host: str) -> None:
    """Who asks while models open is told at once that nobody is there."""
    try:
        address = claimed_address(settings(0, host))
    except ResourceError as error:
        pytest.skip(f"no such address here: {error}")
    with address:
        where = address.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, timeout=5)
        address.listen(1)
        socket.create_connection(where, timeout=5).close()


def test_a_taken_address_is_refused_with_what_to_do() -> None:
    """Another process listens there."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=rf":{port}: cannot be listened at: .* another"):
            claimed_address(settings(port))


def test_a_taken_address_is_noticed_before_models_open(tmp_path: Path) -> None:
    """The bundle is cut short, which only opening it shows: the address is named instead."""
    bundle = tmp_path / "cut"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-m", "onhand", "serve", str(bundle), "--port", port],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ONHAND_HOME": str(tmp_path / "home")},
        )

    assert run.returncode != 0
    assert f"127.0.0.1:{port}: cannot be listened at" in run.stderr
    assert "manifest" not in run.stderr
