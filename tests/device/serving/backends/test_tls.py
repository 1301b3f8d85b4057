"""Over TLS a server must show a certificate of somebody who is trusted, whatever it says."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.device.serving.backends.asking import ASK, KEY, collect, text_of
from tests.device.serving.backends.upstream import events, says, upstream

from onhand.core.errors import InputError
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.backends.settings import BackendSettings, Secret
from onhand.device.serving.refusals import BackendFailed

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


def certificate(place: Path, *, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate that signed itself, and its key."""
    shown, secret = place / "shown.pem", place / "secret.pem"
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=a test"),
            *("-addext", f"subjectAltName=IP:{host}"),
            *("-keyout", str(secret), "-out", str(shown)),
        ],
        check=True,
        capture_output=True,
    )
    return shown, secret


def asked(place: Path, *, ca: str, host: str = "127.0.0.1") -> str:
    """What a server with such a certificate answers."""
    shown, secret = certificate(place, host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, secret)
    with upstream(says(*events("fine")), context=context) as server:
        settings = BackendSettings(name="far", url=server.url, ca=ca and str(place / ca))
        found = asyncio.run(collect(RemoteBackend(settings, key=Secret(KEY)), ASK))
        assert server.requests
    return text_of(found)


def test_a_certificate_of_ones_own_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    """By its file."""
    assert asked(tmp_path, ca="shown.pem") == "fine"


@pytest.mark.parametrize(("ca", "host"), [("", "127.0.0.1"), ("shown.pem", "127.0.0.2")])
def test_attack_another_certificate(tmp_path: Path, ca: str, host: str) -> None:
    """One that nobody trusts, or of another host: nothing is sent, the key least of all."""
    with pytest.raises(BackendFailed, match="cannot be reached"):
        asked(tmp_path, ca=ca, host=host)


def test_a_file_without_certificates_is_said(tmp_path: Path) -> None:
    """When the settings are taken in, not at the first request."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        settings = BackendSettings(name="far", url="https://localhost", ca=str(tmp_path / name))
        with pytest.raises(InputError, match=r"backend 'far': ca .*no certificate"):
            RemoteBackend(settings)
