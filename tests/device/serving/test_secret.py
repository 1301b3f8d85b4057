"""The server's secret: made once, its owner's alone."""

import os
from pathlib import Path

import pytest

from onhand.core.errors import InputError, ResourceError
from onhand.device.serving.secret import derived, server_secret


def test_it_is_made_once(tmp_path: Path) -> None:
    """And is another one in another folder."""
    secret = server_secret(tmp_path / "a")

    assert len(secret) == 32
    assert server_secret(tmp_path / "a") == secret
    assert server_secret(tmp_path / "b") != secret
    assert [path.name for path in (tmp_path / "a" / "keys").iterdir()] == ["serving.key"]


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """A file that others may read is no secret."""
    server_secret(tmp_path)
    path = tmp_path / "keys" / "serving.key"
    assert path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0

    path.chmod(0o640)

    with pytest.raises(InputError, match="others may read it"):
        server_secret(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_attack_a_damaged_secret_is_not_used(tmp_path: Path, content: bytes) -> None:
    """Nothing is derived from what is not one."""
    server_secret(tmp_path)
    (tmp_path / "keys" / "serving.key").write_bytes(content)

    with pytest.raises(InputError, match="has not 32 bytes"):
        server_secret(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_attack_a_link_is_not_followed(tmp_path: Path) -> None:
    """It would lead to a file that somebody else knows."""
    known = tmp_path / "known"
    known.write_bytes(b"x" * 32)
    known.chmod(0o600)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "serving.key").symlink_to(known)

    with pytest.raises(ResourceError, match="the server's secret"):
        server_secret(tmp_path)


def test_purposes_have_secrets_of_their_own() -> None:
    """None of which is the first."""
    assert len({derived(b"s", "a"), derived(b"s", "b"), derived(b"t", "a"), b"s"}) == 4
