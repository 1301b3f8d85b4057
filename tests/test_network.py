"""No test reaches beyond this machine."""

import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 443), ("2001:db8::1", 80)])
def test_a_connection_outwards_fails_at_once(address: tuple[str, int]) -> None:
    """Addresses and names beyond this machine are refused before anything is sent."""
    with pytest.raises(RuntimeError, match="may not use the network"):
        socket.create_connection(address, timeout=5)

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as plain:
        with pytest.raises(RuntimeError, match="may not use the network"):
            plain.connect(address)
        with pytest.raises(RuntimeError, match="may not use the network"):
            plain.connect_ex(address)


def test_this_machine_can_be_reached() -> None:
    """A test may start a server and talk to it, by address or by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, port), timeout=5).close()
        with socket.socket() as plain:
            assert plain.connect_ex(("127.0.0.1", port)) == 0


def test_sockets_without_an_address_still_work() -> None:
    """A pair of sockets, as event loops use, is no network."""
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"here")

        assert right.recv(4) == b"here"
