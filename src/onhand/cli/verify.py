"""`onhand verify`: every file of a bundle against its manifest, and the manifest's signature."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import write, write_json
from onhand.core.bundle import UNLISTED, Bundle, read_bundle, read_manifest_bytes
from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.sealed_header import SEALED, SEALED_MANIFEST
from onhand.core.signing import Signature
from onhand.core.units import format_bytes
from onhand.device.trust.checking import Signed, read_signature, signed_by
from onhand.device.trust.store import TrustStore

__all__ = ["command"]

_RequireSigned = Annotated[
    bool,
    typer.Option(
        "--require-signed", help="Fail unless it is signed by a key that is trusted here."
    ),
]
_Format = Annotated[
    Literal["onhand", "openssf"],
    typer.Option(help="openssf: any folder of a model against its model.sig, of OpenSSF's form."),
]
_Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="For openssf: a public key, as a file in PEM or as `onhand trust key` shows one; "
        "without it, the one of those that are trusted here.",
    ),
]
_Signature = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For openssf: the signature, where it lies elsewhere."),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    require_signed: _RequireSigned = False,
    format: _Format = "onhand",
    key: _Key = None,
    signature_file: _Signature = None,
    as_json: AsJson = False,
) -> None:
    """Check every file of a bundle against its manifest, and the manifest's signature.

    Raises:
        BundleUntrusted: if its signature was changed or does not count, or is required and missing.
        InputError: if an option belongs to the other form.
    """
    if format == "openssf":
        from onhand.cli.model_signature import verify

        verify(context.obj.home(), name, key, signature_file, as_json=as_json)
        return
    if key is not None or signature_file is not None:
        raise InputError("--key and --signature-file belong to --format openssf")
    store = TrustStore(context.obj.home())
    # The signature first: what follows is read from a manifest that somebody vouched for.
    signature = read_signature(name)
    signed: Signed | None = None
    if signature is not None and (require_signed or store.knows(signature.key)):
        content = read_manifest_bytes(name)
        signed = signed_by(name, signature, content, store, now_s=time.time())
    elif require_signed:
        raise BundleUntrusted(f"{name}: is not signed")
    bundle = read_bundle(name)
    unlisted = _unlisted(bundle)
    if as_json:
        write_json({
            "manifest_sha256": bundle.manifest_sha256,
            "n_files": len(bundle.manifest.files),
            "release": None if signature is None else signature.release,
            "signature": "none"
            if signature is None
            else "unknown-key"
            if signed is None
            else "trusted",
            "signed_by": None if signature is None else signature.key,
            "size_bytes": bundle.size_bytes(),
            "unlisted": unlisted,
            "verified": True,
        })
        return
    _tell(bundle, signature, signed)
    for path in unlisted:
        write(f"unlisted  {path!r} is not in the manifest and was not checked\n")


def _tell(bundle: Bundle, signature: Signature | None, signed: Signed | None) -> None:
    write(f"{len(bundle.manifest.files)} files, {format_bytes(bundle.size_bytes())}: as listed\n")
    write(f"manifest  {bundle.manifest_sha256}\n")
    if signature is None:
        write("signature none: nobody vouches for the manifest\n")
    elif signed is None:
        write(
            f"signature by {signature.key[:16]}, which is not trusted here, so it was not checked\n"
        )
    else:
        write(
            f"signature by {signed.key.name} ({signature.key[:16]}), release {signature.release}\n"
        )


def _unlisted(bundle: Bundle) -> list[str]:
    known = UNLISTED | bundle.manifest.files.keys()
    if bundle.sealed is not None:
        known |= {SEALED, SEALED_MANIFEST}
    others = (path for path in bundle.root.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(bundle.root).as_posix() for path in others} - known)
