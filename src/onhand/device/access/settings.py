"""`[access]` and how a server listens: what must hold before it starts."""

from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError

__all__ = ["LOOPBACK", "AccessSettings", "check_listening"]

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
"""Addresses that only this device reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """`[access]`: who may ask without a key.

    Attributes:
        open: whether every program on this device may, whatever the keys; on loopback alone.
    """

    open: bool = False


def check_listening(host: str, *, certificate: str, certificate_key: str, client_ca: str) -> None:
    """Refuse what would let others than this device listen in.

    Args:
        host: address to listen at.
        certificate: file of the server's certificate; "" for none.
        certificate_key: file of its private key.
        client_ca: file of the certificates that callers' ones must be signed by.

    Raises:
        InputError: if a part is missing.
    """
    if bool(certificate) != bool(certificate_key):
        raise InputError("certificate and certificate_key belong together: give both or none")
    if client_ca and not certificate:
        raise InputError("client_ca needs certificate and certificate_key: only TLS asks callers")
    if host not in LOOPBACK and not certificate:
        raise InputError(
            f"host is {host!r}: what listens to others than this device needs TLS, by "
            f"certificate and certificate_key; without, one of {', '.join(LOOPBACK)}"
        )
