"""The file of keys: private, seen anew, and closed where it is damaged."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onhand.core.errors import InputError, OnhandError
from onhand.device.access.quotas import Quota
from onhand.device.access.scopes import EVERYTHING, Grant
from onhand.device.access.store import KeyStore
from onhand.device.access.tokens import is_of, parse_token

INFER = Grant(actions=frozenset({"infer"}), models=("house*",))


def test_a_key_is_kept_without_its_secret(tmp_path: Path) -> None:
    """What it may do is there, of its token a hash alone, and nobody else may read it."""
    store = KeyStore(tmp_path)
    made, token = store.add("phone", INFER, quota=Quota(at_once=2), now_s=10, expires_s=20)

    again = KeyStore(tmp_path).find(made.id)

    assert again == made
    assert is_of(token, made.hash)
    assert token.secret not in store.path.read_text()
    if os.name == "posix":
        assert store.path.stat().st_mode & 0o077 == 0
        assert store.path.parent.stat().st_mode & 0o077 == 0


def test_a_running_store_sees_what_another_wrote(tmp_path: Path) -> None:
    """A key that is taken back is so from the next look on."""
    running, other = KeyStore(tmp_path), KeyStore(tmp_path)
    assert running.listed() == ()
    made, _ = other.add("phone", INFER, now_s=10)
    found = running.find(made.id)
    assert found is not None
    assert found.state(11) == "valid"

    other.revoke("phone", now_s=12)

    found = running.find(made.id)
    assert found is not None
    assert found.state(12) == "revoked"


def test_a_file_that_goes_takes_its_keys_along(tmp_path: Path) -> None:
    """Nothing that was read before goes on opening."""
    store = KeyStore(tmp_path)
    made, _ = store.add("phone", INFER, now_s=10)
    store.path.unlink()

    assert store.find(made.id) is None


def test_keys_end_when_they_say(tmp_path: Path) -> None:
    """To the second; and one that ends before it begins is not made."""
    made, _ = KeyStore(tmp_path).add("phone", INFER, now_s=10, expires_s=20)

    assert (made.state(19.9), made.state(20)) == ("valid", "expired")
    with pytest.raises(InputError, match="before it begins"):
        KeyStore(tmp_path).add("tablet", INFER, now_s=10, expires_s=10)


def test_names_are_of_one_valid_key(tmp_path: Path) -> None:
    """A revoked one's may be given again; what is not there cannot be revoked."""
    store = KeyStore(tmp_path)
    store.add("phone", INFER, now_s=10)
    with pytest.raises(InputError, match="valid key 'phone' already"):
        store.add("phone", INFER, now_s=11)
    store.revoke("phone", now_s=12)
    store.add("phone", INFER, now_s=13)

    assert [one.state(14) for one in store.listed()] == ["revoked", "valid"]
    with pytest.raises(InputError, match="no key 'tablet'"):
        store.revoke("tablet", now_s=15)


def test_the_first_start_makes_a_key_for_this_user(tmp_path: Path) -> None:
    """Once; and again where it was taken back or lost."""
    store = KeyStore(tmp_path)
    path, is_new = store.local_token(now_s=10)
    token = parse_token(path.read_text().strip())

    assert is_new
    assert token is not None
    key = store.find(token.id)
    assert key is not None
    assert key.grant == EVERYTHING
    assert store.local_token(now_s=11) == (path, False)
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
    path.unlink()
    assert store.local_token(now_s=12) == (path, True)
    assert [one.state(13) for one in store.listed()] == ["revoked", "valid"]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["keys"][0].update(actions=["infer", "fly"]),
        lambda table: table["keys"][0].update(revoked_s="never"),
        lambda table: table["keys"][0].update(hash=""),
        lambda table: table["keys"][0].update(more=1),
        lambda table: table["keys"][0].pop("expires_s"),
        lambda table: table["keys"].append(table["keys"][0]),
        lambda table: table.update(format=2),
        lambda table: table.update(keys={}),
    ],
)
def test_attack_file_that_is_damaged_opens_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Not even by the keys that were read before."""
    store = KeyStore(tmp_path)
    made, _ = store.add("phone", INFER, now_s=10)
    table = json.loads(store.path.read_text())
    change(table)
    store.path.write_text(json.dumps(table))

    for _ in range(2):
        with pytest.raises(InputError, match="is no file of keys"):
            store.find(made.id)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_attack_file_that_others_may_write(tmp_path: Path) -> None:
    """Whoever could have added a key may not."""
    store = KeyStore(tmp_path)
    made, _ = store.add("phone", INFER, now_s=10)
    changed = store.path.with_suffix(".new")
    changed.write_bytes(store.path.read_bytes())
    changed.chmod(0o666)
    changed.replace(store.path)

    with pytest.raises(OnhandError, match="others may read it"):
        store.find(made.id)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_attack_file_that_others_may_write_opens_without_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is the look at its rights that holds it back."""
    store = KeyStore(tmp_path)
    made, _ = store.add("phone", INFER, now_s=10)
    store.path.chmod(0o666)
    monkeypatch.setattr(stat, "S_IRWXG", 0)
    monkeypatch.setattr(stat, "S_IRWXO", 0)

    assert store.find(made.id) == made
