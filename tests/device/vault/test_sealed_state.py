"""With a vault, packed weights and learned versions are sealed, and are read again."""

from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import BundleCorrupt
from onhand.device.learning.version_tensors import read_tensors, write_tensors
from onhand.device.serving.plain_stores import seal_stores
from onhand.device.state import recall_bytes, remember_bytes
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import erase_vault, init_vault

KEY = "a" * 64
VALUES = {"head": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2, np.float32)}


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    """A state folder with a vault."""
    made = tmp_path / "guarded"
    init_vault(made, kind="key-file", place=str(tmp_path / "key"), asking=Asking({}))
    return made


def _version(home: Path, number: int) -> Path:
    folder = home / "state" / KEY / "learned" / f"{number:04d}"
    folder.mkdir(parents=True)
    return folder / "tensors.safetensors"


def test_what_an_engine_packed_is_sealed(guarded: Path) -> None:
    """It comes back, and is made anew where the keys are gone."""
    remember_bytes(guarded, KEY, "packed", b"plain weights", made_by="1")
    (path,) = (guarded / "state").rglob("packed.bin")

    assert b"plain weights" not in path.read_bytes()
    assert recall_bytes(guarded, KEY, "packed", made_by="1") == b"plain weights"
    assert recall_bytes(guarded, KEY, "packed", made_by="2") is None
    erase_vault(guarded)
    assert recall_bytes(guarded, KEY, "packed", made_by="1") is None


def test_learned_tensors_are_sealed(guarded: Path) -> None:
    """No value shows, and all come back."""
    path = _version(guarded, 1)
    digest = write_tensors(path, VALUES, target=path)

    assert VALUES["head"].tobytes() not in path.read_bytes()
    assert b"head" not in path.read_bytes()
    found = read_tensors(path, sha256=digest)
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name], value)


def test_what_was_plain_is_sealed_when_the_vault_is_made(tmp_path: Path) -> None:
    """Learned tensors and packed weights; they read as before."""
    home = tmp_path / "later"
    path = _version(home, 1)
    digest = write_tensors(path, VALUES, target=path)
    remember_bytes(home, KEY, "packed", b"plain weights", made_by="1")
    assert b"head" in path.read_bytes()
    init_vault(home, kind="key-file", place=str(tmp_path / "key"), asking=Asking({}))
    with pytest.raises(BundleCorrupt, match="is not sealed"):
        read_tensors(path, sha256=digest)

    assert len(seal_stores(home)) == 2
    assert b"head" not in path.read_bytes()
    np.testing.assert_array_equal(read_tensors(path, sha256=digest)["head"], VALUES["head"])
    assert recall_bytes(home, KEY, "packed", made_by="1") == b"plain weights"


def test_attack_tensors_of_another_version(guarded: Path) -> None:
    """They open under their own number alone."""
    first, second = _version(guarded, 1), _version(guarded, 2)
    digest = write_tensors(first, VALUES, target=first)
    second.write_bytes(first.read_bytes())

    with pytest.raises(BundleCorrupt, match="does not open"):
        read_tensors(second, sha256=digest)


def test_attack_learned_tensors_that_were_changed(guarded: Path) -> None:
    """Whoever writes the hash anew is seen by the seal."""
    path = _version(guarded, 1)
    digest = write_tensors(path, VALUES, target=path)
    content = bytearray(path.read_bytes())
    content[70] ^= 1
    path.write_bytes(content)

    with pytest.raises(BundleCorrupt, match="does not open"):
        read_tensors(path, sha256=digest)
