"""The keys of an audit log: one secret, and what is derived of it for each purpose."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from onhand.core.errors import InputError
from onhand.device.serving.secret import derived, kept_secret, read_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["AuditKeys", "KeyStore", "audit_keys", "known_audit_keys"]

_STORE = "audit"


class KeyStore(Protocol):
    """What gives a key for each store by its name, as a vault does."""

    def key(self, store: str) -> bytes:
        """Return 32 bytes."""
        ...


@dataclass(frozen=True)
class AuditKeys:
    """What is derived of a log's secret. May be shared between threads.

    Attributes:
        secret: 32 bytes.
        source: where it lies, for people.
    """

    secret: bytes
    source: str

    @cached_property
    def code(self) -> bytes:
        """Key of the records' codes, 32 bytes."""
        return derived(self.secret, "codes of audit records")

    @cached_property
    def body(self) -> bytes:
        """Key that bodies are sealed with, 32 bytes."""
        return derived(self.secret, "bodies of audit records")

    @cached_property
    def signer(self) -> "Ed25519PrivateKey":
        """What signs heads."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        seed = derived(self.secret, "heads of audit logs")
        return Ed25519PrivateKey.from_private_bytes(seed)

    @cached_property
    def public(self) -> bytes:
        """What checks the signatures of heads: 32 bytes that anybody may have."""
        return self.signer.public_key().public_bytes_raw()


def audit_keys(home: Path, vault: KeyStore | None = None) -> AuditKeys:
    """Return the keys to write with.

    Args:
        home: the state folder.
        vault: where the secret lies; None for a file that is its owner's alone, made from the
            system's randomness the first time.

    Returns:
        The keys.

    Raises:
        InputError: if the file is not one of ours, or others may read it.
        ResourceError: if it cannot be made or read.
    """
    if vault is not None:
        return AuditKeys(vault.key(_STORE), "the vault")
    path = _path(home)
    return AuditKeys(kept_secret(path), str(path))


def known_audit_keys(home: Path, vault: KeyStore | None = None) -> AuditKeys:
    """Return the keys to check with; a file that is not there is not made.

    Args:
        home: as in `audit_keys`.
        vault: likewise.

    Returns:
        The keys.

    Raises:
        InputError: if there is no such file, it is not one of ours, or others may read it.
    """
    if vault is not None:
        return AuditKeys(vault.key(_STORE), "the vault")
    path = _path(home)
    try:
        return AuditKeys(read_secret(path), str(path))
    except OSError as error:
        raise InputError(
            f"{path}: the key of the audit log cannot be read: {error.strerror}; without it "
            f"nobody can say whether records were changed"
        ) from error


def _path(home: Path) -> Path:
    return home / "keys" / "audit.key"
