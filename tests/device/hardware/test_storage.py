"""The storage's speed, on a real folder."""

import os
import sys
from pathlib import Path

import pytest

from onhand.core.errors import ResourceError
from onhand.device.hardware.storage import measure_storage


def test_a_folder_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    """Both ways, with whole blocks; nothing stays behind."""
    found = measure_storage(tmp_path / "new", size_bytes=3 * 2**20, runs=2)

    assert found.write > 0
    assert (found.read > 0) == (sys.platform in {"linux", "darwin"})
    assert found.size_bytes >= 3 * 2**20
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than filled to the brim."""
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    with pytest.raises(ResourceError, match="too little room"):
        measure_storage(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the system says of it, and nothing half-written stays."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        measure_storage(tmp_path, size_bytes=2**20)

    assert list(tmp_path.iterdir()) == []
