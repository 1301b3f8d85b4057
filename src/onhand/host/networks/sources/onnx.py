"""Networks from ONNX files."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from onhand.core.errors import SourceError
from onhand.device.networks.texts import TOKENIZER
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.sources.identity import (
    existing_file,
    files_sha256,
    name_of,
    widest_share,
)
from onhand.host.networks.sources.text_folder import TEXT_INPUTS, TextFolder, feed_for_texts
from onhand.host.networks.widening import widened

__all__ = ["OnnxSource", "external_files"]


class OnnxSource:
    """Reads `.onnx`, with external data beside it."""

    name: ClassVar[str] = "onnx"

    def why_not(self, location: str) -> str | None:
        """Return None for a file called `.onnx`, else a reason."""
        path = Path(location)
        if not path.is_file():
            return f"{path} is no file"
        return None if path.suffix.lower() == ".onnx" else f"{path} is not called .onnx"

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a file; of token ids, with the `tokenizer.json` beside it, if there is one.

        Args:
            location: the `.onnx` file.
            task: what it is for; the file itself does not say.

        Returns:
            The model, cleaned (see `onhand.host.networks.clean`).

        Raises:
            SourceError: if it is damaged, of an opset before 11, or data of it is missing or lies
                outside of its folder, or the tokenizer beside it is damaged.
        """
        path = existing_file(location)
        graph = read_onnx(path)
        wide = widened(graph)
        texts = _texts(path, graph)
        notes = texts.notes if texts else ()
        if wide is not graph:
            notes = (*notes, "float16 is brought to float32; inputs and outputs keep their types")
        files = [path, *external_files(path)]
        return NetworkModel(
            name=name_of(path),
            family="onnx",
            graph=clean(wide),
            sha256=files_sha256(files, root=path.parent),
            source_bytes=graph.size_bytes(),
            weight_bits=widest_share(graph.constants),
            feed=texts.feed if texts else None,
            files={TOKENIZER: texts.tokenizer} if texts else {},
            notes=notes,
        )


def _texts(path: Path, graph: Graph) -> TextFolder | None:
    """Return how texts are fed, where token ids of any length go in and a tokenizer is beside."""
    names = {value.name for value in graph.inputs}
    if "input_ids" not in names or not names.issubset(TEXT_INPUTS):
        return None
    is_open = all(
        value.dtype == np.int64 and len(value.shape) == 2 and not isinstance(value.shape[1], int)
        for value in graph.inputs
    )
    if not is_open or not (path.parent / TOKENIZER).is_file():
        return None
    return feed_for_texts(path.parent, inputs=names)


def external_files(path: Path) -> list[Path]:
    """Return the files beside an ONNX file in which its large tensors lie, sorted.

    Args:
        path: the ONNX file.

    Returns:
        Files that exist, in its folder.

    Raises:
        SourceError: if one lies elsewhere, or the file is not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise SourceError(f"{path}: not a whole ONNX model: {error}") from error
    root = path.parent.resolve()
    found: set[Path] = set()
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next(
            (entry.value for entry in tensor.external_data if entry.key == "location"), ""
        )
        place = path.parent / location
        if not place.resolve().is_relative_to(root) or not place.is_file():
            raise SourceError(
                f"{path}: tensor {tensor.name!r} lies in {location!r}, outside of its folder"
            )
        found.add(place)
    return sorted(found)
