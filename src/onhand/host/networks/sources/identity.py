"""What a network was read from: the hash of its files, and how wide its weights are there."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array

__all__ = ["bundle_name", "existing_file", "files_sha256", "head_of", "name_of", "widest_share"]


def existing_file(location: str) -> Path:
    """Return the path of a file.

    Raises:
        SourceError: if there is none.
    """
    path = Path(location)
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    return path


def head_of(path: Path, n_bytes: int) -> bytes:
    """Return the first bytes of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError:
        return b""


def name_of(path: Path) -> str:
    """Return what a model is called: its file without the ending, or its folder."""
    return bundle_name(path.resolve().stem if path.is_file() else path.resolve().name)


def bundle_name(name: str) -> str:
    """Return a name in the letters that a bundle's may have; others become dashes."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("._+-")[:100] or "network"


def files_sha256(files: Sequence[Path], *, root: Path) -> str:
    """Return one hash of some files.

    Args:
        files: at least one; the hash of a single file is its own.
        root: their folder; names below it count where there are several.

    Returns:
        64 hexadecimal digits.

    Raises:
        SourceError: if one cannot be read.
    """
    try:
        if len(files) == 1:
            return sha256_of(files[0])
        whole = hashlib.sha256()
        for file in sorted(files):
            whole.update(f"{file.relative_to(root).as_posix()}\0{sha256_of(file)}\n".encode())
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return whole.hexdigest()


def widest_share(arrays: Iterable[Array] | Mapping[str, Array]) -> int:
    """Return the bits of one weight, as most of the weights have them.

    Args:
        arrays: constants; those with fewer than two dimensions are no weights.

    Returns:
        Bits; 32 where there are no weights.
    """
    given = arrays.values() if isinstance(arrays, Mapping) else arrays
    counts: dict[int, int] = {}
    for array in given:
        if array.ndim > 1 and array.dtype != np.dtype(np.bool_):
            bits = _bits(array.dtype)
            counts[bits] = counts.get(bits, 0) + array.size
    return max(counts, key=lambda bits: (counts[bits], bits)) if counts else 32


def _bits(dtype: np.dtype[np.generic]) -> int:
    # ml_dtypes keeps a 4-bit integer in a byte.
    return 4 if dtype.name in {"int4", "uint4"} else dtype.itemsize * 8
