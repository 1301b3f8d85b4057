"""Signatures in the form of OpenSSF Model Signing: a statement that names every file by its hash.

The file `model.sig` is a Sigstore bundle (JSON) that holds a DSSE envelope around an in-toto
statement. Its predicate lists every file under a folder but those that it says it leaves out; its
subject is the folder's name, and SHA-256 over all the files' hashes in the order of the list.
Whoever has the public key can check it, with this or with any other tool that knows the form.

Of keys there are ECDSA ones on P-256, P-384 and P-521, which every tool of the form knows, and
Ed25519 ones. Signatures that name a certificate or an identity in place of a key are not read.

Source:
    OpenSSF Model Signing v1.0 (predicate https://model_signing/signature/v1.0,
    github.com/sigstore/model-transparency), Sigstore bundle v0.3, DSSE v1.0.2, in-toto Statement
    v1.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.outside import parse_json, shown
from onhand.core.signing import dsse_encoded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurve,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

__all__ = [
    "MAX_MODEL_SIGNATURE_BYTES",
    "ModelSignature",
    "key_hint",
    "parse_model_signature",
    "sign_model",
    "verify_model_signature",
]

MAX_MODEL_SIGNATURE_BYTES: Final = 16 * 2**20
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_HASHES: Final[Mapping[str, int]] = {"sha256": 64, "blake2b": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")
_MOST_FILES: Final = 100_000
_MOST_TEXT: Final = 4096
_OTHER_KEY: Final = "the key is neither an ECDSA one (P-256, P-384, P-521) nor an Ed25519 one"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """A signature that was parsed, and not verified.

    Attributes:
        hint: SHA-256 of the public key's PEM that it says it is by; "" where it does not say.
        payload: what is signed.
        sig: the signature's bytes.
        name: of the model, as its signer called it.
        hash_type: "sha256" or "blake2b".
        ignored: paths that are left out, those below them as well.
        digests: path of a file, with slashes -> its hash in hex.
    """

    hint: str
    payload: bytes
    sig: bytes
    name: str
    hash_type: str
    ignored: tuple[str, ...]
    digests: Mapping[str, str]


def key_hint(public_pem: bytes) -> str:
    """Return how a signature names a public key: SHA-256 of its PEM, in hex.

    Args:
        public_pem: in the form SubjectPublicKeyInfo.
    """
    key, _ = _public(public_pem)
    return hashlib.sha256(key).hexdigest()


def sign_model(
    digests: Mapping[str, str], private_pem: bytes, *, name: str, ignored: Sequence[str]
) -> bytes:
    """Return the signature of a folder's files.

    Args:
        digests: path of a file, with slashes -> its SHA-256 in hex.
        private_pem: an ECDSA or Ed25519 key in PEM, without a passphrase.
        name: of the model.
        ignored: paths that are left out.

    Returns:
        Content of the file `model.sig`.

    Raises:
        InputError: if the key is of another kind.
    """
    names = sorted(digests, key=lambda one: PurePosixPath(one).parts)
    resources = [{"algorithm": "sha256", "digest": digests[one], "name": one} for one in names]
    statement = {
        "_type": _STATEMENT,
        "predicate": {
            "resources": resources,
            "serialization": {
                "allow_symlinks": False,
                "hash_type": "sha256",
                "ignore_paths": sorted(ignored),
                "method": "files",
            },
        },
        "predicateType": _PREDICATE,
        "subject": [{"digest": {"sha256": _root([digests[one] for one in names])}, "name": name}],
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    sig, hint = _signed(private_pem, dsse_encoded(payload))
    bundle = {
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"keyid": "", "sig": base64.b64encode(sig).decode()}],
        },
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
    }
    return json.dumps(bundle, sort_keys=True).encode() + b"\n"


def parse_model_signature(content: bytes, *, where: str) -> ModelSignature:
    """Read a signature, which may come from outside; nothing of it is verified.

    Args:
        content: of the file `model.sig`.
        where: its place, for messages.

    Returns:
        The signature.

    Raises:
        BundleUntrusted: if it is none, or one of a form that is not read here.
    """
    try:
        return _parsed(content)
    except InputError as error:
        raise BundleUntrusted(f"{where}: is no signature of a model: {error}") from error


def verify_model_signature(signature: ModelSignature, public_pem: bytes, *, where: str) -> None:
    """Check that a key made a signature.

    Args:
        signature: as it was parsed.
        public_pem: the key, in PEM.
        where: the signature's place, for messages.

    Raises:
        BundleUntrusted: if it did not.
        InputError: if the key is of another kind.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    pem, key = _public(public_pem)
    hint = hashlib.sha256(pem).hexdigest()
    if signature.hint not in {"", hint}:
        raise BundleUntrusted(
            f"{where}: is by the key {signature.hint[:16]}, and the one given is {hint[:16]}"
        )
    content = dsse_encoded(signature.payload)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature.sig, content, ec.ECDSA(_hash_of(key.curve)))
        else:
            key.verify(signature.sig, content)
    except InvalidSignature as error:
        raise BundleUntrusted(
            f"{where}: is not by the key {hint[:16]}; it was changed, or is another one's"
        ) from error


def _parsed(content: bytes) -> ModelSignature:
    if len(content) > MAX_MODEL_SIGNATURE_BYTES:
        raise InputError(f"over {MAX_MODEL_SIGNATURE_BYTES} bytes")
    bundle = _object(parse_json(content), "the bundle")
    if bundle.get("mediaType") != _MEDIA_TYPE:
        raise InputError(f"mediaType is {shown(bundle.get('mediaType'))}, not {_MEDIA_TYPE}")
    material = _object(bundle.get("verificationMaterial"), "verificationMaterial")
    if "publicKey" not in material:
        raise InputError("it names no public key; certificates and identities are not read here")
    envelope = _object(bundle.get("dsseEnvelope"), "dsseEnvelope")
    if envelope.get("payloadType") != _PAYLOAD_TYPE:
        raise InputError(f"its payload is not {_PAYLOAD_TYPE}")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise InputError("it must have exactly one signature")
    payload = _bytes(envelope.get("payload"))
    statement = _object(parse_json(payload), "the statement")
    if statement.get("_type") != _STATEMENT or statement.get("predicateType") != _PREDICATE:
        raise InputError(f"it states something else than {_PREDICATE}")
    predicate = _object(statement.get("predicate"), "predicate")
    hash_type, ignored = _serialization(predicate.get("serialization"))
    digests = _digests(predicate.get("resources"), hash_type)
    hint = _object(material["publicKey"], "publicKey").get("hint") or ""
    return ModelSignature(
        hint=_text(hint, "hint"),
        payload=payload,
        sig=_bytes(_object(signatures[0], "the signature").get("sig")),
        name=_subject(statement.get("subject"), digests),
        hash_type=hash_type,
        ignored=ignored,
        digests=digests,
    )


def _serialization(value: object) -> tuple[str, tuple[str, ...]]:
    table = _object(value, "serialization")
    if table.get("method") != "files":
        raise InputError(f"method is {shown(table.get('method'))}; only whole files are read here")
    kind = _text(table.get("hash_type"), "hash_type")
    hash_type = {"blake2": "blake2b"}.get(kind, kind)
    if hash_type not in _HASHES:
        raise InputError(f"hash_type is {shown(kind)}, must be sha256 or blake2b")
    ignored = table.get("ignore_paths", [])
    if not isinstance(ignored, list) or len(ignored) > _MOST_FILES:
        raise InputError("ignore_paths is no list of paths")
    return hash_type, tuple(_text(one, "ignore_paths") for one in ignored)


def _digests(value: object, hash_type: str) -> dict[str, str]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_FILES:
        raise InputError(f"resources must be a list of 1 to {_MOST_FILES} files")
    found: dict[str, str] = {}
    for one in value:
        table = _object(one, "a resource")
        name, digest = _text(table.get("name"), "name"), _text(table.get("digest"), "digest")
        if {"blake2": "blake2b"}.get(kind := str(table.get("algorithm")), kind) != hash_type:
            raise InputError(f"a resource has another algorithm than {hash_type}")
        if len(digest) != _HASHES[hash_type] or not _HEX.fullmatch(digest) or name in found:
            raise InputError(f"the resource {shown(name)} stands twice, or has no hash")
        found[name] = digest
    return found


def _subject(value: object, digests: Mapping[str, str]) -> str:
    if not isinstance(value, list) or len(value) != 1:
        raise InputError("it must have exactly one subject")
    subject = _object(value[0], "subject")
    digest = _object(subject.get("digest"), "the subject's digest").get("sha256")
    if digest != _root(list(digests.values())):
        raise InputError("the subject's digest is not that of the resources")
    return _text(subject.get("name", ""), "the subject's name")


def _root(digests: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(one) for one in digests)).hexdigest()


def _signed(private_pem: bytes, content: bytes) -> tuple[bytes, str]:
    """Return a signature, and the hint of the key that made it.

    Raises:
        InputError: if it is none, or of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_pem, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise InputError("the key is no private key in PEM without a passphrase") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(content), hashlib.sha256(_pem(key.public_key())).hexdigest()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ec.ECDSA(_hash_of(key.curve))
        return key.sign(content, algorithm), hashlib.sha256(_pem(key.public_key())).hexdigest()
    raise InputError(_OTHER_KEY)


def _public(pem: bytes) -> "tuple[bytes, EllipticCurvePublicKey | Ed25519PublicKey]":
    """Return a public key as every tool writes it, and itself.

    Raises:
        InputError: if it is none, or of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("the key is no public key in PEM") from error
    if isinstance(key, ec.EllipticCurvePublicKey):
        _hash_of(key.curve)
        return _pem(key), key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _pem(key), key
    raise InputError(_OTHER_KEY)


def _pem(key: "EllipticCurvePublicKey | Ed25519PublicKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hash_of(curve: "EllipticCurve") -> "HashAlgorithm":
    from cryptography.hazmat.primitives import hashes

    known: Mapping[str, Callable[[], HashAlgorithm]] = {
        "secp256r1": hashes.SHA256,
        "secp384r1": hashes.SHA384,
        "secp521r1": hashes.SHA512,
    }
    if curve.name not in known:
        raise InputError(_OTHER_KEY)
    return known[curve.name]()


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is no JSON object")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise InputError(f"{what} is no text of at most {_MOST_TEXT} letters")
    return value


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except ValueError as error:
        raise InputError("a part is not base64") from error
