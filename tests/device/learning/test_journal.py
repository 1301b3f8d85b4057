"""The journal: none is lost, and a torn end is cut and said."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.journal import (
    FIRST,
    MOST_RECORD_BYTES,
    Journal,
    framed,
    read_journal,
    read_records,
)

records = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


def written(path: Path, contents: list[bytes]) -> bytes:
    """Write a journal; return its bytes."""
    with Journal(path) as journal:
        for number, content in enumerate(contents):
            assert journal.append(content) == number
    return path.read_bytes()


def test_what_was_accepted_is_read_by_others_meanwhile(tmp_path: Path) -> None:
    """A reader needs no turn."""
    path = tmp_path / "deep" / "accepted.journal"
    with Journal(path) as journal:
        assert read_journal(path) == []
        journal.append(b"one")
        assert read_journal(path) == [b"one"]
        assert len(journal) == 1


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """And is not made by reading."""
    assert read_journal(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_journal_cut_at_any_byte_keeps_all_whole_records(tmp_path: Path) -> None:
    """Every prefix of the file opens, keeps what was whole, and goes on from there."""
    contents = [b"1", b"two", bytes(4)]
    whole = written(tmp_path / "whole", contents)
    ends = [len(FIRST)]
    for content in contents:
        ends.append(ends[-1] + 8 + len(content))
    path = tmp_path / "cut"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        n_whole = max(sum(end <= size for end in ends) - 1, 0)
        assert read_journal(path) == contents[:n_whole]
        with Journal(path) as journal:
            assert len(journal) == n_whole
            assert bool(journal.notes) is (size >= len(FIRST) and size not in ends)
            journal.append(b"next")
        assert read_journal(path) == [*contents[:n_whole], b"next"]


@given(contents=records, data=st.data())
def test_any_records_cut_anywhere_are_read_up_to_there(
    contents: list[bytes], data: st.DataObject
) -> None:
    """Whatever is in them."""
    whole = io.BytesIO()
    ends = [0]
    for content in contents:
        whole.write(framed(content))
        ends.append(whole.tell())
    size = data.draw(st.integers(0, whole.tell()))

    found = list(read_records(io.BytesIO(whole.getvalue()[:size])))

    assert found == contents[: sum(end <= size for end in ends) - 1]


@given(contents=records.filter(bool), data=st.data())
@settings(max_examples=25)
def test_a_damaged_byte_costs_only_what_follows_and_nothing_is_thrown_away(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], data: st.DataObject
) -> None:
    """The records before it stay; the rest is kept in a file of its own."""
    path = tmp_path_factory.mktemp("damaged") / "journal"
    content = bytearray(written(path, contents))
    place = data.draw(st.integers(len(FIRST), len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    with Journal(path) as journal:
        kept = len(journal)
        assert len(journal.notes) == 1

    assert read_journal(path) == contents[:kept]
    (aside,) = path.parent.glob("journal.cut-*")
    assert path.read_bytes() + aside.read_bytes() == bytes(content)


def test_zeros_at_the_end_are_no_records(tmp_path: Path) -> None:
    """A loss of power may leave them; they are cut, said, and not kept."""
    path = tmp_path / "journal"
    path.write_bytes(written(path, [b"one"]) + bytes(4096))

    with Journal(path) as journal:
        assert "4096 bytes" in journal.notes[0]
        assert len(journal) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["journal"]


@pytest.mark.parametrize("content", [b"", bytes(MOST_RECORD_BYTES + 1)], ids=["empty", "long"])
def test_a_record_of_no_sensible_size_is_refused(tmp_path: Path, content: bytes) -> None:
    """Before anything is written."""
    with Journal(tmp_path / "journal") as journal:
        with pytest.raises(InputError, match="must be 1 to"):
            journal.append(content)
        assert len(journal) == 0


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    """For reading and for writing."""
    path = tmp_path / "journal"
    path.write_text("my own notes, a line long", encoding="utf-8")

    with pytest.raises(InputError, match="no journal"):
        Journal(path)
    with pytest.raises(InputError, match="no journal"):
        read_journal(path)
    assert path.read_text(encoding="utf-8").startswith("my own")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two would write over each other."""
    with (
        Journal(tmp_path / "journal"),
        pytest.raises(InputError, match="another process"),
    ):
        Journal(tmp_path / "journal")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are Unix's")
def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """The example that did not fit was not accepted, and the next one that fits is."""
    script = """
import resource, signal, sys
from pathlib import Path
from onhand.core.errors import ResourceError
from onhand.device.learning.journal import Journal, read_journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
journal = Journal(path)
journal.append(b"one")
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    journal.append(b"x" * 1000)
except ResourceError as error:
    print("not accepted" in str(error))
journal.append(b"two")
print(read_journal(path))
"""
    path = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )

    assert done.stdout.split("\n")[:2] == ["True", "[b'one', b'two']"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """As a lack of the machine's."""
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(ResourceError, match="cannot be opened"):
        Journal(tmp_path / "file" / "journal")
