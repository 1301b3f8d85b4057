"""A chain of records goes on over files and processes, and says what of it was let go."""

import errno
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from tests.device.audit.kept import WHEN, chain_of, changed, files, found, kept, sign, verdict

from onhand.core.errors import InputError
from onhand.device.audit.chain import ChainBusy
from onhand.device.audit.records import Record, parse


def records(place: Path) -> Sequence[Record]:
    """All records of a log."""
    return [parse(line) for path in files(place) for line in path.read_bytes().splitlines()]


def test_the_next_process_goes_on(tmp_path: Path) -> None:
    """With the next number, and the same name."""
    place = kept(tmp_path, 3)
    chain = chain_of(place / "log")
    chain.append([("request", {"id": "next"})])
    chain.close()

    assert [one.seq for one in records(place)] == [1, 2, 3, 4, 5]
    assert records(place)[0].facts["log"] == chain.log
    assert found(place) == []
    assert verdict(place).after_head == 1


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    """The second is told."""
    chain = chain_of(tmp_path / "log")
    with pytest.raises(ChainBusy, match="another process"):
        chain_of(tmp_path / "log")
    chain.close()


def test_a_record_that_was_not_finished_is_mended(tmp_path: Path) -> None:
    """Nobody was told that it was written; its bytes' hash is kept."""
    place = kept(tmp_path, 3)
    with files(place)[0].open("ab") as file:
        file.write(b"0123 {half")
    assert verdict(place).unfinished_bytes == 10

    chain_of(place / "log").close()

    assert records(place)[-1].kind == "mend"
    assert records(place)[-1].facts["bytes"] == 10
    assert found(place) == []


def test_a_file_that_was_begun_and_is_empty_is_begun_again(tmp_path: Path) -> None:
    """As a process leaves it that ends between the two."""
    place = kept(tmp_path, 3)
    (place / "log" / f"records-{5:020d}.log").touch()

    chain_of(place / "log").close()

    assert len(files(place)) == 1


@pytest.mark.parametrize("content", [b"half", b"nothing\n"])
def test_nothing_follows_what_is_damaged(tmp_path: Path, content: bytes) -> None:
    """A new record would hide that."""
    place = kept(tmp_path, 3)
    files(place)[0].write_bytes(content)

    with pytest.raises(InputError, match="onhand audit verify"):
        chain_of(place / "log")


def test_old_files_go_when_a_record_says_so(tmp_path: Path) -> None:
    """The rest is provable; without that record it is not."""
    place = kept(tmp_path, 60, segment_bytes=4096)
    n_before = len(files(place))
    chain = chain_of(
        place / "log", segment_bytes=4096, now=lambda: WHEN + timedelta(days=2, seconds=1)
    )
    old = chain.prune(keep_s=2 * 86_400.0, most_bytes=0)
    for path in old:
        path.unlink()
    sign(chain, place / "heads")
    chain.close()

    assert len(old) == n_before - 1
    assert found(place) == []
    assert verdict(place).first > 1
    changed(place, lambda lines: lines[:-1], file=-1)
    assert found(place) == ["deleted", "cut"]


def test_files_that_are_too_many_go(tmp_path: Path) -> None:
    """The oldest, until the rest fits; the one that is written stays."""
    place = kept(tmp_path, 60, segment_bytes=4096)
    chain = chain_of(place / "log", segment_bytes=4096)

    old = chain.prune(keep_s=0, most_bytes=9000)
    again = chain.prune(keep_s=0, most_bytes=0)
    chain.close()

    assert list(old) == files(place)[: len(old)]
    assert 0 < len(old) < len(files(place))
    assert again == []


def test_a_process_that_ended_before_the_files_went_leaves_a_sound_log(tmp_path: Path) -> None:
    """The record is there, and so are they."""
    place = kept(tmp_path, 60, segment_bytes=4096)
    chain = chain_of(place / "log", segment_bytes=4096)
    chain.prune(keep_s=0, most_bytes=9000)
    chain.close()

    assert found(place) == []


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is taken back, and the next record follows the last that is whole."""
    place = kept(tmp_path, 3)
    chain = chain_of(place / "log")
    write = os.write

    def half(handle: int, content: bytes) -> int:
        if len(content) < 40:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(handle, content[: len(content) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(OSError, match="no space"):
            chain.append([("request", {"id": "lost"})])
    chain.append([("request", {"id": "kept"})])
    chain.close()

    assert found(place) == []
    assert [one.facts.get("id") for one in records(place)][-1] == "kept"
    assert [one.seq for one in records(place)] == [1, 2, 3, 4, 5]
