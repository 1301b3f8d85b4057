"""The vault: where its key comes from, one key for each store, rotation and erasing."""

import json
import os
from pathlib import Path

import pytest

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import seal_bytes, unseal_bytes
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import (
    STORES,
    erase_vault,
    init_vault,
    open_vault,
    read_facts,
    rewrap,
    rotate_store,
    use_secrets,
)

PHRASE = Asking({"WORDS": "correct horse battery"})


@pytest.fixture
def vaulted(tmp_path: Path) -> Path:
    """A state folder with a vault whose key is in a file."""
    init_vault(tmp_path / "home", kind="key-file", place=str(tmp_path / "key"), asking=PHRASE)
    return tmp_path / "home"


def test_without_a_vault_there_is_none(tmp_path: Path) -> None:
    """Nothing is made on the way, and nothing is encrypted."""
    assert open_vault(tmp_path) is None
    assert read_facts(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_every_store_has_a_key_of_its_own_that_stays(vaulted: Path) -> None:
    """Keys are 32 bytes, all different, the same when opened again, and not in the file."""
    vault = open_vault(vaulted)
    assert vault is not None
    keys = {name: vault.key(name) for name in STORES}
    use_secrets(Asking({"another": str(vaulted)}))  # forgets what is open
    again = open_vault(vaulted)

    assert again is not None
    assert len(set(keys.values())) == len(STORES)
    assert all(again.key(name) == key and len(key) == 32 for name, key in keys.items())
    text = (vaulted / "vault.json").read_bytes()
    assert all(key not in text and key.hex().encode() not in text for key in keys.values())


def test_rotation_writes_by_a_new_key_and_reads_the_old(vaulted: Path) -> None:
    """An open vault that did not see a rotation reads what the new key sealed, too."""
    before = open_vault(vaulted)
    assert before is not None
    old = seal_bytes(before.keys("memory"), b"old", name="n")

    assert rotate_store(vaulted, ["memory"], asking=PHRASE) == {"memory": 2}

    after = open_vault(vaulted)
    assert after is not None
    assert after.key("memory") != before.first_key("memory") == after.first_key("memory")
    assert after.key_id("memory") == 2
    new = seal_bytes(after.keys("memory"), b"new", name="n")
    assert unseal_bytes(after.keys("memory"), old, name="n") == b"old"
    assert unseal_bytes(before.keys("memory"), new, name="n") == b"new"


def test_wrapping_anew_keeps_the_data_keys_and_removes_the_old_one(
    vaulted: Path, tmp_path: Path
) -> None:
    """From a file to a passphrase: the same data keys, and the file is gone."""
    before = open_vault(vaulted)
    assert before is not None

    rewrap(vaulted, kind="passphrase-env", place="WORDS", asking=PHRASE)

    after = open_vault(vaulted, asking=PHRASE)
    assert after is not None
    assert after.key("prefix") == before.key("prefix")
    assert not (tmp_path / "key").exists()


def test_a_passphrase_that_is_wrong_missing_or_short_is_said(tmp_path: Path) -> None:
    """Each is a sentence of its own, and a short one makes nothing."""
    with pytest.raises(VaultError, match="of 5 characters"):
        init_vault(tmp_path, kind="passphrase-env", place="W", asking=Asking({"W": "short"}))
    assert read_facts(tmp_path) is None
    init_vault(tmp_path, kind="passphrase-env", place="WORDS", asking=PHRASE)

    with pytest.raises(VaultError, match="is not this vault's"):
        open_vault(tmp_path, asking=Asking({"WORDS": "another phrase"}))
    with pytest.raises(VaultError, match="WORDS, which is not set"):
        open_vault(tmp_path, asking=Asking({}))


def test_a_passphrase_is_asked_for_twice_when_it_is_made(tmp_path: Path) -> None:
    """A slip would lock everything for good."""
    said = iter(["the first one", "the other one"])

    with pytest.raises(VaultError, match="differ"):
        init_vault(tmp_path, kind="passphrase", place="", asking=Asking({}, lambda _: next(said)))
    assert read_facts(tmp_path) is None


def test_a_passphrase_comes_from_an_open_descriptor(tmp_path: Path) -> None:
    """Its first line counts; one that is closed is said."""
    reading, writing = os.pipe()
    os.write(writing, b"correct horse battery\nmore")
    os.close(writing)
    init_vault(tmp_path, kind="passphrase-fd", place=str(reading), asking=PHRASE)

    with pytest.raises(VaultError, match=f"file descriptor {reading}, which cannot be read"):
        open_vault(tmp_path)


def test_attack_a_key_file_that_others_may_read_is_refused(vaulted: Path, tmp_path: Path) -> None:
    """A key that others may have read is none."""
    (tmp_path / "key").chmod(0o644)

    with pytest.raises(VaultError, match="others may use the key file"):
        open_vault(vaulted)


def test_a_key_file_that_is_gone_or_another_is_said(vaulted: Path, tmp_path: Path) -> None:
    """Neither is mended by a new key."""
    key = tmp_path / "key"
    key.write_text("00" * 32)
    with pytest.raises(VaultError, match="is not this vault's"):
        open_vault(vaulted)
    key.write_text("no key")
    with pytest.raises(VaultError, match="holds no key"):
        open_vault(vaulted)
    key.unlink()
    with pytest.raises(VaultError, match="cannot be read"):
        open_vault(vaulted)
    assert not key.exists()


@pytest.mark.parametrize("change", ["swap", "drop", "format", "cut"])
def test_attack_a_changed_vault_is_refused(vaulted: Path, change: str) -> None:
    """Keys of two stores that change places, one that is gone, another format, half a file."""
    path = vaulted / "vault.json"
    table = json.loads(path.read_text())
    stores = table["stores"]
    if change == "swap":
        stores["memory"], stores["outbox"] = stores["outbox"], stores["memory"]
    elif change == "drop":
        del stores["memory"]
    elif change == "format":
        table["format"] = 2
    text = json.dumps(table)
    path.write_text(text[:100] if change == "cut" else text)

    with pytest.raises(VaultError, match="damaged"):
        open_vault(vaulted)


def test_erasing_leaves_no_key(vaulted: Path, tmp_path: Path) -> None:
    """Both the wrapped keys and what wrapped them are gone, and an open vault is forgotten."""
    open_vault(vaulted)

    erase_vault(vaulted)

    assert open_vault(vaulted) is None
    assert not (tmp_path / "key").exists()
    with pytest.raises(InputError, match="there is no vault"):
        erase_vault(vaulted)


def test_a_second_vault_and_unknown_stores_are_refused(vaulted: Path) -> None:
    """A vault is not made over another one; names are checked."""
    with pytest.raises(InputError, match="exists already"):
        init_vault(vaulted, kind="key-file", place="x", asking=PHRASE)
    with pytest.raises(InputError, match="no store 'memmory'"):
        rotate_store(vaulted, ["memmory"], asking=PHRASE)
    vault = open_vault(vaulted)
    assert vault is not None
    with pytest.raises(InputError, match="no store"):
        vault.key("x")


def test_attack_erasing_removes_no_other_file(vaulted: Path, tmp_path: Path) -> None:
    """A vault that somebody changed to name another file does not have it removed."""
    other = tmp_path / "letters"
    other.write_text("dear")
    other.chmod(0o600)
    path = vaulted / "vault.json"
    table = json.loads(path.read_text())
    table["source"]["place"] = str(other)
    path.write_text(json.dumps(table))

    with pytest.raises(VaultError, match="holds no key"):
        erase_vault(vaulted)
    assert other.read_text() == "dear"
