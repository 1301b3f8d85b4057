"""The caches that a made folder shows."""

from pathlib import Path

import pytest

from onhand.core.profile_parts import CacheLevel
from onhand.device.hardware.caches import data_caches


def show(root: Path, number: int, **files: str) -> None:
    """Write one cache's files."""
    place = root / f"sys/devices/system/cpu/cpu0/cache/index{number}"
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(f"{text}\n", encoding="ascii")


def test_caches_for_data_are_listed_nearest_first(tmp_path: Path) -> None:
    """That for instructions is left out."""
    show(tmp_path, 0, type="Data", level="1", size="48K", shared_cpu_list="0,4")
    show(tmp_path, 1, type="Instruction", level="1", size="32K", shared_cpu_list="0,4")
    show(tmp_path, 3, type="Unified", level="3", size="16M", shared_cpu_list="0-3,8-9")
    show(tmp_path, 2, type="Unified", level="2", size="1024K", shared_cpu_list="0")

    assert data_caches(tmp_path) == (
        CacheLevel(level=1, size_bytes=48 * 2**10, shared_by=2),
        CacheLevel(level=2, size_bytes=2**20, shared_by=1),
        CacheLevel(level=3, size_bytes=16 * 2**20, shared_by=6),
    )


@pytest.mark.parametrize(
    "wrong", [{"size": ""}, {"size": "much"}, {"level": "x"}, {"level": "0"}, {"type": "?"}]
)
def test_what_cannot_be_understood_is_left_out(tmp_path: Path, wrong: dict[str, str]) -> None:
    """No figure is better than a wrong one."""
    told = {"type": "Data", "level": "1", "size": "48K", "shared_cpu_list": "?"}
    show(tmp_path, 0, **(told | wrong))

    assert data_caches(tmp_path) == ()


def test_other_systems_show_none(tmp_path: Path) -> None:
    """No folder, no caches."""
    assert data_caches(tmp_path) == ()
