"""Checks bundles by the trust store, and signs what is built here."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from onhand.core.bundle import SIGNATURE
from onhand.core.errors import BundleUntrusted
from onhand.core.manifest import Manifest
from onhand.core.outside import parse_json
from onhand.core.signing import (
    MAX_SIGNATURE_BYTES,
    Signature,
    parse_signature,
    sign_manifest,
    verify_signature,
)
from onhand.device.trust.owner_file import read_state, write_state
from onhand.device.trust.store import TrustedKey, TrustStore

__all__ = ["DeviceTrust", "Signed", "read_signature", "signed_by", "write_signature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A bundle's signature, verified.

    Attributes:
        key: who signed it.
        signature: it.
    """

    key: TrustedKey
    signature: Signature


class DeviceTrust:
    """See `onhand.core.trusting.Trust`. Threads may share it."""

    def __init__(
        self,
        store: TrustStore,
        *,
        now: Callable[[], float],
        allows_unsigned: bool = False,
        checks: bool = True,
    ) -> None:
        """Decide.

        Args:
            store: keys and releases.
            now: seconds since 1970.
            allows_unsigned: whether bundles without a signature, or by an unknown key, are taken.
            checks: whether bundles are checked at all; what is built is signed in any case.
        """
        self._store = store
        self._now = now
        self._allows_unsigned = allows_unsigned
        self._checks = checks

    def allow_unsigned(self) -> None:
        """Take bundles without a signature, or by an unknown key, from now on."""
        self._allows_unsigned = True

    def check(self, root: Path, content: bytes) -> Callable[[Manifest], None]:
        """See `Trust`.

        Raises:
            BundleUntrusted: if it is not signed, not by a trusted key, or was changed.
        """
        if not self._checks:
            return _nothing
        signature = read_signature(root)
        is_known = signature is not None and self._store.knows(signature.key)
        if signature is None or not is_known:
            if self._allows_unsigned:
                return _nothing
            raise BundleUntrusted(_unknown(root, signature))
        signed = signed_by(root, signature, content, self._store, now_s=self._now())

        def parsed(manifest: Manifest) -> None:
            release, seen = signature.release, self._store.release_seen(signed.key, manifest.name)
            if release < seen:
                raise BundleUntrusted(
                    f"{root}: release {release} of {manifest.name}, and release {seen} by "
                    f"{signed.key.name} was opened here before; an older one is not taken"
                )
            self._store.saw_release(signed.key, manifest.name, release)

        return parsed

    def sign(self, staged: Path, content: bytes) -> None:
        """See `Trust`: with this device's key, which is made at the first use."""
        table = parse_json(content)
        release = table.get("version", 1) if isinstance(table, dict) else 1
        write_signature(staged, sign_manifest(content, self._store.seed(), release=int(release)))


def read_signature(root: Path) -> Signature | None:
    """Return a bundle's signature, not verified; None where it has none.

    Args:
        root: the bundle's folder.

    Raises:
        BundleUntrusted: if it cannot be read.
    """
    if (root / SIGNATURE).is_symlink():
        raise BundleUntrusted(f"{root}: its signature is a link, which a bundle may not hold")
    content = read_state(root / SIGNATURE, most_bytes=MAX_SIGNATURE_BYTES)
    return None if content is None else parse_signature(content, where=str(root))


def signed_by(
    root: Path, signature: Signature, content: bytes, store: TrustStore, *, now_s: float
) -> Signed:
    """Check that a signature counts, and is of a manifest.

    Args:
        root: the bundle's folder, for messages.
        signature: as it was read.
        content: of the manifest.
        store: keys.
        now_s: seconds since 1970.

    Returns:
        Who signed it.

    Raises:
        BundleUntrusted: if the key is unknown, revoked or has expired, the signature has, or it
            is not by that key or of this manifest.
    """
    key = store.keys().get(signature.key)
    if key is None:
        raise BundleUntrusted(_unknown(root, signature))
    whose = f"the key {key.id[:16]} ({key.name})"
    if key.is_revoked:
        raise BundleUntrusted(f"{root}: is signed by {whose}, which was revoked")
    verify_signature(signature, key.bytes, where=str(root))
    if signature.manifest_sha256 != (found := sha256(content).hexdigest()):
        raise BundleUntrusted(
            f"{root}: its manifest has SHA-256 {found[:16]}, and the signature is of "
            f"{signature.manifest_sha256[:16]}: one of them was changed"
        )
    if key.expires_s is not None and now_s >= key.expires_s:
        raise BundleUntrusted(
            f"{root}: is signed by {whose}, which expired on {_day(key.expires_s)}"
        )
    if signature.expires_s is not None and now_s >= signature.expires_s:
        raise BundleUntrusted(
            f"{root}: its signature expired on {_day(signature.expires_s)}; get a later release"
        )
    return Signed(key=key, signature=signature)


def write_signature(root: Path, content: bytes) -> None:
    """Put a signature into a bundle's folder, in the place of any other.

    Args:
        root: the folder.
        content: of the file.

    Raises:
        ResourceError: if it cannot be written.
    """
    write_state(root / SIGNATURE, content)
    # A bundle is for whoever may read its other files.
    (root / SIGNATURE).chmod(0o644)


def _nothing(manifest: Manifest) -> None:
    """Look at nothing more."""


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).date().isoformat()


def _unknown(root: Path, signature: Signature | None) -> str:
    found = "is not signed"
    if signature is not None:
        found = f"is signed by the key {signature.key[:16]}, which is not trusted here"
    return (
        f"{root}: {found}; trust its maker's key (onhand trust add), sign it yourself "
        f"(onhand sign), or take it as it is (--allow-unsigned)"
    )
