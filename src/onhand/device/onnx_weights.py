"""Where ONNX Runtime finds what lies outside a graph: in the bundle's folder, or in memory."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.bundle import Bundle

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["weights_from"]

_FOLDER = "session.model_external_initializers_file_folder_path"


def weights_from(
    options: "ort.SessionOptions", bundle: Bundle, names: Iterable[str]
) -> list[np.ndarray]:
    """Say where a graph's external tensors are.

    Args:
        options: of the session that will be made of the graph's bytes.
        bundle: whose.
        names: of its files that the graph may read.

    Returns:
        What must be kept until the session is made; ONNX Runtime copies it then.

    Raises:
        SealBroken: if a sealed file was changed.
    """
    if bundle.sealed is None:
        options.add_session_config_entry(_FOLDER, str(bundle.root))
        return []
    files = {name: np.memmap(bundle.path(name), np.uint8, "r") for name in dict.fromkeys(names)}
    sizes = [content.nbytes for content in files.values()]
    options.add_external_initializers_from_files_in_memory(list(files), list(files.values()), sizes)
    return list(files.values())
