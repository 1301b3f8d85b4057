"""Signatures in OpenSSF's form, and what is refused of them."""

import base64
import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import damaged

from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.openssf import (
    MAX_MODEL_SIGNATURE_BYTES,
    key_hint,
    parse_model_signature,
    sign_model,
    verify_model_signature,
)

DIGESTS = {"sub/y": "b" * 64, "x": "a" * 64, "sub.z": "c" * 64}
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@cache
def made(kind: str) -> Key:
    """A key of a kind."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    curves = {
        "p192": ec.SECP192R1(),
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "k1": ec.SECP256K1(),
    }
    return ec.derive_private_key(7, curves[kind])


def private(kind: str = "p256") -> bytes:
    """Its PEM."""
    return made(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(kind: str = "p256") -> bytes:
    """The public half's PEM."""
    key = made(kind).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(kind: str = "p256") -> bytes:
    """A signature of three files."""
    return sign_model(DIGESTS, private(kind), name="m", ignored=("model.sig",))


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """One in which something was changed: of the bundle, or of its statement."""
    bundle = json.loads(signed())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(bundle, statement)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(bundle).encode()


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519"])
def test_whoever_has_the_public_key_can_check_it(kind: str) -> None:
    """Names, hashes and what is left out come back."""
    found = parse_model_signature(signed(kind), where="x")

    verify_model_signature(found, public(kind), where="x")
    assert (found.name, found.hash_type, found.ignored) == ("m", "sha256", ("model.sig",))
    assert found.digests == DIGESTS
    assert found.hint == key_hint(public(kind)) == hashlib.sha256(public(kind)).hexdigest()


def test_the_form_by_hand() -> None:
    """As the specification words it: the envelope's bytes, the order of files, the subject."""
    bundle = json.loads(signed())
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    sig = base64.b64decode(envelope["signatures"][0]["sig"])
    key = made("p256").public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)

    encoded = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    key.verify(sig, encoded, ec.ECDSA(hashes.SHA256()))
    assert [one["name"] for one in statement["predicate"]["resources"]] == ["sub/y", "sub.z", "x"]
    root = hashlib.sha256(b"\xbb" * 32 + b"\xcc" * 32 + b"\xaa" * 32).hexdigest()
    assert statement["subject"] == [{"name": "m", "digest": {"sha256": root}}]
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"]["tlogEntries"] == []


@pytest.mark.parametrize("kind", ["rsa", "p192", "k1"])
def test_keys_of_other_kinds_are_refused(kind: str) -> None:
    """Private and public ones."""
    with pytest.raises(InputError, match="neither an ECDSA"):
        signed(kind)
    with pytest.raises(InputError, match="neither an ECDSA"):
        key_hint(public(kind))


def test_what_is_no_key_is_refused() -> None:
    """Neither a public nor a private one."""
    with pytest.raises(InputError, match="no public key"):
        key_hint(b"key")
    with pytest.raises(InputError, match="no private key"):
        sign_model(DIGESTS, b"key", name="m", ignored=())


def test_attack_another_key_or_a_changed_statement() -> None:
    """A hint that names the right key helps nobody."""
    found = parse_model_signature(signed(), where="x")
    with pytest.raises(BundleUntrusted, match="the one given"):
        verify_model_signature(found, public("p384"), where="x")

    def renamed(bundle: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["subject"][0]["name"] = "other"

    for without_hint in (False, True):

        def change(bundle: dict[str, Any], statement: dict[str, Any]) -> None:
            renamed(bundle, statement)
            if without_hint:  # noqa: B023 - used before it changes
                bundle["verificationMaterial"]["publicKey"] = {}

        found = parse_model_signature(changed(change), where="x")
        with pytest.raises(BundleUntrusted, match="it was changed"):
            verify_model_signature(found, public(), where="x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b, s: b.update(mediaType="x"), "mediaType"),
        (lambda b, s: b.update(verificationMaterial=[]), "no JSON object"),
        (lambda b, s: b["verificationMaterial"].pop("publicKey"), "certificates"),
        (lambda b, s: b["dsseEnvelope"].update(payloadType="x"), "payload is not"),
        (lambda b, s: b["dsseEnvelope"].update(signatures=[]), "exactly one signature"),
        (lambda b, s: b["dsseEnvelope"]["signatures"][0].update(sig="?"), "base64"),
        (lambda b, s: b["dsseEnvelope"]["signatures"][0].update(sig="\xe9"), "base64"),
        (lambda b, s: s.update(predicateType="x"), "states something else"),
        (lambda b, s: s["predicate"]["serialization"].update(method="shards"), "whole files"),
        (lambda b, s: s["predicate"]["serialization"].update(hash_type="md5"), "hash_type"),
        (lambda b, s: s["predicate"]["serialization"].update(ignore_paths=3), "ignore_paths"),
        (lambda b, s: s["predicate"].update(resources=[]), "resources"),
        (lambda b, s: s["predicate"]["resources"][0].update(algorithm="md5"), "algorithm"),
        (lambda b, s: s["predicate"]["resources"][0].update(digest="zz"), "stands twice"),
        (lambda b, s: s["predicate"]["resources"][0].update(name="x"), "stands twice"),
        (lambda b, s: s["predicate"]["resources"][0].update(name=7), "no text"),
        (lambda b, s: s["predicate"]["resources"].reverse(), "digest is not that"),
        (lambda b, s: s.update(subject=[]), "one subject"),
    ],
)
def test_attack_what_is_no_signature(
    change: Callable[[dict[str, Any], dict[str, Any]], object], told: str
) -> None:
    """Each with a sentence of its own."""
    with pytest.raises(BundleUntrusted, match=told):
        parse_model_signature(changed(change), where="x")


def test_attack_one_that_is_too_large() -> None:
    """Before it is parsed."""
    with pytest.raises(BundleUntrusted, match="over"):
        parse_model_signature(b" " * (MAX_MODEL_SIGNATURE_BYTES + 1), where="x")


@given(st.data())
@settings(max_examples=40)
def test_attack_any_value_of_any_key(data: st.DataObject) -> None:
    """It is parsed, or refused by our own error."""
    bundle = json.loads(signed())
    envelope = bundle["dsseEnvelope"]
    statement = data.draw(damaged(json.loads(base64.b64decode(envelope["payload"]))))
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    content = json.dumps(data.draw(damaged(bundle))).encode()
    try:
        verify_model_signature(parse_model_signature(content, where="x"), public(), where="x")
    except BundleUntrusted as error:
        text = str(error)
        assert len(text) < 600
