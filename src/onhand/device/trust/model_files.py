"""Signs and checks folders of a model in the form of OpenSSF Model Signing; see `core.openssf`."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.bundle import MANIFEST, MODEL_SIGNATURE, UNLISTED, Bundle, sha256_of
from onhand.core.errors import BundleCorrupt, BundleUntrusted, InputError, ResourceError
from onhand.core.openssf import (
    MAX_MODEL_SIGNATURE_BYTES,
    ModelSignature,
    key_hint,
    parse_model_signature,
    sign_model,
    verify_model_signature,
)
from onhand.core.signing import KEY_BYTES
from onhand.device.trust.owner_file import read_private, read_state, write_state
from onhand.device.trust.store import TrustedKey, TrustStore, parse_public

__all__ = [
    "Checked",
    "check_files",
    "ed25519_pem",
    "private_pem",
    "public_pem",
    "read_model_signature",
    "sign_bundle_files",
    "trusted_key_of",
]

_MOST_KEY_BYTES: Final = 16 * 1024
_MOST_FILES: Final = 100_000
_PIECE_BYTES: Final = 2**20
# What other tools leave out unless they are told otherwise, and what changes after the signing.
_GIT: Final = (".git", ".gitattributes", ".github", ".gitignore")
_IGNORED: Final = tuple(sorted({*_GIT, *(UNLISTED - {MANIFEST})}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a signature was found to be of.

    Attributes:
        n_files: that are as they were signed.
        ignored: paths that are there, and that the signature leaves out.
    """

    n_files: int
    ignored: tuple[str, ...]


def sign_bundle_files(bundle: Bundle, key: bytes) -> tuple[int, str]:
    """Put a signature of all its files into a bundle's folder, in the place of any other.

    Args:
        bundle: verified; the hashes of its manifest are taken.
        key: private, in PEM.

    Returns:
        How many files it names, and the key's hint.

    Raises:
        InputError: if the key is of another kind, or the folder holds what its manifest does not
            list: nobody vouches for that.
        ResourceError: if it cannot be written.
    """
    listed = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    digests = {**listed, MANIFEST: bundle.manifest_sha256}
    found = _files(bundle.root, _IGNORED)
    if others := sorted(found.keys() - digests.keys()):
        raise InputError(
            f"{bundle.root}: {others[0]!r} is not in its manifest, so it cannot be signed with it: "
            "remove it"
        )
    name = bundle.root.resolve().name
    content = sign_model(digests, key, name=name, ignored=_IGNORED)
    place = bundle.root / MODEL_SIGNATURE
    write_state(place, content)
    place.chmod(0o644)
    return len(digests), parse_model_signature(content, where=str(place)).hint


def read_model_signature(path: Path) -> ModelSignature | None:
    """Return a signature, not verified; None where there is none.

    Args:
        path: the file.

    Raises:
        BundleUntrusted: if it cannot be read.
    """
    if path.is_symlink():
        raise BundleUntrusted(f"{path}: is a link, which a signature may not be")
    content = read_state(path, most_bytes=MAX_MODEL_SIGNATURE_BYTES)
    return None if content is None else parse_model_signature(content, where=str(path))


def check_files(root: Path, signature: ModelSignature, key: bytes, *, path: Path) -> Checked:
    """Check a folder against a signature: its key first, then every file.

    Args:
        root: the folder.
        signature: as it was read.
        key: public, in PEM.
        path: the signature's file: where it lies in the folder it is left out.

    Returns:
        What was found.

    Raises:
        BundleCorrupt: if a file was changed, is missing, or was not there.
        BundleUntrusted: if the key did not make the signature.
        InputError: if the key is of another kind.
        ResourceError: if a file cannot be read.
    """
    verify_model_signature(signature, key, where=str(path))
    ignored = {*signature.ignored, *_GIT}
    if path.resolve().is_relative_to(root.resolve()):
        ignored.add(path.resolve().relative_to(root.resolve()).as_posix())
    found = _files(root, ignored)
    expected = signature.digests
    if missing := sorted(expected.keys() - found.keys()):
        raise BundleCorrupt(f"{root}: {missing[0]!r} was signed, and is missing")
    if others := sorted(found.keys() - expected.keys()):
        raise BundleCorrupt(f"{root}: {others[0]!r} was not there when it was signed")
    for name, place in found.items():
        if _digest(place, signature.hash_type) != expected[name]:
            raise BundleCorrupt(f"{root}: {name!r} is not as it was signed")
    return Checked(n_files=len(found), ignored=_there(root, signature.ignored))


def private_pem(path: Path) -> bytes:
    """Return a private key as PEM.

    Args:
        path: of a file in PEM, or of one that `onhand trust make` wrote.

    Raises:
        InputError: if it is missing, too large, or others may read it.
        ResourceError: if it cannot be read.
    """
    content = read_private(path, most_bytes=_MOST_KEY_BYTES)
    if content is None:
        raise InputError(f"{path}: there is no such key")
    return ed25519_pem(content) if len(content) == KEY_BYTES else content


def ed25519_pem(seed: bytes) -> bytes:
    """Return a private key of 32 bytes as PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(given: str) -> bytes:
    """Return a public key as PEM.

    Args:
        given: a file in PEM, or what `onhand trust key` shows.

    Raises:
        InputError: if it is neither.
        ResourceError: if the file cannot be read.
    """
    try:
        content = read_state(Path(given), most_bytes=_MOST_KEY_BYTES)
    except (ResourceError, ValueError):
        content = None
    return _pem_of(parse_public(given)) if content is None else content


def trusted_key_of(signature: ModelSignature, store: TrustStore) -> TrustedKey | None:
    """Return the key of this device's trust store that a signature says it is by; or None.

    Args:
        signature: as it was read.
        store: the keys.
    """
    for one in store.keys().values():
        if key_hint(_pem_of(one.bytes)) == signature.hint:
            return one
    return None


def _pem_of(public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _files(root: Path, ignored: Collection[str]) -> dict[str, Path]:
    """Return the files under a folder that are not left out, by their paths with slashes.

    Raises:
        BundleCorrupt: if one is a link or no plain file, or there are too many.
        InputError: if there is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    left_out = {Path(one).as_posix() for one in ignored}
    found: dict[str, Path] = {}
    for place in sorted(root.rglob("*")):
        name = place.relative_to(root)
        if any(one.as_posix() in left_out for one in (name, *name.parents)):
            continue
        if place.is_symlink() or not (place.is_dir() or place.is_file()):
            raise BundleCorrupt(f"{root}: {name.as_posix()!r} is not a plain file")
        if place.is_file():
            found[name.as_posix()] = place
        if len(found) > _MOST_FILES:
            raise BundleCorrupt(f"{root}: has over {_MOST_FILES} files")
    return found


def _digest(path: Path, hash_type: str) -> str:
    try:
        if hash_type == "sha256":
            return sha256_of(path)
        digest = hashlib.new(hash_type)
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error


def _there(root: Path, ignored: Collection[str]) -> tuple[str, ...]:
    inside = {one for one in ignored if not {"/", ".."} & {*Path(one).parts}}
    return tuple(sorted(one for one in inside - {*_IGNORED} if (root / one).exists()))
