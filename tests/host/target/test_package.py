"""The runtime as a file that pip installs on a board."""

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.host.target import package
from onhand.host.target.package import (
    Machine,
    choose_package,
    installed_wheel,
    source_archive,
    wheels_for,
)

LAPTOP = Machine(system="linux", machine="x86_64", tag="cpython-311")
BOARD = Machine(system="linux", machine="aarch64", tag="cpython-311")


@pytest.mark.parametrize(
    ("board", "has_native", "has_sources", "form"),
    [
        (LAPTOP, True, True, "compiled"),
        (replace(LAPTOP, tag="cpython-313"), True, False, "plain"),
        (replace(LAPTOP, tag="cpython-313", compiler="c++"), True, True, "source"),
        (BOARD, True, True, "plain"),
        (replace(BOARD, compiler="g++"), True, True, "source"),
        (replace(BOARD, compiler="g++"), True, False, "plain"),
        (LAPTOP, False, False, "plain"),
    ],
)
def test_the_best_form_that_a_board_can_take_is_sent(
    board: Machine, has_native: bool, has_sources: bool, form: str
) -> None:
    """Compiled where it runs, to be compiled where it can be, plain elsewhere, with the reason."""
    found, reason = choose_package(
        board, mine=LAPTOP, has_native=has_native, has_sources=has_sources
    )

    assert found == form
    assert bool(reason) == (form == "plain")


def test_a_wheel_holds_what_runs_here() -> None:
    """The same bytes each time; its record names every file; plain ones hold nothing compiled."""
    name, content = installed_wheel(is_compiled=False)

    assert installed_wheel(is_compiled=False) == (name, content)
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith("/RECORD"))
        listed = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
        assert (
            archive.read("onhand/__init__.py")
            == (package.package_folder() / "__init__.py").read_bytes()
        )
    assert sorted(listed) == sorted(names)
    assert [name for name in names if name.startswith("onhand/device/serving/page/static/")]
    assert not [name for name in names if name.endswith(".so") or "/native/src/" in name]


def test_an_archive_holds_the_sources_of_the_native_part() -> None:
    """What a compiler on the board needs, and nothing that was made."""
    root = package.source_root()
    assert root is not None

    name, content = source_archive(root)

    assert source_archive(root) == (name, content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = [entry.partition("/")[2] for entry in archive.getnames()]
    assert {"pyproject.toml", "CMakeLists.txt", "src/onhand/native/src/pack.cpp"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".so")]


def test_wheels_for_other_machines_are_not_copied(tmp_path: Path) -> None:
    """A folder may serve several boards."""
    for name in (
        "a-1-py3-none-any.whl",
        "b-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "b-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "c-1.tar.gz",
        "notes.txt",
    ):
        (tmp_path / name).touch()

    assert [path.name for path in wheels_for(tmp_path, BOARD)] == [
        "a-1-py3-none-any.whl",
        "b-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "c-1.tar.gz",
    ]


def test_a_folder_without_wheels_is_told(tmp_path: Path) -> None:
    """Before anything is copied."""
    with pytest.raises(InputError, match="holds no wheel for aarch64"):
        wheels_for(tmp_path, BOARD)
    with pytest.raises(InputError, match="is not a folder"):
        wheels_for(tmp_path / "none", BOARD)
