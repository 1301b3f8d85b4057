"""The keys of an audit log: one secret, and what is derived of it for each purpose."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from onhand.core.errors import InputError
from onhand.device.serving.secret import derived, kept_secret, read_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "FILE_CHAINS",
    "VAULT_CHAINS",
    "AuditKeys",
    "KeyStore",
    "audit_keys",
    "known_audit_keys",
    "vault_of",
]

_STORE: Final = "audit"
_VAULT: Final = "onhand.device.vault.vault"

FILE_CHAINS: Final = "chain-"
"""Of chains whose key lies in a file: those go on to be checked with it."""

VAULT_CHAINS: Final = "sealed-"
"""Of chains whose key lies in a vault."""


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
        chains: how the folders of chains that are written with it begin.
    """

    secret: bytes
    source: str
    chains: str = FILE_CHAINS

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


def vault_of(home: Path) -> KeyStore | None:
    """Return the vault of a state folder; None where there is none.

    Args:
        home: the state folder.

    Returns:
        The vault, open.

    Raises:
        OnhandError: if it is locked or damaged.
    """
    try:
        module = importlib.import_module(_VAULT)
    except ModuleNotFoundError:  # an installation without that part
        return None
    found: KeyStore | None = module.open_vault(home)
    return found


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
        return AuditKeys(vault.key(_STORE), "the vault", VAULT_CHAINS)
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
        return AuditKeys(vault.key(_STORE), "the vault", VAULT_CHAINS)
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
