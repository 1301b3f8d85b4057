"""Networks from Keras files (`.keras`, `.h5`), of Keras 3 and 2."""

import importlib.util
import tempfile
from pathlib import Path
from typing import ClassVar

from onhand.core.errors import InputError
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.sources.child import convert_in_child
from onhand.host.networks.sources.identity import (
    existing_file,
    files_sha256,
    head_of,
    name_of,
)
from onhand.host.networks.sources.keras_config import HDF5_MARK, ZIP_MARK, check_config

__all__ = ["KerasSource"]

_SUFFIXES = {".keras": ZIP_MARK, ".h5": HDF5_MARK, ".hdf5": HDF5_MARK}
_EXPORT = "onhand.host.networks.sources.keras_export"


class KerasSource:
    """Reads a model of layers, layer by layer, in a process that loads Keras on torch."""

    name: ClassVar[str] = "keras"

    def why_not(self, location: str) -> str | None:
        """Return None for a file called `.keras` or `.h5` with the head of one, else a reason."""
        path = Path(location)
        if not path.is_file():
            return f"{path} is no file"
        mark = _SUFFIXES.get(path.suffix.lower())
        if mark is None:
            return f"{path} is called neither .keras nor .h5"
        return None if head_of(path, len(mark)) == mark else f"{path} does not begin as one"

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a file.

        Args:
            location: the `.keras` or `.h5` file of a whole model.
            task: what it is for; the file itself does not say.

        Returns:
            The model; inputs have the model's order of sizes, mostly (B, H, W, C).

        Raises:
            SourceError: if it is damaged, holds code, or a layer is not known here.
            InputError: if a package is missing.
        """
        path = existing_file(location).resolve()
        for package in ("h5py", "keras", "torch"):
            if importlib.util.find_spec(package) is None:
                raise InputError(f"{path}: needs {package}: pip install onhand[host,keras]")
        check_config(path)
        sha256 = files_sha256([path], root=path.parent)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            environment = {"KERAS_BACKEND": "torch"}
            told = convert_in_child(_EXPORT, path, target, environment=environment)
            graph = read_onnx(target)
        return NetworkModel(
            name=name_of(path),
            family="keras",
            graph=graph,
            sha256=sha256,
            source_bytes=int(told["n_bytes"]),
            weight_bits=int(told["bits"]),
        )
