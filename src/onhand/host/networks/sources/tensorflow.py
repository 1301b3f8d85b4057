"""Networks from TensorFlow's SavedModel folders, by way of its own LiteRT converter."""

import importlib.util
import tempfile
from pathlib import Path
from typing import ClassVar

from onhand.core.errors import InputError, SourceError
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.sources.child import convert_in_child
from onhand.host.networks.sources.identity import files_sha256, name_of
from onhand.host.networks.sources.tflite import tflite_model

__all__ = ["TensorflowSource"]

_EXPORT = "onhand.host.networks.sources.tensorflow_export"
_GRAPH = "saved_model.pb"
_MOST_FILES = 10_000


class TensorflowSource:
    """Reads a SavedModel: its only signature, or the one for serving."""

    name: ClassVar[str] = "tensorflow"

    def why_not(self, location: str) -> str | None:
        """Return None for a folder with `saved_model.pb` in it, else a reason."""
        path = Path(location)
        if not path.is_dir():
            return f"{path} is no folder"
        return None if (path / _GRAPH).is_file() else f"{path} has no {_GRAPH}"

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a folder.

        A SavedModel is a program for TensorFlow's runtime, which may read and write files: its
        converter looks at it and runs none of it, and refuses what is no LiteRT operator.

        Args:
            location: the folder.
            task: what it is for; the folder itself does not say.

        Returns:
            The model; inputs have the folder's order of sizes, mostly (B, H, W, C).

        Raises:
            SourceError: if it is no SavedModel, the converter refuses it, or an operator is not
                known here.
            InputError: if TensorFlow is missing.
        """
        path = Path(location).resolve()
        if reason := self.why_not(location):
            raise SourceError(reason)
        if importlib.util.find_spec("tensorflow") is None:
            raise InputError(
                f"{path}: needs tensorflow: pip install onhand[host,tensorflow], or convert it to "
                "LiteRT where TensorFlow is installed and give the .tflite file"
            )
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.tflite"
            convert_in_child(_EXPORT, path, target, environment={})
            content = target.read_bytes()
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        if len(files) > _MOST_FILES:
            raise SourceError(f"{path}: {len(files)} files, must be at most {_MOST_FILES}")
        return tflite_model(
            content,
            where=str(path),
            name=name_of(path),
            family="tensorflow",
            sha256=files_sha256(files, root=path),
            task=task,
        )
