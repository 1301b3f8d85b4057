"""A variant's graph with the tensors in it that its bundle stores without their zeros."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from onhand.core.arrays import ByteArray
from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxinline import LEFT_OUT, Waiting, inline_tensors, outside_of
from onhand.core.safetensors import SafetensorsFile, open_safetensors
from onhand.core.sparse_form import SparseForm, expand_tensor
from onhand.core.stored_forms import StoredForm

__all__ = ["expand_from", "part_of_graph", "self_contained_graph", "whole_graph"]


def whole_graph(content: bytes, bundle: Bundle, variant: str) -> bytes:
    """Put the tensors of a variant into its graph that are stored without their zeros.

    Engines then see a graph as any other. Nothing of it has to be checked yet; what comes out has.

    Args:
        content: the graph, as it lies in the bundle.
        bundle: a bundle.
        variant: a key of its manifest's variants.

    Returns:
        The graph; the same bytes where nothing is stored so.

    Raises:
        BundleCorrupt: if graph, manifest and weights do not match.
    """
    return _whole(content, bundle, variant, bundle.manifest.variants[variant].sparse)


def part_of_graph(content: bytes, bundle: Bundle, variant: str) -> bytes:
    """Do what `whole_graph` does for a graph that holds a part of a variant's tensors.

    Args:
        content: the graph.
        bundle: a bundle.
        variant: a key of its manifest's variants.

    Returns:
        The graph; the same bytes where nothing is stored without its zeros.

    Raises:
        BundleCorrupt: if graph, manifest and weights do not match.
    """
    sparse = bundle.manifest.variants[variant].sparse
    names = set(outside_of(content)) if sparse else set()
    return _whole(content, bundle, variant, [name for name in sparse if name in names])


def _whole(content: bytes, bundle: Bundle, variant: str, names: Collection[str]) -> bytes:
    """Put tensors by name into a graph.

    Raises:
        BundleCorrupt: if graph, manifest and weights do not match.
    """
    chosen = bundle.manifest.variants[variant]
    if not names:
        return content
    files = [open_safetensors(bundle.path(name)) for name in chosen.weights]

    def find(name: str, place: Mapping[str, str]) -> Waiting:
        if place.get("location") != LEFT_OUT:
            raise BundleCorrupt(
                f"tensor {name!r} lies in {place.get('location')!r}, the manifest says that it is "
                "stored without its zeros"
            )
        form = chosen.sparse[name]
        return Waiting(form.size_bytes, partial(expand_from, files, form))

    try:
        return inline_tensors(content, names, find)
    except BundleCorrupt as error:
        raise BundleCorrupt(f"{bundle.path(chosen.graph)}: {error}") from error


def self_contained_graph(content: bytes, bundle: Bundle) -> bytes:
    """Put all other tensors into a graph as well, for engines that look for files on their own.

    Args:
        content: a graph, checked already.
        bundle: the bundle that it is of.

    Returns:
        The graph.

    Raises:
        BundleCorrupt: if a tensor is not where the graph says.
    """

    def find(name: str, place: Mapping[str, str]) -> Waiting:
        if not {"location", "length"} <= place.keys():
            raise BundleCorrupt(f"tensor {name!r} has no place, or no length")
        path = bundle.path(place["location"])
        offset, length = int(place.get("offset", "0")), int(place["length"])
        if offset + length > path.stat().st_size:
            raise BundleCorrupt(f"{path}: cut short at tensor {name!r}")
        return Waiting(length, partial(_read_file, path, offset, length))

    return inline_tensors(content, outside_of(content), find)


def _read_file(path: Path, offset: int, length: int) -> ByteArray:
    return np.fromfile(path, dtype=np.uint8, count=length, offset=offset)


def expand_from(files: list[SafetensorsFile], form: StoredForm) -> ByteArray:
    """Return the bytes of a tensor that is stored without its zeros, or as a table.

    Args:
        files: the variant's weights files; the first that holds a stream has it.
        form: how it is stored.

    Returns:
        (size_bytes,) uint8.

    Raises:
        BundleCorrupt: if a stream is missing or damaged.
    """
    streams: list[ByteArray] = []
    for name in form.streams:
        holder = next((file for file in files if name in file.tensors), None)
        if holder is None:
            raise BundleCorrupt(f"no weights file of the variant has {name!r}")
        spec = holder.tensors[name]
        if spec.dtype != "U8" or len(spec.shape) != 1:
            raise BundleCorrupt(
                f"{holder.path}: {name!r} is {spec.dtype} {spec.shape}, must be bytes in a row"
            )
        streams.append(holder.view(name))
    if isinstance(form, SparseForm):
        return expand_tensor(form, *streams)
    return form.expand(*streams)
