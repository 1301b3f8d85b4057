"""With a vault, what a device was taught is in no file in the clear, and is read again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError, VaultError
from onhand.device.learning.added import add_classes, added_classes
from onhand.device.learning.durable import Generations, Saved
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.feedback import Feedback, render_feedback
from onhand.device.learning.journal import Journal, read_journal, seal_journal
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.taught_lines import write_lines
from onhand.device.serving.plain_stores import seal_stores
from onhand.device.vault.handing import handed_key, take_key
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import (
    erase_vault,
    init_vault,
    open_vault,
    use_secrets,
)

TAUGHT = b'{"answer": "the aardvark lives in room seven"}'
OPINION = Feedback(
    tenant="t", at_s=1.0, verdict="accepted", text="where is the aardvark", answer="in seven"
)


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


def taught(folder: Path) -> None:
    """A class, a file that is learned from, a record, one in quarantine, and a memory."""
    add_classes(folder, ["the aardvark lamp"])
    write_lines(folder / "taken", "new.jsonl", [{"text": "aardvark", "label": "lamp"}])
    with Journal(folder / "feedback.journal") as journal:
        journal.append(render_feedback(OPINION))
    Intake(folder, Limits()).hold(OPINION, "doubted")
    words = np.arange(3, dtype=np.float32)
    Generations(folder / "memory" / "m").write(
        Saved(number=1, fields={"said": "aardvark"}, arrays={"a": words})
    )


READ: dict[str, Callable[[Path], object]] = {
    "classes.json": added_classes,
    "taken/new.jsonl": lambda folder: read_examples(folder / "taken" / "new.jsonl"),
    "feedback.journal": lambda folder: read_journal(folder / "feedback.journal"),
    "quarantine.sqlite": lambda folder: Intake(folder, Limits()).held(),
}


@pytest.mark.parametrize("place", READ)
def test_attack_a_plain_file_in_the_place_of_a_sealed_one_is_refused(
    tmp_path: Path, folder: Path, place: str
) -> None:
    """Whoever writes to the disk does not teach this device; without a vault he does."""
    taught(folder)
    plain = (folder / place).read_bytes()
    assert READ[place](folder)  # with the control off, it is read
    make_vault(tmp_path / "home")

    with pytest.raises(InputError):
        READ[place](folder)
    seal_stores(tmp_path / "home")
    assert READ[place](folder)
    (folder / place).write_bytes(plain)

    with pytest.raises(InputError):
        READ[place](folder)


def test_attack_a_plain_memory_in_the_place_of_a_sealed_one_is_set_aside(
    tmp_path: Path, folder: Path
) -> None:
    """As one that is damaged; without a vault it is read."""
    taught(folder)
    plain = (folder / "memory" / "m" / "state-0.bin").read_bytes()
    assert Generations(folder / "memory" / "m").read()[0] is not None
    make_vault(tmp_path / "home")
    seal_stores(tmp_path / "home")
    assert Generations(folder / "memory" / "m").read()[0] is not None
    (folder / "memory" / "m" / "state-0.bin").write_bytes(plain)

    found, notes = Generations(folder / "memory" / "m").read()

    assert found is None
    assert "is not sealed, and there is a vault" in notes[0]


def test_what_was_taught_before_there_was_a_vault_is_sealed_whole(
    tmp_path: Path, folder: Path
) -> None:
    """No file of it shows a word any more, free pages of the quarantine included."""
    taught(folder)
    make_vault(tmp_path / "home")

    sealed = seal_stores(tmp_path / "home")

    assert len(sealed) == 5
    assert seal_stores(tmp_path / "home") == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if b"aardvark" in path.read_bytes()] == []


def test_a_process_that_learns_is_handed_the_key_of_a_passphrase(tmp_path: Path) -> None:
    """By hex digits that open this vault alone; of a key file there is nothing to hand over."""
    asking = Asking({"WORDS": "correct horse battery"})
    init_vault(tmp_path / "a", kind="passphrase-env", place="WORDS", asking=asking)
    make_vault(tmp_path / "home")
    open_vault(tmp_path / "a", asking=asking)
    handed = handed_key(tmp_path / "a")
    use_secrets(Asking({"nothing": "known"}))
    with pytest.raises(VaultError, match="is locked"):
        open_vault(tmp_path / "a")

    take_key(tmp_path / "a", handed)

    assert open_vault(tmp_path / "a") is not None
    assert handed_key(tmp_path / "home") == ""
    with pytest.raises(VaultError, match="is not this vault's"):
        take_key(tmp_path / "home", handed)
    with pytest.raises(VaultError, match="is none"):
        take_key(tmp_path / "home", "zz")
