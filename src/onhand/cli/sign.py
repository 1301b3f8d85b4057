"""`onhand sign`: vouch for a bundle with a key."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import write, write_json

__all__ = ["command"]

_DAY_S = 86400
_Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A private key that `onhand trust make` wrote, or for --format openssf one in PEM; "
        "without it, this device's own.",
    ),
]
_Release = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Counter: devices that opened a later release refuse an earlier one; without it, the "
        "manifest's version.",
    ),
]
_Days = Annotated[
    int | None, typer.Option(min=1, max=36500, help="Days after which the signature expires.")
]
_Format = Annotated[
    Literal["onhand", "openssf"],
    typer.Option(
        help="onhand: what devices ask for. openssf: OpenSSF Model Signing, beside it in model.sig."
    ),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    key: _Key = None,
    release: _Release = None,
    days: _Days = None,
    format: _Format = "onhand",
    as_json: AsJson = False,
) -> None:
    """Sign a bundle, in the place of any earlier signature, after a check of all its files."""
    if format == "openssf":
        from onhand.cli.model_signature import sign

        sign(context.obj.home(), name, key, release=release, days=days, as_json=as_json)
        return
    from onhand.core.bundle import read_bundle, read_manifest_bytes
    from onhand.core.signing import key_id, public_key, sign_manifest
    from onhand.device.trust.checking import write_signature
    from onhand.device.trust.store import TrustStore, read_seed

    bundle = read_bundle(name)
    content = read_manifest_bytes(name)
    seed = TrustStore(context.obj.home()).seed() if key is None else read_seed(key)
    chosen = bundle.manifest.version if release is None else release
    expires_s = None if days is None else int(time.time()) + days * _DAY_S
    write_signature(name, sign_manifest(content, seed, release=chosen, expires_s=expires_s))
    identity = key_id(public_key(seed))
    if as_json:
        write_json({
            "expires_s": expires_s,
            "key": identity,
            "manifest_sha256": bundle.manifest_sha256,
            "release": chosen,
        })
        return
    until = "" if days is None else f", for {days} days"
    write(f"signed by {identity[:16]} as release {chosen}{until}\n")
