"""Others than this device are heard over TLS 1.3 alone, and peers show who they are."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.backends.asking import ASK, collect, text_of
from tests.device.serving.backends.test_tls import OPENSSL, certificate
from tests.device.serving.served import Served, fake_model, serving
from tests.device.test_generate import saying

from onhand.core.errors import InputError
from onhand.device.access.scopes import ROLES, Grant
from onhand.device.access.store import KeyStore
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.backends.settings import BackendSettings, Secret
from onhand.device.serving.entrance import doorkeeper_of, tls_context
from onhand.device.serving.settings import NetworkSettings, ServeSettings

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@dataclass(frozen=True, slots=True)
class Secured:
    """A server over TLS.

    Attributes:
        served: the server.
        place: a folder with its certificate, and in `peer` a peer's.
        token: of a peer's key.
    """

    served: Served
    place: Path
    token: str

    @property
    def url(self) -> str:
        """Its address."""
        return self.served.url.replace("http:", "https:")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.served.url.rpartition(":")[2])


def secured(place: Path, *, asks_peers: bool) -> Iterator[Secured]:
    """Serve over TLS, as long as a test runs."""
    shown, secret = certificate(place)
    (place / "peer").mkdir()
    peer, _ = certificate(place / "peer")
    network = NetworkSettings(
        certificate=str(shown),
        certificate_key=str(secret),
        client_ca=str(peer) if asks_peers else "",
    )
    settings, store = ServeSettings(server=network), KeyStore(place / "home")
    grant = Grant(actions=frozenset(ROLES["peer"]))
    token = store.add("peer", grant, now_s=1)[1].text()
    door = doorkeeper_of(settings, store)
    with serving(fake_model(place, saying("on")), settings=settings, doorkeeper=door) as served:
        yield Secured(served, place, token)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Secured]:
    """A server that asks for no certificate."""
    yield from secured(tmp_path, asks_peers=False)


@pytest.fixture
def mutual(tmp_path: Path) -> Iterator[Secured]:
    """A server that hears those alone whose certificate it knows."""
    yield from secured(tmp_path, asks_peers=True)


def trusting(found: Secured) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=found.place / "shown.pem")


def spoken(found: Secured, context: ssl.SSLContext) -> str | None:
    """The version that both sides agree on."""
    with (
        socket.create_connection(("127.0.0.1", found.port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
    ):
        return wrapped.version()


def asked(found: Secured, *, peer: Path | None = None) -> str:
    """What a peer's backend is answered."""
    settings = BackendSettings(
        name="toy", kind="peer", url=f"{found.url}/v1", ca=str(found.place / "shown.pem")
    )
    if peer is not None:
        shown, secret = str(peer / "shown.pem"), str(peer / "secret.pem")
        settings = replace(settings, certificate=shown, certificate_key=secret)
    return text_of(asyncio.run(collect(RemoteBackend(settings, key=Secret(found.token)), ASK)))


def test_a_server_with_a_certificate_answers_over_tls_13(plain: Secured) -> None:
    """And a key is asked for all the same."""
    with httpx2.Client(base_url=plain.url, verify=trusting(plain)) as client:
        head = {"authorization": f"Bearer {plain.token}"}
        assert client.get("/health").status_code == 401
        assert client.get("/health", headers=head).status_code == 200


def test_attack_older_tls(plain: Secured) -> None:
    """1.2 is not spoken; 1.3 is, by the same caller."""
    context = trusting(plain)
    assert spoken(plain, context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        spoken(plain, context)


def test_attack_plain_http(plain: Secured) -> None:
    """Nothing is answered to it, the key's owner included."""
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{plain.served.url}/health")


def test_a_peer_with_its_certificate_is_heard(mutual: Secured) -> None:
    """Both sides show who they are."""
    assert asked(mutual, peer=mutual.place / "peer") == "on"


def test_attack_peer_without_a_certificate(mutual: Secured) -> None:
    """Or with one that the server does not know: not even its key is looked at."""
    client = httpx2.Client(base_url=mutual.url, verify=trusting(mutual))
    with client, pytest.raises((httpx2.HTTPError, ssl.SSLError)):
        client.get("/health", headers={"authorization": f"Bearer {mutual.token}"})


def test_attack_peer_without_a_certificate_is_heard_where_none_is_asked(plain: Secured) -> None:
    """So that it is the certificate that held it back."""
    assert asked(plain) == "on"


def test_files_that_hold_no_certificate_are_said(tmp_path: Path) -> None:
    """Before anything listens."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        file = str(tmp_path / name)
        with pytest.raises(InputError, match="that can be read"):
            tls_context(NetworkSettings(certificate=file, certificate_key=file))
    with pytest.raises(InputError, match="belong together"):
        NetworkSettings(certificate="a.pem")
    with pytest.raises(InputError, match="needs certificate"):
        NetworkSettings(client_ca="a.pem")
