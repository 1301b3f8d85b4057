"""State in two generations: whatever is damaged, the last whole one is found."""

import errno
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.durable import Generations, Saved
from onhand.device.learning.methods.kept import Part


def saved(number: int) -> Saved:
    """A generation that is unlike every other."""
    return Saved(
        number=number,
        fields={"what": f"step {number}", "none": None},
        arrays={
            "values": np.full((2, 3), number, np.float32),
            "losses": np.arange(number, dtype=np.float64),
            "memory": np.arange(number, dtype=np.uint8),
            "scalar": np.array(number, dtype=np.int64),
        },
        parts={
            "memory": Part(number // 3, {"kept": np.full(5, number // 3, np.float16)}),
            "fisher": Part(0, {}),
        },
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """All fields and arrays, to the bit."""
    kept = Generations(tmp_path / "training", sync_s=0)
    for number in range(5):
        kept.write(saved(number))

    found, notes = kept.read()

    assert not notes
    assert found is not None
    assert (found.number, found.fields) == (4, saved(4).fields)
    for name, array in saved(4).arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].flags.writeable
    assert found.parts["memory"].revision == 1
    np.testing.assert_array_equal(found.parts["memory"].arrays["kept"], np.ones(5, np.float16))


def test_a_part_is_written_once_for_each_revision(tmp_path: Path) -> None:
    """And removed once no generation is made of it."""
    kept = Generations(tmp_path, sync_s=0)
    kept.write(saved(3))
    made = (tmp_path / "part-memory-1.bin").stat().st_mtime_ns
    kept.write(saved(4))
    again = Generations(tmp_path, sync_s=0)
    again.read()
    again.write(saved(5))

    assert (tmp_path / "part-memory-1.bin").stat().st_mtime_ns == made
    for number in (6, 7):
        again.write(saved(number))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"state-0.bin", "state-1.bin", "part-memory-2.bin", "part-fisher-0.bin"}


def test_what_is_forgotten_is_written_again(tmp_path: Path) -> None:
    """Another training may have the same numbers."""
    Generations(tmp_path).write(saved(3))
    kept = Generations(tmp_path)
    kept.read()
    kept.forget()
    other = replace(saved(4), parts={"memory": Part(1, {"kept": np.zeros(1, np.float32)})})
    kept.write(other)

    found, _ = Generations(tmp_path).read()

    assert found is not None
    assert found.parts["memory"].arrays["kept"].size == 1


@pytest.mark.parametrize("missing", [False, True])
def test_a_generation_with_a_damaged_part_is_not_whole(tmp_path: Path, missing: bool) -> None:
    """The one before has its own."""
    kept = Generations(tmp_path, sync_s=0)
    for number in (2, 3):
        kept.write(saved(number))
    part = tmp_path / "part-memory-1.bin"
    if missing:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])

    found, notes = Generations(tmp_path).read()

    assert found is not None
    assert found.number == 2
    assert "part-memory-1.bin" in notes[0] or "checksum" in notes[0]


def test_where_nothing_was_written_nothing_is_found(tmp_path: Path) -> None:
    """And nothing is made."""
    assert Generations(tmp_path / "none").read() == (None, [])
    assert not (tmp_path / "none").exists()


@given(data=st.data())
@settings(max_examples=25)
def test_a_generation_damaged_anywhere_leaves_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut at any byte, or with any byte changed, it is set aside and said."""
    folder = tmp_path_factory.mktemp("damaged")
    kept = Generations(folder, sync_s=0)
    for number in (3, 4):
        kept.write(saved(number))
    last = folder / "state-1.bin"
    content = bytearray(last.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    last.write_bytes(content)

    found, notes = kept.read()

    assert found is not None
    assert found.number == 3
    assert len(notes) == 1
    assert (folder / "state-1.damaged").exists()
    kept.write(saved(4))
    again, none = kept.read()
    assert again is not None
    assert (again.number, none) == (4, [])


def test_a_write_that_never_finished_is_not_seen(tmp_path: Path) -> None:
    """It lies beside its place."""
    kept = Generations(tmp_path)
    kept.write(saved(1))
    (tmp_path / "state-1.new").write_bytes(b"half")

    found, notes = kept.read()

    assert found is not None
    assert (found.number, notes) == (1, [])


def test_short_steps_are_brought_to_the_disk_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is there when it was written; what was brought to the disk is never touched by them."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    now = [0.0]
    kept = Generations(tmp_path, sync_s=1.0, clock=lambda: now[0])
    files: list[set[str]] = []
    counts: list[int] = []
    for number in range(3, 9):
        kept.write(saved(number))
        now[0] += 0.4
        files.append({path.name for path in tmp_path.glob("st*")})
        counts.append(len(synced))
        found, _ = Generations(tmp_path).read()
        assert found is not None
        assert found.number == number

    # The first one, then each that comes a second later; quick ones go when they are older.
    assert [bool(b - a) for a, b in pairwise([0, *counts])] == [True, False, False] * 2
    assert files[0] == {"state-0.bin"}
    assert files[2] == {"state-0.bin", "step-0.bin", "step-1.bin"}
    assert files[3] == {"state-0.bin", "state-1.bin"}


def test_a_loss_of_power_costs_quick_steps_alone(tmp_path: Path) -> None:
    """What was brought to the disk is whole, with its parts."""
    kept = Generations(tmp_path, clock=lambda: 0.0)
    for number in range(3, 8):
        kept.write(saved(number))
    for path in tmp_path.glob("step-*"):
        path.write_bytes(b"")

    found, notes = Generations(tmp_path).read()

    assert found is not None
    assert found.number == 3
    assert found.parts["memory"].revision == 1
    assert len(notes) == 2


def test_both_damaged_is_a_beginning(tmp_path: Path) -> None:
    """With a sentence for each, and nothing thrown away."""
    kept = Generations(tmp_path, sync_s=0)
    for number in (1, 2):
        kept.write(saved(number))
    for path in list(tmp_path.iterdir()):
        path.write_bytes(b"")

    found, notes = kept.read()

    assert found is None
    assert len(notes) == 2


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(ResourceError, match="cannot be written"):
        Generations(tmp_path / "file").write(saved(1))


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """Neither numbers that JSON lacks nor dtypes that readers lack."""
    kept = Generations(tmp_path)

    with pytest.raises(InputError, match="not JSON"):
        kept.write(Saved(number=1, fields={"loss": float("nan")}, arrays={}))
    with pytest.raises(InputError, match="complex64"):
        kept.write(Saved(number=1, fields={}, arrays={"a": np.zeros(1, np.complex64)}))
    with pytest.raises(InputError, match="no name of a file"):
        kept.write(Saved(number=1, fields={}, arrays={}, parts={"../x": Part(0, {})}))


def test_a_disk_that_is_full_keeps_nothing_of_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step before stays, and the rest of the disk is free again."""
    kept = Generations(tmp_path, sync_s=0)
    kept.write(saved(1))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="No space left on device; free some disk"):
            kept.write(saved(2))

    assert not list(tmp_path.glob("*.new"))
    found, notes = kept.read()
    assert found is not None
    assert (found.number, notes) == (1, [])
