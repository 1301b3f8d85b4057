"""Learned versions of the time before there was a vault, sealed."""

import hashlib
import os
import shutil
from pathlib import Path

from onhand.core.errors import ResourceError
from onhand.core.sealing import is_sealed_file, seal_bytes
from onhand.device.learning.version_files import numbered, version_text
from onhand.device.vault.above import keys_above

__all__ = ["seal_versions"]

_TENSORS, _VERSION = "tensors.safetensors", "version.json"


def seal_versions(folder: Path) -> list[Path]:
    """Seal the tensors of versions that are in the clear, taking them as they are.

    Args:
        folder: of versions, in a state folder with a vault; it may be missing.

    Returns:
        The files that were in the clear.

    Raises:
        ResourceError: if one cannot be written; the version stays as it was.
    """
    placed = keys_above(folder, "learned")
    found: list[Path] = []
    if placed is None:
        return found
    for place in numbered(folder).values():
        tensors = place / _TENSORS
        if not tensors.exists() or is_sealed_file(tensors):
            continue
        content = seal_bytes(placed.keys, tensors.read_bytes(), name=placed.name(tensors))
        beside = folder / f".new-{os.getpid()}-{place.name}"
        gone = folder / f".gone-{os.getpid()}-{place.name}"
        try:
            shutil.copytree(place, beside)
            (beside / _TENSORS).write_bytes(content)
            said = (place / _VERSION).read_bytes()
            told = version_text(said, tensors=hashlib.sha256(content).hexdigest())
            (beside / _VERSION).write_bytes(told)
            place.rename(gone)
            beside.rename(place)
            shutil.rmtree(gone)
        except OSError as error:
            raise ResourceError(f"{place}: cannot be sealed: {error.strerror or error}") from error
        found.append(tensors)
    return found
