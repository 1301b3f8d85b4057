"""Heads that lie where the vault's key is: whoever has the state folder alone is found out."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.device.audit import elsewhere as module
from onhand.device.audit.elsewhere import kept_elsewhere
from onhand.device.audit.heads import read_heads
from onhand.device.audit.keys import AuditKeys, audit_keys, vault_of
from onhand.device.audit.log import open_audit
from onhand.device.audit.settings import AuditSettings
from onhand.device.audit.verifying import verify_folder
from onhand.device.vault.sources import Asking, Source
from onhand.device.vault.vault import VaultFacts, init_vault, open_vault

CHAIN, HEADS = "audit/sealed-1", "audit-heads/sealed-1.heads"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder with a vault, whose log was begun twice."""
    home = tmp_path / "home"
    init_vault(home, kind="key-file", place=str(tmp_path / "disk"), asking=Asking({}))
    for number in range(2):
        log = open_audit(AuditSettings(), home, keys_of(home))
        log.record({"id": str(number)}).result(20)
        log.close()
    return home


def keys_of(home: Path) -> AuditKeys:
    """Those of the vault."""
    return audit_keys(home, vault_of(home))


def shortened(home: Path) -> None:
    """Somebody without any key takes the last records away, and the heads that tell of them."""
    (records,) = (home / CHAIN).glob("records-*.log")
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:4]))
    heads = read_heads(home / HEADS)
    kept = [line for line in heads if b'"count": 4' in line]
    assert len(kept) == 1
    (home / HEADS).write_bytes(kept[0] + b"\n")


def found(home: Path, *, looks_elsewhere: bool) -> list[str]:
    """What is wrong with the log."""
    place = kept_elsewhere(home) if looks_elsewhere else None
    more = [] if place is None else place.kept("sealed-1")
    keys = keys_of(home)
    verdict = verify_folder(
        home / CHAIN, home / HEADS, public=keys.public, code=keys.code, more=more
    )
    return [one.kind for one in verdict.findings]


def test_attack_a_log_and_its_heads_cut_alike_are_found(home: Path) -> None:
    """The heads beside the vault's key say how long it was."""
    assert found(home, looks_elsewhere=True) == []
    shortened(home)

    assert found(home, looks_elsewhere=True) == ["cut"]


def test_without_the_heads_elsewhere_a_log_and_its_heads_cut_alike_are_not_found(
    home: Path,
) -> None:
    """So that it is they that find it."""
    shortened(home)

    assert found(home, looks_elsewhere=False) == []


def test_a_place_that_is_gone_stops_nothing(home: Path, tmp_path: Path) -> None:
    """As a disk that is taken out when the vault is open: it is counted, and said."""
    place = tmp_path / "disk.heads"
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    place.write_text("in the way")

    log = open_audit(AuditSettings(), home, keys_of(home))
    log.record({"id": "2"}).result(20)
    log.close()

    assert log.counts.heads_failed == 2
    assert found(home, looks_elsewhere=False) == []


def test_the_keystore_holds_the_last_head_of_each_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry each, beside that of the vault's key."""
    entries: dict[tuple[str, str], str] = {}
    keys: Mapping[str, tuple[int, ...]] = {}
    facts = VaultFacts(Source(kind="keystore", place="abc"), keys)
    monkeypatch.setattr(module, "read_facts", lambda home: facts)
    monkeypatch.setattr(
        module, "to_keystore", lambda service, name, text: entries.update({(service, name): text})
    )
    monkeypatch.setattr(module, "from_keystore", lambda *entry: entries.get(entry))
    place = kept_elsewhere(tmp_path)
    assert place is not None

    place.keep("sealed-2", b"{}\n")
    place.keep("sealed-2", b"{1}\n")

    assert entries == {("onhand audit", "abc sealed-2"): "{1}"}
    assert place.kept("sealed-2") == [b"{1}"]
    assert place.kept("sealed-1") == []
    assert place.chains() == ["sealed-2"]


def test_without_a_vault_or_with_a_passphrase_there_is_no_such_place(tmp_path: Path) -> None:
    """A passphrase is nowhere."""
    assert kept_elsewhere(tmp_path) is None
    asking = Asking({"WORDS": "correct horse battery"})
    init_vault(tmp_path, kind="passphrase-env", place="WORDS", asking=asking)

    assert kept_elsewhere(tmp_path) is None
    assert open_vault(tmp_path, asking=asking) is not None
    with pytest.raises(InputError, match="exists already"):
        init_vault(tmp_path, kind="passphrase-env", place="WORDS", asking=asking)
