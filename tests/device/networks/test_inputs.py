"""Files of arrays: what is damaged, packed oddly or far too large is one clear error."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.device.networks import inputs
from onhand.device.networks.inputs import read_arrays


def packed(**members: bytes) -> bytes:
    """A zip file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return made.getvalue()


def npy(shape: str) -> bytes:
    """The beginning of an array of some shape."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head


def test_arrays_are_read(tmp_path: Path) -> None:
    """As they were written."""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3))

    assert read_arrays(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "content",
    [
        packed(a=npy("(1000000000000000,)")),
        packed(a=npy("(9" + "9" * 400 + ",)")),
        packed(a=npy("(2,)"))[:-30],
        packed(a=npy("(2,)")).replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x5d\0\0\0"),
        packed(a=npy("(2,)")).replace(b"PK\1\2\x14\3\x14\0", b"PK\1\2\x14\3\x5d\0"),
        packed(a=npy("(2,)")).replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0"),
        b"\x93NUMPY",
    ],
)
def test_attack_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """Of a later version, encrypted, cut, or larger than there is memory: found by fuzzing."""
    path = tmp_path / "a.npz"
    path.write_bytes(content)

    with pytest.raises(InputError, match="not arrays that can be read"):
        read_arrays(path)


def test_attack_a_file_that_unpacks_to_far_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything of it is unpacked."""
    monkeypatch.setattr(inputs, "_MOST_BYTES", 1000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10_000))

    with pytest.raises(InputError, match="at most 1000 are read"):
        read_arrays(path)
