"""`onhand sign` and `onhand verify` with `--format openssf`: signatures that other tools know."""

import time
from pathlib import Path

from onhand.cli.output import write, write_json
from onhand.core.bundle import MODEL_SIGNATURE, read_bundle
from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.openssf import ModelSignature, key_hint
from onhand.device.trust.model_files import (
    check_files,
    ed25519_pem,
    private_pem,
    public_pem,
    read_model_signature,
    sign_bundle_files,
    trusted_key_of,
)
from onhand.device.trust.store import TrustStore

__all__ = ["sign", "verify"]


def sign(
    home: Path,
    name: Path,
    key: Path | None,
    *,
    release: int | None,
    days: int | None,
    as_json: bool,
) -> None:
    """Sign every file of a bundle.

    Args:
        home: the state folder.
        name: the bundle's.
        key: a private one; None for this device's own.
        release: None: the form has none.
        days: likewise.
        as_json: whether a program reads what is said.

    Raises:
        InputError: if an option belongs to the other form, or the key is of another kind.
        OnhandError: if the bundle is damaged, or the signature cannot be written.
    """
    if release is not None or days is not None:
        raise InputError(
            "--release and --days: OpenSSF's form has no such fields; sign with --format onhand too"
        )
    bundle = read_bundle(name)
    pem = ed25519_pem(TrustStore(home).seed()) if key is None else private_pem(key)
    n_files, hint = sign_bundle_files(bundle, pem)
    if as_json:
        write_json({"file": MODEL_SIGNATURE, "format": "openssf", "key": hint, "n_files": n_files})
        return
    write(f"signed by {hint[:16]} in {MODEL_SIGNATURE}: {n_files} files\n")


def verify(
    home: Path, name: Path, key: str | None, signature_file: Path | None, *, as_json: bool
) -> None:
    """Check every file of a model's folder against a signature.

    Args:
        home: the state folder.
        name: the model's.
        key: a public one; None for the one of those that are trusted here.
        signature_file: None for the one in the folder.
        as_json: whether a program reads what is said.

    Raises:
        BundleUntrusted: if there is no signature, its key is unknown, or did not make it.
        BundleCorrupt: if a file is not as it was signed.
        OnhandError: if a file cannot be read.
    """
    path = signature_file or name / MODEL_SIGNATURE
    signature = read_model_signature(path)
    if signature is None:
        raise BundleUntrusted(f"{path}: there is no signature of OpenSSF's form")
    pem, who = _key(signature, TrustStore(home), path) if key is None else (public_pem(key), "")
    checked = check_files(name, signature, pem, path=path)
    hint = key_hint(pem)
    if as_json:
        write_json({
            "format": "openssf",
            "ignored": list(checked.ignored),
            "key": hint,
            "model": signature.name,
            "n_files": checked.n_files,
            "verified": True,
        })
        return
    write(f"{checked.n_files} files: as they were signed\n")
    write(f"signature by {f'{who} ({hint[:16]})' if who else hint[:16]}, of {signature.name!r}\n")
    for one in checked.ignored:
        write(f"left out  {one!r} is not in the signature and was not checked\n")


def _key(signature: ModelSignature, store: TrustStore, path: Path) -> tuple[bytes, str]:
    """Return the trusted key that a signature is by, and whose it is.

    Raises:
        BundleUntrusted: if it is unknown, revoked or has expired.
    """
    known = trusted_key_of(signature, store)
    if known is None:
        raise BundleUntrusted(
            f"{path}: is by the key {signature.hint[:16]}, which is not trusted here; give it "
            "with --key"
        )
    whose = f"{path}: is by the key {signature.hint[:16]} ({known.name})"
    if known.is_revoked:
        raise BundleUntrusted(f"{whose}, which was revoked")
    if known.expires_s is not None and time.time() >= known.expires_s:
        raise BundleUntrusted(f"{whose}, which has expired")
    return public_pem(f"ed25519:{known.public}"), known.name
