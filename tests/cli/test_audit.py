"""`onhand audit` as somebody types it: each way to tamper has its own sentence and exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onhand.cli.audit import EXIT_CODES
from onhand.cli.main import main
from onhand.device.audit.keys import audit_keys
from onhand.device.audit.log import open_audit
from onhand.device.audit.settings import AuditSettings
from onhand.device.audit.verifying import KINDS

FACTS = {"who": "ann", "action": "POST", "route": "/v1/completions", "status": 200, "model": "toy"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with a log of eight records."""
    log = open_audit(AuditSettings(), tmp_path, audit_keys(tmp_path))
    for number in range(5):
        left = [{"backend": "cloud", "class": "public", "sha256": "0" * 64}] if number else []
        log.record({**FACTS, "id": str(number), "left": left}).result(20)
    log.close()
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path))
    return tmp_path


def lines(home: Path) -> tuple[Path, list[bytes]]:
    """The file of records, and its lines."""
    (path,) = (home / "audit" / "chain-1").glob("records-*.log")
    return path, path.read_bytes().splitlines(keepends=True)


def test_a_log_that_nobody_touched_is_sound(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, and for programs."""
    assert main(["audit", "verify"]) == 0
    assert "records 1 to 8 are as they were written" in capsys.readouterr().out
    assert main(["audit", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_sound"] is True


def edit(found: list[bytes]) -> list[bytes]:
    return [*found[:4], found[4].replace(b"ann", b"bob"), *found[5:]]


def delete(found: list[bytes]) -> list[bytes]:
    return found[:4] + found[5:]


def reorder(found: list[bytes]) -> list[bytes]:
    return [*found[:4], found[5], found[4], *found[6:]]


def cut(found: list[bytes]) -> list[bytes]:
    return found[:6]


def replace(found: list[bytes]) -> list[bytes]:
    return [b"0" * 64 + line[64:] for line in found]


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (edit, "edited"),
        (delete, "deleted"),
        (reorder, "reordered"),
        (cut, "cut"),
        (replace, "replaced"),
    ],
)
def test_attack_each_way_to_tamper_has_its_exit_code(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    attack: Callable[[list[bytes]], list[bytes]],
    kind: str,
) -> None:
    """And its sentence."""
    path, found = lines(home)
    path.write_bytes(b"".join(attack(found)))

    assert main(["audit", "verify"]) == EXIT_CODES[kind]
    assert f"({kind})" in capsys.readouterr().out


def test_attack_missing_heads_have_their_exit_code(home: Path) -> None:
    """Nothing else says how long the log should be."""
    (home / "audit-heads" / "chain-1.heads").unlink()

    assert main(["audit", "verify"]) == EXIT_CODES["unanchored"]


def test_attack_a_log_that_is_gone_is_missed(home: Path) -> None:
    """By its heads."""
    for path in (home / "audit" / "chain-1").iterdir():
        path.unlink()
    (home / "audit" / "chain-1").rmdir()

    assert main(["audit", "verify"]) == EXIT_CODES["cut"]


def test_exit_codes_are_all_different() -> None:
    """One for each way."""
    assert set(EXIT_CODES) == set(KINDS)
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)


def test_records_are_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The latest, with who asked and what left the device."""
    assert main(["audit", "show", "--last", "3"]) == 0
    shown = capsys.readouterr().out
    assert "ann" in shown
    assert "cloud" in shown
    assert main(["audit", "show", "--json", "--bodies"]) == 0
    assert len(json.loads(capsys.readouterr().out)["records"]) == 8


def test_an_export_is_checked_by_whoever_has_the_public_key(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the device; one of another key is found out."""
    out = home / "out.jsonl"
    public = audit_keys(home).public.hex()
    assert main(["audit", "export", "-o", str(out)]) == 0
    assert public in capsys.readouterr().err

    assert main(["audit", "verify", str(out), "--public-key", public]) == 0
    assert main(["audit", "verify", str(out)]) == 0
    assert "itself names" in capsys.readouterr().err
    assert (
        main(["audit", "verify", str(out), "--public-key", "00" * 32]) == EXIT_CODES["unanchored"]
    )
    out.write_text(out.read_text().replace("ann", "bob", 1))
    assert main(["audit", "verify", str(out), "--public-key", public]) == EXIT_CODES["edited"]


@pytest.mark.parametrize("content", ["", "[]\n", "{}\n", '{"format": 2}\n', "\x00\n"])
def test_attack_what_is_no_export_is_refused(home: Path, content: str) -> None:
    """In one sentence."""
    (home / "out.jsonl").write_text(content)

    assert main(["audit", "verify", str(home / "out.jsonl")]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "erase"],
        ["audit", "export"],
        ["audit", "verify", "missing.jsonl"],
        ["audit", "verify", "out.jsonl", "--public-key", "xyz"],
    ],
)
def test_slips_are_told(home: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of what was given wrongly."""
    monkeypatch.chdir(home)

    assert main(words) == 2


def test_without_a_log_there_is_nothing_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a key made for it."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("ONHAND_HOME", str(other))

    assert main(["audit", "verify"]) == 2
    assert "there is no audit log" in capsys.readouterr().err
    (other / "audit" / "chain-1").mkdir(parents=True)
    assert main(["audit", "verify"]) == 2
    assert "key of the audit log" in capsys.readouterr().err
    assert not (other / "keys").exists()
