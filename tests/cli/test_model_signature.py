"""`onhand sign` and `onhand verify` in OpenSSF's form."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from onhand.cli.main import main

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"
FORM = ("--format", "openssf")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that nobody signed."""
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    shutil.copytree(TINY, tmp_path / "bundle")
    return tmp_path / "bundle"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """A command's exit code, and what it wrote."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, out + err


def test_a_makers_key_in_pem(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signed, checked with the public half, and refused when a file is another one."""
    key = ec.derive_private_key(7, ec.SECP256R1())
    private, public = tmp_path / "maker.pem", tmp_path / "maker.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert "no signature" in run(capsys, "verify", str(bundle), *FORM)[1]

    code, said = run(capsys, "sign", str(bundle), *FORM, "--key", str(private), "--json")
    told = json.loads(said)
    assert (code, told["format"], told["file"]) == (0, "openssf", "model.sig")
    code, said = run(capsys, "verify", str(bundle), *FORM, "--key", str(public), "--json")
    assert (code, json.loads(said)["n_files"]) == (0, told["n_files"])
    assert json.loads(run(capsys, "verify", str(bundle), "--json")[1])["unlisted"] == []
    assert run(capsys, "verify", str(bundle), *FORM)[0] == 7  # a key that nobody gave

    (tmp_path / "elsewhere.sig").write_bytes((bundle / "model.sig").read_bytes())
    (bundle / "report.html").write_text("")
    (bundle / "tokenizer.json").write_text("{}")
    elsewhere = ("--signature-file", str(tmp_path / "elsewhere.sig"))
    code, said = run(capsys, "verify", str(bundle), *FORM, "--key", str(public), *elsewhere)
    assert (code, "'tokenizer.json' is not as it was signed" in said) == (3, True)


def test_a_devices_own_key(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is trusted where it was made, until it is revoked."""
    code, said = run(capsys, "sign", str(bundle), *FORM)
    assert (code, f"{len(list(TINY.iterdir()))} files" in said) == (0, True)

    code, said = run(capsys, "verify", str(bundle), *FORM)
    assert (code, "signature by this device" in said) == (0, True)
    run(capsys, "trust", "revoke", "this device")
    code, said = run(capsys, "verify", str(bundle), *FORM)
    assert (code, "was revoked" in said) == (7, True)


def test_options_of_the_other_form(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is refused with a sentence."""
    for words, told in (
        (("sign", str(bundle), *FORM, "--release", "2"), "--release and --days"),
        (("verify", str(bundle), "--key", "x"), "belong to --format openssf"),
    ):
        code, said = run(capsys, *words)
        assert (code, told in said) == (2, True)
