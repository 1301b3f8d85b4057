"""A variant's graph, checked before any engine parses it."""

from collections.abc import Sequence

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt
from onhand.core.network import ArrayInfo
from onhand.core.onnxfile import check_tensors, read_graph
from onhand.core.onnxgraph import DeclaredArray, declared_arrays
from onhand.core.sparse_graph import part_of_graph, whole_graph

__all__ = ["read_graph_file"]


def read_graph_file(bundle: Bundle, variant: str | None) -> bytes:
    """Read a variant's graph.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants; None for its default.

    Returns:
        The ONNX file's bytes, with the tensors in it that are stored without their zeros, and with
        what was learned if the bundle is one that `with_learned` gave. Its
        external tensors lie in the variant's weights files, relative to the bundle's folder, and
        its inputs and outputs are those of the manifest.

    Raises:
        InputError: if there is no such variant, or the bundle holds a language model.
        BundleCorrupt: if it is not ONNX, or does not match weights or manifest.
    """
    name, chosen = bundle.variant(variant)
    network = bundle.manifest.network
    path = bundle.path(chosen.graph)
    if bundle.learned is None:
        content = whole_graph(read_graph(path), bundle, name)
    else:
        content = part_of_graph(bundle.learned.content, bundle, name)
    check_tensors(content, bundle.sizes(chosen.weights), where=str(path))
    inputs, outputs = declared_arrays(content)
    _check_arrays(f"{path}: input", network.inputs, inputs)
    _check_arrays(f"{path}: output", network.outputs, outputs)
    return content


def _check_arrays(
    where: str, described: Sequence[ArrayInfo], declared: Sequence[DeclaredArray]
) -> None:
    found = {info.name: info for info in declared}
    if odd := sorted(found.keys() ^ {info.name for info in described}):
        holder = "graph" if odd[0] in found else "manifest"
        raise BundleCorrupt(f"{where} {odd[0]!r} is in the {holder} alone")
    for info in described:
        there = found[info.name]
        if there.dtype != info.dtype:
            raise BundleCorrupt(
                f"{where} {info.name!r} is {there.dtype or 'of an unknown type'}, the manifest "
                f"says {info.dtype}"
            )
        if there.shape is not None and not _fits(info.shape, there.shape):
            raise BundleCorrupt(
                f"{where} {info.name!r} is {_shown(there.shape)}, the manifest says "
                f"{_shown(info.shape)}"
            )


def _fits(described: tuple[int | None, ...], declared: tuple[int | None, ...]) -> bool:
    return len(described) == len(declared) and all(
        there in {None, size} for size, there in zip(described, declared, strict=True)
    )


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
