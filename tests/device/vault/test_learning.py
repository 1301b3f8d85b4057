"""With a vault, what a device was taught is in no file in the clear, and is read again."""

from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.device.learning.durable import Generations, Saved
from onhand.device.learning.journal import Journal, read_journal, seal_journal
from onhand.device.learning.methods.kept import Part
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import erase_vault, init_vault

TAUGHT = b'{"answer": "the aardvark lives in room seven"}'


def make_vault(home: Path) -> None:
    """A vault with its key beside the state folder."""
    init_vault(home, kind="key-file", place=str(home.parent / "key"), asking=Asking({}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a bundle's lessons are kept, in a state folder without a vault yet."""
    made = tmp_path / "home" / "state" / ("a" * 64) / "learned"
    made.mkdir(parents=True)
    return made


def test_a_journal_is_sealed_record_by_record(tmp_path: Path, folder: Path) -> None:
    """Nothing shows, all comes back, and it goes on where it ended."""
    make_vault(tmp_path / "home")
    path = folder / "feedback.journal"
    with Journal(path) as journal:
        journal.append(TAUGHT)
    with Journal(path) as journal:
        assert journal.append(TAUGHT + b" ") == 1

    assert b"aardvark" not in path.read_bytes()
    assert read_journal(path) == [TAUGHT, TAUGHT + b" "]


def test_attack_records_in_another_order_are_seen(tmp_path: Path, folder: Path) -> None:
    """Two records that change places do not open."""
    make_vault(tmp_path / "home")
    path = folder / "feedback.journal"
    with Journal(path) as journal:
        start = path.stat().st_size
        journal.append(TAUGHT)
        middle = path.stat().st_size
        journal.append(TAUGHT)
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + whole[middle:] + whole[start:middle])

    with pytest.raises(InputError, match=r"record 0: .*another place"):
        read_journal(path)


def test_a_journal_of_the_time_before_is_sealed_whole(tmp_path: Path, folder: Path) -> None:
    """Nothing is lost, and nothing stays readable."""
    path = folder / "feedback.journal"
    with Journal(path) as journal:
        journal.append(TAUGHT)
    make_vault(tmp_path / "home")

    assert seal_journal(path)
    assert not seal_journal(path)
    with Journal(path) as journal:
        journal.append(b"more")

    assert read_journal(path) == [TAUGHT, b"more"]
    assert all(b"aardvark" not in one.read_bytes() for one in folder.iterdir())


def test_a_sealed_journal_without_its_vault_is_refused(tmp_path: Path, folder: Path) -> None:
    """It is neither empty nor begun anew."""
    make_vault(tmp_path / "home")
    path = folder / "feedback.journal"
    with Journal(path) as journal:
        journal.append(TAUGHT)
    erase_vault(tmp_path / "home")

    for opened in (Journal, read_journal):
        with pytest.raises(InputError, match="is sealed, and there is no vault"):
            opened(path)


def test_memories_and_states_of_training_are_sealed(tmp_path: Path, folder: Path) -> None:
    """Fields, arrays and parts: none shows, and all come back."""
    make_vault(tmp_path / "home")
    words = np.frombuffer(b"the aardvark lives in room seven", np.uint8)
    saved = Saved(
        number=1,
        fields={"said": "aardvark"},
        arrays={"a": words},
        parts={"m": Part(1, {"b": words})},
    )
    Generations(folder / "memory").write(saved)

    found, notes = Generations(folder / "memory").read()

    files = list((folder / "memory").iterdir())
    assert len(files) == 2
    assert all(b"aardvark" not in path.read_bytes() for path in files)
    assert notes == []
    assert found is not None
    assert found.fields == {"said": "aardvark"}
    np.testing.assert_array_equal(found.parts["m"].arrays["b"], words)
