"""Signatures of manifests, and what is refused of them."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.signing import (
    MAX_SIGNATURE_BYTES,
    key_id,
    parse_rotation,
    parse_signature,
    public_key,
    sign_manifest,
    sign_rotation,
    verify_signature,
)

SEED, OTHER = b"a" * 32, b"b" * 32
PUBLIC = public_key(SEED)
MANIFEST = b'{"name":"x"}\n'


def signed(**given: Any) -> bytes:
    """A signature of the manifest."""
    return sign_manifest(MANIFEST, SEED, **{"release": 3, **given})


def changed(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """An envelope in which something was changed: of itself, or of its statement."""
    envelope = json.loads(content)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(envelope, statement)
    if isinstance(envelope.get("payload"), str) and envelope["payload"] != "?":
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(envelope).encode()


def test_a_signature_is_of_a_manifest_and_by_a_key() -> None:
    """The same arguments give the same bytes."""
    signature = parse_signature(signed(expires_s=99), where="x")

    verify_signature(signature, PUBLIC, where="x")
    assert signed() == signed()
    assert signature.key == key_id(PUBLIC)
    assert (signature.release, signature.expires_s) == (3, 99)
    assert signature.manifest_sha256 == hashlib.sha256(MANIFEST).hexdigest()


def test_rfc_8032_test_vector() -> None:
    """The first one's public key."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")

    assert public_key(seed).hex().startswith("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af")


@pytest.mark.parametrize("release", [0, -1, 2**53])
def test_releases_count_from_one(release: int) -> None:
    """And stay whole in every reader."""
    with pytest.raises(InputError, match="release"):
        sign_manifest(MANIFEST, SEED, release=release)


def test_attack_another_key() -> None:
    """A signature by another key, or one that names another one, does not count."""
    signature = parse_signature(sign_manifest(MANIFEST, OTHER, release=1), where="x")
    named = changed(
        sign_manifest(MANIFEST, OTHER, release=1),
        lambda envelope, _: envelope["signatures"][0].update(keyid=key_id(PUBLIC)),
    )

    for one in (signature, parse_signature(named, where="x")):
        with pytest.raises(BundleUntrusted, match="is not by the key"):
            verify_signature(one, PUBLIC, where="x")


def test_attack_a_changed_statement() -> None:
    """A higher release or a later end needs a new signature."""
    for field, value in (("release", 9), ("expires_s", 2**40)):
        content = changed(
            signed(),
            lambda _, statement, f=field, v=value: statement["predicate"].update({f: v}),  # type: ignore[misc]
        )
        with pytest.raises(BundleUntrusted, match="was changed"):
            verify_signature(parse_signature(content, where="x"), PUBLIC, where="x")


@pytest.mark.parametrize(
    "change",
    [
        lambda envelope, _: envelope.update(payloadType="text/plain"),
        lambda envelope, _: envelope.update(signatures=[]),
        lambda envelope, _: envelope.update(signatures=envelope["signatures"] * 2),
        lambda envelope, _: envelope.update(signatures=["x"]),
        lambda envelope, _: envelope.update(payload="?"),
        lambda envelope, _: envelope.update(payload=5),
        lambda envelope, _: envelope["signatures"][0].update(sig="*"),
        lambda envelope, _: envelope["signatures"][0].update(keyid="abc"),
        lambda _, statement: statement.update(_type="other"),
        lambda _, statement: statement.update(predicateType="other"),
        lambda _, statement: statement.update(predicate=5),
        lambda _, statement: statement.update(subject=None),
        lambda _, statement: statement["predicate"].update(format=2),
        lambda _, statement: statement["predicate"].update(release=0),
        lambda _, statement: statement["predicate"].update(release=True),
        lambda _, statement: statement["predicate"].update(expires_s="never"),
        lambda _, statement: statement["subject"][0].update(digest={"sha256": "x"}),
    ],
)
def test_attack_a_signature_of_another_form(
    change: Callable[[dict[str, Any], dict[str, Any]], object],
) -> None:
    """It is refused before anything is checked with it."""
    with pytest.raises(BundleUntrusted, match="signature cannot be read"):
        parse_signature(changed(signed(), change), where="x")


@given(content=st.binary(max_size=200))
def test_attack_any_bytes(content: bytes) -> None:
    """None is a signature."""
    with pytest.raises(BundleUntrusted):
        parse_signature(content, where="x")


def test_attack_a_large_signature() -> None:
    """It is not parsed."""
    with pytest.raises(BundleUntrusted, match="over"):
        parse_signature(b" " * (MAX_SIGNATURE_BYTES + 1), where="x")


def test_a_key_takes_anothers_place() -> None:
    """By a statement that the old one signed, and no other."""
    new = public_key(OTHER)
    statement = sign_rotation(SEED, new, revokes_old=True)
    known = {key_id(PUBLIC): PUBLIC}

    rotation = parse_rotation(statement, known)

    assert (rotation.old, rotation.new, rotation.revokes_old) == (key_id(PUBLIC), new, True)
    with pytest.raises(InputError, match="not trusted here"):
        parse_rotation(statement, {})
    with pytest.raises(InputError, match="is not by the key"):
        parse_rotation(statement, {key_id(PUBLIC): new})
    with pytest.raises(InputError, match="is not by the key"):
        parse_rotation(statement, {key_id(PUBLIC): b"short"})
    with pytest.raises(InputError, match="cannot be read"):
        parse_rotation(signed(), known)


def test_attack_a_part_that_is_no_ascii() -> None:
    """Of base64 neither; found by fuzzing."""
    envelope = json.loads(signed())
    envelope["payload"] = "\xe9"

    with pytest.raises(BundleUntrusted, match="not base64"):
        parse_signature(json.dumps(envelope).encode(), where="x")
