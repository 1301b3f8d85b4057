"""`onhand seal`, and commands on what it made."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.sealed_header import public_of, recipient_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's anonymous files")


@pytest.fixture
def vault(home: Path, tmp_path: Path) -> Path:
    """A state folder with a vault."""
    assert main(["vault", "init", "--key-file", str(tmp_path / "key")]) == 0
    return home


def own(capsys: pytest.CaptureFixture[str]) -> str:
    """What this device prints as its recipient."""
    capsys.readouterr()
    assert main(["vault", "recipient", "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["recipient"])


def test_sealed_for_a_device_it_opens_there(
    vault: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verified by the same hashes, after a rotation too; its report is left out, and said to be."""
    recipient = own(capsys)

    assert main(["seal", str(bundle.root), "--to", recipient, "--to", "this"]) == 0
    said = capsys.readouterr()
    assert "sealed for 1 device\n" in said.out
    assert "its report stays behind" in said.err
    sealed = tmp_path / "assistant.sealed"
    assert not (sealed / "report.json").exists()
    assert main(["vault", "rotate", "--store", "bundles"]) == 0
    assert own(capsys) != recipient
    assert main(["verify", str(sealed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest_sha256"] == bundle.manifest_sha256
    assert found["unlisted"] == []


def test_attack_a_device_that_it_is_not_sealed_for(
    vault: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another key, no vault and a locked one: a sentence and exit code 8 each."""
    other = recipient_text(public_of(b"o" * 32))
    out = tmp_path / "out"
    assert main(["seal", str(bundle.root), "-o", str(out), "--to", other, "--json"]) == 0
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "answer": "b"}\n')
    for command, *more in (
        ["verify"],
        ["inspect"],
        ["run", "--prompt", "x", "--allow-unsigned"],
        ["bench", "--allow-unsigned"],
        ["export", "--to", "gguf", "-o", str(tmp_path / "plain"), "--allow-unsigned"],
    ):
        assert main([command, str(out), *more]) == 8, command
        assert "not for this one" in capsys.readouterr().err
    (tmp_path / "key").unlink()
    assert main(["verify", str(out)]) == 8
    shutil.rmtree(vault)
    assert main(["verify", str(out)]) == 8
    assert "this device has no vault" in capsys.readouterr().err


def test_attack_a_damaged_file_is_one_sentence(
    vault: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the exit code of the vault."""
    out = tmp_path / "out"
    assert main(["seal", str(bundle.root), "-o", str(out), "--to", "this"]) == 0
    path = out / "int8.safetensors"
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)

    assert main(["verify", str(out)]) == 8
    assert "does not open: the file was changed" in capsys.readouterr().err


def test_what_cannot_be_sealed_for_is_said(
    home: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """No recipient, a slip, and a device without a vault."""
    assert main(["seal", str(bundle.root)]) == 2
    assert "give --to RECIPIENT" in capsys.readouterr().err
    assert main(["seal", str(bundle.root), "--to", "x25519:12"]) == 2
    assert main(["seal", str(bundle.root), "--to", "this"]) == 2
    assert main(["vault", "recipient"]) == 2
    assert not bundle.root.with_name("assistant.sealed").exists()
