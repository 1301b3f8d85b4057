"""Seal a bundle for the devices that may open it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onhand.core.bundle import (
    SIGNATURE,
    Bundle,
    read_bundle,
    read_manifest_bytes,
    stage_bundle,
)
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.sealed_header import (
    MAX_RECIPIENTS,
    SEALED,
    SEALED_MANIFEST,
    SealedHeader,
    file_keys,
    render_header,
    wrap_key,
)
from onhand.core.sealing import KEY_BYTES, Keys, SealedWriter, write_sealed

__all__ = ["seal_bundle"]

_PIECE_BYTES = 2**22


def seal_bundle(root: Path, out: Path, recipients: Sequence[bytes]) -> SealedHeader:
    """Write a bundle anew, sealed for devices; its manifest and signature stay what they are.

    Reports are left out: they are written again by measuring, and would lie there in plain.

    Args:
        root: the bundle's folder; every file is checked first. It may itself be sealed.
        out: the folder to create, whole or not at all.
        recipients: public keys of the devices, 32 bytes each.

    Returns:
        What anybody may read of the sealed bundle.

    Raises:
        InputError: if there is no bundle, `out` exists, or there are no recipients or too many.
        BundleCorrupt: if the bundle is not valid.
        VaultError: if it is sealed, and not for this device.
        ResourceError: if it cannot be written.
    """
    different = tuple(dict.fromkeys(recipients))
    if not 1 <= len(different) <= MAX_RECIPIENTS:
        raise InputError(f"{len(different)} recipients, must be 1 to {MAX_RECIPIENTS}")
    bundle = read_bundle(root)
    if odd := {SEALED, SEALED_MANIFEST} & bundle.manifest.files.keys():
        raise BundleCorrupt(f"{root}: holds {min(odd)!r}, a name that sealing keeps for itself")
    content = read_manifest_bytes(root)
    plain = SealedHeader(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        manifest_bytes=len(content),
        files={name: entry.size for name, entry in bundle.manifest.files.items()},
    )
    content_key = os.urandom(KEY_BYTES)
    wrapped = tuple(wrap_key(content_key, public, plain) for public in different)
    header = replace(plain, recipients=wrapped)
    keys = file_keys(content_key, header)
    with stage_bundle(out) as staged:
        for name in bundle.manifest.files:
            _seal_file(bundle, name, staged / name, keys)
        write_sealed(
            staged / SEALED_MANIFEST,
            keys,
            lambda writer: writer.write(content),
            name=SEALED_MANIFEST,
        )
        if (root / SIGNATURE).is_file():
            (staged / SIGNATURE).write_bytes((root / SIGNATURE).read_bytes())
        (staged / SEALED).write_bytes(render_header(header))
        for place in staged.rglob("*"):
            place.chmod(0o755 if place.is_dir() else 0o644)
    return header


def _seal_file(bundle: Bundle, name: str, place: Path, keys: Keys) -> None:
    def put(writer: SealedWriter) -> None:
        with bundle.path(name).open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                writer.write(piece)

    place.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(place, keys, put, name=name)
