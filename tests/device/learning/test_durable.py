"""State in two generations: whatever is damaged, the last whole one is found."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.durable import Generations, Saved


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
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """All fields and arrays, to the bit."""
    kept = Generations(tmp_path / "training")
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
    assert len(list((tmp_path / "training").iterdir())) == 2


def test_where_nothing_was_written_nothing_is_found(tmp_path: Path) -> None:
    """And nothing is made."""
    assert Generations(tmp_path / "none").read() == (None, [])
    assert not (tmp_path / "none").exists()


@given(data=st.data())
def test_a_generation_damaged_anywhere_leaves_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut at any byte, or with any byte changed, it is set aside and said."""
    folder = tmp_path_factory.mktemp("damaged")
    kept = Generations(folder)
    for number in (3, 4):
        kept.write(saved(number))
    last = folder / "state-0.bin"
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
    assert (folder / "state-0.damaged").exists()
    kept.write(saved(4))
    again, none = kept.read()
    assert again is not None
    assert (again.number, none) == (4, [])


def test_a_write_that_never_finished_is_not_seen(tmp_path: Path) -> None:
    """It lies beside its place."""
    kept = Generations(tmp_path)
    kept.write(saved(1))
    (tmp_path / "state-0.new").write_bytes(b"half")

    found, notes = kept.read()

    assert found is not None
    assert (found.number, notes) == (1, [])


def test_both_damaged_is_a_beginning(tmp_path: Path) -> None:
    """With a sentence for each, and nothing thrown away."""
    kept = Generations(tmp_path)
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
    with pytest.raises(InputError, match="float16"):
        kept.write(Saved(number=1, fields={}, arrays={"a": np.zeros(1, np.float16)}))
