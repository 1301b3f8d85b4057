"""Files to a board: only what it lacks, from where it was cut off, checked there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.host.target.board import FILE_BYTES
from tests.host.target.conftest import Board
from tests.host.target.test_link import connect

from onhand.core.errors import ResourceError
from onhand.core.progress import Quiet
from onhand.host.target import copying
from onhand.host.target.copying import copy_files, file_content
from onhand.host.target.link import Link

FREE = 2**30


@pytest.fixture
def link(board: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A connection with the board, by which files go in small pieces."""
    monkeypatch.setattr(copying, "PIECE_BYTES", 1000)
    made = connect(board)
    yield made
    made.close()


def place(board: Board, name: str) -> Path:
    """Where a file lies on the board."""
    return board.home / ".cache" / "onhand-on-target" / name


def test_only_what_is_missing_is_sent(link: Link, board: Board) -> None:
    """What the board has by its hash is not sent again, whatever it is called."""
    first, second = file_content(b"a" * 2500), file_content(b"")

    sent = copy_files(link, [first], free_bytes=FREE, progress=Quiet())
    again = copy_files(link, [first, second], free_bytes=FREE, progress=Quiet())

    assert (sent, again) == (2500, 0)
    assert place(board, first.name).read_bytes() == b"a" * 2500
    assert place(board, second.name).read_bytes() == b""


def test_a_copy_that_was_cut_off_goes_on(link: Link, board: Board) -> None:
    """What had arrived is not sent again."""
    content = os.urandom(3500)
    whole = file_content(content)
    link.ask("put", payload=content[:2000], name=whole.name, offset=0)

    sent = copy_files(link, [whole], free_bytes=FREE, progress=Quiet())

    assert sent == 1500
    assert place(board, whole.name).read_bytes() == content


@pytest.mark.parametrize("beginning", [b"x" * 2000, b"x" * 3500])
def test_a_wrong_beginning_is_sent_anew(link: Link, board: Board, beginning: bytes) -> None:
    """What was there before is believed only if the whole has the right hash."""
    whole = file_content(b"a" * 3500)
    link.ask("put", payload=beginning, name=whole.name, offset=0)

    copy_files(link, [whole], free_bytes=FREE, progress=Quiet())

    assert place(board, whole.name).read_bytes() == b"a" * 3500


def test_a_file_that_was_changed_on_the_board_is_sent_again(link: Link, board: Board) -> None:
    """What lies there is hashed, not believed."""
    whole = file_content(b"a" * 100)
    copy_files(link, [whole], free_bytes=FREE, progress=Quiet())
    place(board, whole.name).write_bytes(b"b" * 100)

    assert copy_files(link, [whole], free_bytes=FREE, progress=Quiet()) == 100


def test_a_file_that_changes_meanwhile_is_told(link: Link, tmp_path: Path) -> None:
    """What arrives is not what was promised."""
    source = tmp_path / "weights"
    source.write_bytes(b"a" * 100)
    promised = file_content(source)
    source.write_bytes(b"b" * 100)

    with pytest.raises(ResourceError, match="what arrived is not what was sent"):
        copy_files(link, [promised], free_bytes=FREE, progress=Quiet())


def test_too_little_room_is_told_before_anything_is_sent(link: Link, board: Board) -> None:
    """The board says how much it has."""
    whole = file_content(b"a" * 3500)

    with pytest.raises(ResourceError, match="must be copied and 1000 B are free there"):
        copy_files(link, [whole], free_bytes=1000, progress=Quiet())
    assert not place(board, "files").exists()


def test_a_disk_that_is_full_in_the_middle_is_told(
    link: Link, board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here the board's limit of a file's size stands for it: the system's error is of its kind."""
    monkeypatch.setattr(copying, "PIECE_BYTES", 16 * 2**20)
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(FILE_BYTES + 1)

    with pytest.raises(ResourceError, match="the disk is full there"):
        copy_files(link, [file_content(source)], free_bytes=FREE, progress=Quiet())


def test_a_folder_is_gathered_from_what_is_there(link: Link, board: Board) -> None:
    """What was in it before is gone."""
    one, two = file_content(b"one"), file_content(b"two")
    copy_files(link, [one, two], free_bytes=FREE, progress=Quiet())
    link.ask("gather", folder="bundles/x", files={"old": one.name})

    link.ask("gather", folder="bundles/x", files={"a": one.name, "deep/b": two.name})

    found = {p.name: p.read_text() for p in place(board, "bundles/x").rglob("*") if p.is_file()}
    assert found == {"a": "one", "b": "two"}
