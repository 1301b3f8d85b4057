"""`onhand sign`, `onhand verify` and `onhand trust`, and what other commands take."""

import json
import shutil
from pathlib import Path

import pytest

from onhand.cli.main import main

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that nobody signed, on a device that takes signed ones alone."""
    monkeypatch.setenv("ONHAND_TRUST", "signed")
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    shutil.copytree(TINY, tmp_path / "bundle")
    return tmp_path / "bundle"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """A command's exit code, and what it wrote."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, out + err


def asked(bundle: Path, *more: str) -> tuple[str, ...]:
    """The words of a command that uses a bundle."""
    return ("run", str(bundle), "--prompt", "hello", "--max-tokens", "2", "--no-trials", *more)


def test_an_unsigned_bundle_is_refused_until_it_is_signed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By exit code 7, one sentence, and what to do."""
    code, said = run(capsys, *asked(bundle))
    assert code == 7
    assert "is not signed" in said
    assert said.count("\n") == 1
    assert run(capsys, *asked(bundle, "--allow-unsigned"))[0] == 0

    code, said = run(capsys, "sign", str(bundle))
    assert (code, "as release 1" in said) == (0, True)
    assert run(capsys, *asked(bundle))[0] == 0


def test_a_makers_key_is_trusted_revoked_and_followed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From another machine's build to this one's refusal."""
    key = tmp_path / "maker.key"
    public = run(capsys, "trust", "make", str(key))[1].strip()
    run(capsys, "sign", str(bundle), "--key", str(key), "--release", "4", "--days", "9")
    assert "not trusted here" in run(capsys, "verify", str(bundle))[1]
    assert run(capsys, *asked(bundle))[0] == 7

    assert run(capsys, "trust", "add", public, "--name", "maker", "--days", "10")[0] == 0
    assert run(capsys, *asked(bundle))[0] == 0
    code, said = run(capsys, "verify", str(bundle), "--require-signed", "--json")
    assert (code, json.loads(said)["signature"], json.loads(said)["release"]) == (0, "trusted", 4)
    run(capsys, "sign", str(bundle), "--key", str(key), "--release", "3")
    code, said = run(capsys, *asked(bundle, "--allow-unsigned"))
    assert (code, "an older one is not taken" in said) == (7, True)

    listed = json.loads(run(capsys, "trust", "--json")[1])
    assert [one["name"] for one in listed["keys"]] == ["maker"]
    assert "revoked" in run(capsys, "trust", "revoke", "maker")[1]
    assert run(capsys, "verify", str(bundle))[0] == 7


def test_a_devices_own_key_is_replaced(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Others accept the new one by the old one's word."""
    public = run(capsys, "trust", "key")[1].split()[0]
    statement = tmp_path / "statement.json"
    run(capsys, "trust", "rotate", str(statement))
    run(capsys, "sign", str(bundle), "--json")
    assert "followed by another" in run(capsys, "trust")[1]

    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "other"))
    assert "no key is trusted" in run(capsys, "trust")[1]
    run(capsys, "trust", "add", public, "--name", "first device")
    assert run(capsys, *asked(bundle))[0] == 7
    assert run(capsys, "trust", "accept", str(statement), "--json")[0] == 0
    assert run(capsys, *asked(bundle))[0] == 0
    assert "first device" in run(capsys, "verify", str(bundle))[1]


@pytest.mark.parametrize(
    "words",
    [
        ("trust", "add"),
        ("trust", "add", "ed25519:12"),
        ("trust", "revoke", "nobody"),
        ("trust", "accept", "missing.json"),
        ("trust", "dance"),
        ("sign", "missing"),
    ],
)
def test_slips_are_refused(
    bundle: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2 and one sentence."""
    code, said = run(capsys, *words)

    assert code == 2
    assert said.count("\n") == 1


def test_a_file_that_is_there_is_not_written_over(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by a new key nor by a statement."""
    (tmp_path / "there").write_text("x")

    for action in ("make", "rotate"):
        code, said = run(capsys, "trust", action, str(tmp_path / "there"))
        assert (code, "exists already" in said) == (2, True)


def test_the_environment_says_whether_bundles_are_checked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`any` takes all; a slip is refused, for it must not switch the check off."""
    monkeypatch.setenv("ONHAND_TRUST", "any")
    assert run(capsys, *asked(bundle))[0] == 0
    monkeypatch.setenv("ONHAND_TRUST", "sinned")
    assert run(capsys, *asked(bundle))[0] == 2
    monkeypatch.setenv("ONHAND_TRUST", "signed")
    assert run(capsys, "verify", str(bundle), "--require-signed")[0] == 7
    assert "none: nobody vouches" in run(capsys, "verify", str(bundle))[1]
