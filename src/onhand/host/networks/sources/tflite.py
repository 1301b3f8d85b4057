"""Networks from LiteRT files (`.tflite`), of TensorFlow and others."""

from pathlib import Path
from typing import ClassVar

from onhand.core.errors import SourceError
from onhand.core.feed import PictureFeed
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.sources.identity import (
    existing_file,
    files_sha256,
    head_of,
    name_of,
)
from onhand.host.networks.sources.tflite_file import MARK, TfliteFile, TfliteTensor, read_tflite
from onhand.host.networks.sources.tflite_graph import graph_from_tflite

__all__ = ["TfliteSource", "tflite_model"]

_PICTURES = {"image-classification", "detection"}
_MOST_SIDE = 2**14


class TfliteSource:
    """Reads `.tflite`: float, or quantised and brought back to float."""

    name: ClassVar[str] = "tflite"

    def why_not(self, location: str) -> str | None:
        """Return None for a file with LiteRT's mark, else a reason."""
        path = Path(location)
        if not path.is_file():
            return f"{path} is no file"
        return None if head_of(path, 8)[4:] == MARK else f"{path} has no mark {MARK.decode()!r}"

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a file.

        Args:
            location: the `.tflite` file.
            task: what it is for; a quantised input of a picture says how it is fed.

        Returns:
            The model, in float32, with the inputs' sizes in the file's order: (B, H, W, C).

        Raises:
            SourceError: if it is damaged, or has an operator that nothing here knows.
        """
        path = existing_file(location)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        sha256 = files_sha256([path], root=path.parent)
        return tflite_model(
            content, where=str(path), name=name_of(path), family="tflite", sha256=sha256, task=task
        )


def tflite_model(
    content: bytes, *, where: str, name: str, family: str, sha256: str, task: str
) -> NetworkModel:
    """Return the model of a LiteRT file's bytes.

    Args:
        content: the file.
        where: its name for messages.
        name: for the bundle.
        family: the framework it comes from.
        sha256: of what it was read from.
        task: what it is for.

    Returns:
        The model.

    Raises:
        SourceError: if it is damaged, or has an operator that nothing here knows.
    """
    file = read_tflite(content, where=where)
    graph = graph_from_tflite(file, where=where)
    constants = [tensor for tensor in file.tensors if tensor.data is not None]
    counts: dict[int, int] = {}
    for tensor in constants:
        if len(tensor.shape) > 1 and tensor.data is not None:
            counts[tensor.bits] = counts.get(tensor.bits, 0) + tensor.data.size
    return NetworkModel(
        name=name,
        family=family,
        graph=graph,
        sha256=sha256,
        source_bytes=sum(-(-t.data.size * t.bits // 8) for t in constants if t.data is not None),
        weight_bits=max(counts, key=lambda bits: (counts[bits], bits)) if counts else 32,
        feed=_feed(file, graph) if task in _PICTURES else None,
        notes=tuple(_notes(file, graph)),
    )


def _feed(file: TfliteFile, graph: Graph) -> PictureFeed | None:
    """Return how a picture is fed, where the stored numbers of the input are its pixels."""
    tensor = file.tensors[file.inputs[0]]
    if len(file.inputs) != 1 or not tensor.is_quantized or len(tensor.shape) != 4:
        return None
    height, width, channels = tensor.shape[1:]
    if channels not in {1, 3} or max(height, width) > _MOST_SIDE or tensor.bits != 8:
        return None
    # The numbers that a device feeds are 0 to 255, or the same less 128 where they have a sign.
    zero = float(tensor.zero_point[0]) + (128.0 if tensor.dtype.kind == "i" else 0.0)
    return PictureFeed(
        height=height,
        width=width,
        channels="rgb" if channels == 3 else "gray",
        layout="nhwc",
        mean=(zero,) * channels,
        std=(float(1.0 / tensor.scale[0]),) * channels,
    )


def _notes(file: TfliteFile, graph: Graph) -> list[str]:
    notes = []
    if any(_is_weight(tensor) and tensor.is_quantized for tensor in file.tensors):
        notes.append(
            "the file's weights are quantised: they were brought back to float, and carry their "
            "rounding"
        )
    if any(value.shape and isinstance(value.shape[0], int) for value in graph.inputs):
        notes.append("the network is of one batch size: it does something to the batch itself")
    if file.n_graphs > 1:
        notes.append(f"the file has {file.n_graphs} graphs; the first one was read")
    return notes


def _is_weight(tensor: TfliteTensor) -> bool:
    return tensor.data is not None and len(tensor.shape) > 1
