"""The tensors of a learned version on the disk, sealed where the state folder has a vault."""

import hashlib
import os
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import shown
from onhand.core.safetensors import SafetensorsFile, TensorSpec, layout_tensors, read_safetensors
from onhand.core.sealing import seal_bytes
from onhand.device.learning.base import Values
from onhand.device.vault.above import content_of, keys_above

__all__ = ["read_tensors", "write_tensors"]

_STORE = "learned"


def write_tensors(path: Path, changed: Values, *, target: Path) -> str:
    """Write tensors and bring them to the disk.

    Args:
        path: the file.
        changed: name -> float32 array.
        target: where the file will be when its folder is renamed: sealed, it opens there alone.

    Returns:
        SHA-256 of the content in plain, in hex: sealed anew, it is the same version.

    Raises:
        OSError: if it cannot be written.
        VaultError: if the vault is locked.
    """
    specs = {name: TensorSpec(dtype="F32", shape=changed[name].shape) for name in sorted(changed)}
    header, _ = layout_tensors(specs)
    arrays = [np.ascontiguousarray(changed[name], dtype="<f4") for name in specs]
    content = b"".join([header, *(array.tobytes() for array in arrays)])
    digest = hashlib.sha256(content).hexdigest()
    placed = keys_above(target.parent, _STORE)
    if placed is not None:
        content = seal_bytes(placed.keys, content, name=placed.name(target))
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return digest


def read_tensors(path: Path, *, sha256: str) -> dict[str, FloatArray]:
    """Read tensors: sealed ones where there is a vault.

    Args:
        path: the file.
        sha256: as `write_tensors` returned it.

    Returns:
        Name -> float32 array, the caller's own.

    Raises:
        BundleCorrupt: if they were changed, do not open, or are no tensors of float32.
        OSError: if it cannot be read.
        VaultError: if the vault is locked.
    """
    try:
        content = content_of(path, keys_above(path.parent, _STORE))
    except InputError as error:
        raise BundleCorrupt(str(error)) from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BundleCorrupt(f"{path}: has SHA-256 {found}, expected {sha256}")
    file = read_safetensors(content, called=path)
    return {name: _value(file, name) for name in file.tensors}


def _value(file: SafetensorsFile, name: str) -> FloatArray:
    if file.tensors[name].dtype != "F32":
        raise BundleCorrupt(f"{file.path}: {shown(name)} is {file.tensors[name].dtype}, not F32")
    return np.array(file.view(name), dtype=np.float32)
