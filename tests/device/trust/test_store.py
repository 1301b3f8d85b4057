"""Keys that a device trusts."""

import json
import os
import stat
from pathlib import Path

import pytest

from onhand.core.errors import InputError, ResourceError
from onhand.core.signing import key_id, public_key
from onhand.device.trust.owner_file import read_private, read_state, write_state
from onhand.device.trust.store import OWN_NAME, TrustStore, make_seed, parse_public, read_seed

PUBLIC = public_key(b"m" * 32)


def test_a_device_makes_its_key_at_the_first_use(tmp_path: Path) -> None:
    """It is its owner's alone, trusted, and the same from then on."""
    store = TrustStore(tmp_path)
    assert store.own() is None

    seed = store.seed()

    assert store.seed() == TrustStore(tmp_path).seed() == seed
    assert store.keys()[store.own() or ""].name == OWN_NAME
    assert stat.S_IMODE((tmp_path / "keys" / "signing.key").stat().st_mode) == 0o600


def test_keys_are_added_found_and_revoked_for_ever(tmp_path: Path) -> None:
    """By name, or the beginning of their id."""
    store = TrustStore(tmp_path)
    made = store.add(PUBLIC, name="maker", expires_s=9)

    assert store.find("maker") == store.find(made.id[:10]) == made
    assert store.knows(made.id)
    with pytest.raises(InputError, match="0 keys match"):
        store.find(made.id[:4])
    with pytest.raises(InputError, match="named 'maker' already"):
        store.add(public_key(b"n" * 32), name="maker")
    store.revoke(made)
    assert store.keys()[made.id].is_revoked
    with pytest.raises(InputError, match="not taken back"):
        store.add(PUBLIC, name="again")


@pytest.mark.parametrize(
    ("public", "name", "reason"),
    [(b"short", "x", "has 32 bytes"), (PUBLIC, "", "1 to 80"), (PUBLIC, "a\nb", "one line")],
)
def test_what_is_no_key_is_not_added(tmp_path: Path, public: bytes, name: str, reason: str) -> None:
    """Nor one without a name."""
    with pytest.raises(InputError, match=reason):
        TrustStore(tmp_path).add(public, name=name)


def test_a_rotation_reaches_other_devices(tmp_path: Path) -> None:
    """They trust the new key by the old one's word, and releases go on counting."""
    maker, user = TrustStore(tmp_path / "maker"), TrustStore(tmp_path / "user")
    old = public_key(maker.seed())
    first = user.add(old, name="maker")
    user.saw_release(first, "house", 5)

    statement = maker.rotate(revokes_old=False)
    new = user.accept(statement, now_s=0)

    assert new.id == key_id(public_key(maker.seed())) != first.id
    assert (new.name, new.line) == ("maker", first.line)
    assert user.release_seen(new, "house") == 5
    assert user.keys()[first.id].followed_by == new.id
    assert not user.keys()[first.id].is_revoked


def test_attack_a_rotation_by_a_key_that_does_not_count(tmp_path: Path) -> None:
    """One that is unknown, expired or revoked says nothing; nor does a revoked one come back."""
    maker, user = TrustStore(tmp_path / "maker"), TrustStore(tmp_path / "user")
    old = public_key(maker.seed())
    statement = maker.rotate(revokes_old=True)
    with pytest.raises(InputError, match="not trusted here"):
        user.accept(statement, now_s=0)
    user.add(old, name="maker", expires_s=10)
    with pytest.raises(InputError, match="not trusted here"):
        user.accept(statement, now_s=10)
    new = user.accept(statement, now_s=9)
    assert user.keys()[key_id(old)].is_revoked  # as the statement says
    user.revoke(new)
    with pytest.raises(InputError, match="not trusted here"):
        user.accept(statement, now_s=9)


def test_releases_only_grow(tmp_path: Path) -> None:
    """The highest one of each name counts."""
    store = TrustStore(tmp_path)
    key = store.add(PUBLIC, name="maker")

    for release in (2, 5, 3):
        store.saw_release(key, "house", release)

    assert store.release_seen(key, "house") == 5
    assert store.release_seen(key, "other") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b'{"format": 2, "keys": {}}',
        b'{"format": 1, "keys": []}',
        b'{"format": 1, "keys": {"ab": {"public": "zz", "name": "x", "line": "ab"}}}',
        b'{"format": 1, "keys": {"ab": {"surprise": 1}}}',
        b'{"format": 1, "keys": {"ab": 5}}',
        json.dumps({
            "format": 1,
            "keys": {"ab": {"public": PUBLIC.hex(), "name": "x", "line": "ab"}},
        }).encode(),
    ],
)
def test_attack_a_damaged_store_trusts_nobody(tmp_path: Path, content: bytes) -> None:
    """What was revoked must not come back because a file was cut."""
    write_state(tmp_path / "trust" / "keys.json", content)

    with pytest.raises(InputError):
        TrustStore(tmp_path).keys()


def test_attack_a_private_key_that_others_may_read(tmp_path: Path) -> None:
    """It is not used; nor a link, a short or a large file."""
    path = tmp_path / "key"
    public = make_seed(path)
    assert public_key(read_seed(path)) == public
    if os.name == "posix":
        path.chmod(0o644)
        with pytest.raises(InputError, match="others may read it"):
            read_seed(path)
        (tmp_path / "link").symlink_to(path)
        with pytest.raises(ResourceError):
            read_seed(tmp_path / "link")
    write_state(path, b"short")
    with pytest.raises(InputError, match="no private key"):
        read_seed(path)
    write_state(path, b"x" * 33)
    with pytest.raises(InputError, match="over 32 bytes"):
        read_seed(path)
    with pytest.raises(InputError, match="no private key"):
        read_seed(tmp_path / "missing")
    write_state(tmp_path / "keys" / "signing.key", b"short")
    with pytest.raises(InputError, match="remove it for a new key"):
        TrustStore(tmp_path).seed()


def test_files_are_bounded_and_written_whole(tmp_path: Path) -> None:
    """One that is there stays where it is not to be replaced; a folder is no file."""
    path = tmp_path / "a" / "b"
    write_state(path, b"one")
    write_state(path, b"two", replace=False)

    assert read_state(path, most_bytes=3) == read_private(path, most_bytes=3) == b"one"
    assert [one.name for one in path.parent.iterdir()] == ["b"]
    with pytest.raises(InputError, match="over 2 bytes"):
        read_state(path, most_bytes=2)
    with pytest.raises(ResourceError, match="cannot be read"):
        read_state(path.parent, most_bytes=2)
    with pytest.raises(ResourceError, match="cannot be written"):
        write_state(path / "c", b"x")


@pytest.mark.parametrize("text", [f"ed25519:{PUBLIC.hex()}", f" {PUBLIC.hex().upper()}\n"])
def test_public_keys_are_read_as_they_are_shown(text: str) -> None:
    """With or without their kind."""
    assert parse_public(text) == PUBLIC


@pytest.mark.parametrize("text", ["", "ed25519:12", "rsa:" + PUBLIC.hex(), PUBLIC.hex() + "0"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    """By its form."""
    with pytest.raises(InputError, match="is no public key"):
        parse_public(text)
