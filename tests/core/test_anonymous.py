"""Files in memory alone: nobody changes them, and a system that has none is told."""

import os
import sys
from pathlib import Path

import pytest

from onhand.core.anonymous import memory_file
from onhand.core.errors import ResourceError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's anonymous files")


def test_content_in_memory_cannot_be_changed(tmp_path: Path) -> None:
    """What was checked stays what it is; an empty file is one too."""
    path = memory_file(tmp_path / "a", 3, lambda room: room.__setitem__(slice(None), b"abc"))

    with pytest.raises(PermissionError), path.open("r+b") as file:
        file.write(b"x")
    assert path.read_bytes() == b"abc"
    assert str(path) == str(tmp_path / "a")
    assert memory_file(tmp_path / "b", 0, lambda _: None).read_bytes() == b""


def test_a_system_without_anonymous_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plain copy in their stead."""
    monkeypatch.setattr(sys, "platform", "elsewhere")

    with pytest.raises(ResourceError, match="needs Linux's anonymous files"):
        memory_file(tmp_path / "a", 1, lambda _: None)


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate"])
def test_no_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """As a lack of memory, in one sentence."""

    def fail(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResourceError, match="Cannot allocate memory"):
        memory_file(tmp_path / "a", 1, lambda _: None)
