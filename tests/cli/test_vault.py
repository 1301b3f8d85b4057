"""`onhand vault` by its command line."""

from pathlib import Path

import pytest

from onhand.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder."""
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_vault_from_its_making_to_its_end(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made, shown, rotated and erased; each says what is so, and where the key comes from."""
    key = str(tmp_path / "key")

    assert main(["vault", "status"]) == 0
    assert "not encrypted" in capsys.readouterr().out
    assert main(["vault", "init", "--key-file", key]) == 0
    assert f"key comes from the key file {key}" in capsys.readouterr().err
    assert main(["vault", "rotate", "--store", "all"]) == 0
    assert main(["vault", "status"]) == 0
    assert "store prefix: key 2" in capsys.readouterr().out
    assert main(["vault", "erase", "--yes"]) == 0
    assert not (home / "vault.json").exists()


def test_how_a_key_is_had_must_be_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no default, and a locked vault has an exit code of its own."""
    assert main(["vault", "init"]) == 2
    assert "say where the key comes from" in capsys.readouterr().err
    assert main(["vault", "init", "--passphrase-env", "ONHAND_TEST_UNSET"]) == 8
    assert "which is not set" in capsys.readouterr().err
    assert not (home / "vault.json").exists()
