"""What a Keras file would make Python do when it is loaded, looked at before it is."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import SourceError

__all__ = ["HDF5_MARK", "ZIP_MARK", "check_config"]

HDF5_MARK: Final = b"\x89HDF\r\n\x1a\n"
ZIP_MARK: Final = b"PK\x03\x04"
_MOST_BYTES = 2**26
_MOST_DEPTH = 200
# A configuration names objects of Python's by module: only such as describe layers may be named.
_KNOWN = re.compile(
    r"(builtins|keras(\.src)?(\.(activations|constraints|dtype_policies|engine|initializers|layers"
    r"|models|ops|quantizers|regularizers)(\.\w+)*)?)"
)
_CODE = {"Lambda", "SlicingOpLambda", "TFOpLambda", "__lambda__"}


def check_config(path: Path) -> None:
    """Refuse a file that holds code, or names objects that are no layers.

    Args:
        path: `.keras` or `.h5`.

    Raises:
        SourceError: if it does, it holds weights alone, or it is damaged.
    """
    try:
        told = json.loads(_zipped(path) if path.suffix == ".keras" else _stored(path))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: its configuration is no JSON: {error}") from error
    if not isinstance(told, Mapping):
        raise SourceError(f"{path}: its configuration is {type(told).__name__}, must be an object")
    # How it was trained is not loaded.
    parts = {key: value for key, value in told.items() if key != "compile_config"}
    for entry in _objects(parts, _MOST_DEPTH, path):
        kind, module = entry.get("class_name"), entry.get("module")
        name = (entry.get("config") or {}).get("name") if _is_table(entry.get("config")) else None
        if kind in _CODE:
            raise SourceError(
                f"{path}: layer {name!r} is a {kind}, code of Python's: replace it by a layer, or "
                "export the model to ONNX where you trust it"
            )
        if isinstance(module, str) and not _KNOWN.fullmatch(module):
            raise SourceError(
                f"{path}: {kind} {name!r} comes from {module[:80]!r}: only Keras's own layers are "
                "loaded; export the model to ONNX where you trust it"
            )


def _zipped(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _MOST_BYTES:
                raise SourceError(f"{path}: a configuration of {entry.file_size} bytes")
            return archive.read(entry)
    except (OSError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: no whole .keras file: {error}") from error


def _stored(path: Path) -> bytes:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("model_config")
    except (OSError, KeyError, RuntimeError) as error:
        raise SourceError(f"{path}: no whole HDF5 file: {error}") from error
    if found is None:
        raise SourceError(f"{path}: holds weights alone; save the whole model, model.save(path)")
    return found if isinstance(found, bytes) else str(found).encode()


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _objects(value: Any, depth: int, path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a configuration, at any depth.

    Raises:
        SourceError: if it is too deep.
    """
    if not depth:
        raise SourceError(f"{path}: its configuration is over {_MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, depth - 1, path)
