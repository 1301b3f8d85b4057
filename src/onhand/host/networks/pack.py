"""Graphs written as a bundle: constants into files of weights, equal ones of variants once."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onhand.core.bundle import Bundle, write_manifest
from onhand.core.errors import SourceError
from onhand.core.manifest import NETWORK, Manifest, Variant
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxinline import LEFT_OUT
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.sparse_form import (
    MOST_EXPANDED_BYTES,
    SparseForm,
    SparseTensor,
    stream_names,
)
from onhand.device.networks.answers import LABELS
from onhand.host.networks.compact import compact
from onhand.host.networks.graph import Array, Graph, Value, fresh_name
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import Place, model_bytes
from onhand.host.networks.sparse_storage import shrink_constant
from onhand.host.parents import parent_version
from onhand.host.weight_files import WEIGHTS, weights_file

__all__ = ["Shrink", "describe", "pack_network"]

# Smaller ones stay in the graph, where engines fold them: shapes, axes, scales of activations. What
# one place alone holds stays there up to a larger size: that it lies elsewhere takes 160 bytes.
_INLINE_BYTES = 256
_INLINE_BYTES_ALONE = 4096
_CODES: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float16": "F16",
    "int32": "I32",
    "float32": "F32",
    "int64": "I64",
}
Shrink = Callable[[Array], SparseTensor | None]
_Key = tuple[str, tuple[int, ...], bytes]


@dataclass(slots=True)
class _Tensors:
    """What the weights files hold: each array once, whichever variants use it.

    Attributes:
        arrays: name in its file -> array.
        names: content -> name in its file, of what is stored whole.
        sparse: content -> how it is stored without its zeros; None where it stays whole.
        shrink: see `pack_network`.
    """

    shrink: Shrink
    arrays: dict[str, Array] = field(default_factory=dict)
    names: dict[_Key, str] = field(default_factory=dict)
    sparse: dict[_Key, SparseForm | None] = field(default_factory=dict)

    def whole(self, key: _Key, array: Array, wanted: str) -> str:
        """Store an array as it is, and return its name."""
        if key not in self.names:
            self.names[key] = name = fresh_name(set(self.arrays), wanted)
            self.arrays[name] = array
        return self.names[key]

    def without_zeros(self, key: _Key, array: Array, wanted: str) -> SparseForm | None:
        """Store an array without its zeros, if that is smaller."""
        if key not in self.sparse:
            found = self.shrink(array)
            self.sparse[key] = None if found is None else self._streams(found, wanted)
        return self.sparse[key]

    def _streams(self, found: SparseTensor, wanted: str) -> SparseForm:
        taken = set(self.arrays)
        name = wanted
        while taken.intersection(stream_names(name)):
            name = f"{name}.sparse"
        streams = (found.codes.places, found.codes.codes)
        self.arrays |= zip(stream_names(name), streams, strict=True)
        return replace(found.form, tensor=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outside:
    """What of a variant lies outside of its graph.

    Attributes:
        names: constant -> its name in its file of weights.
        sparse: constant -> how it is stored there without its zeros.
    """

    names: dict[str, str]
    sparse: dict[str, SparseForm]

    def tensors(self) -> set[str]:
        """Return the names of all that is read from files of weights."""
        streams = {stream for form in self.sparse.values() for stream in form.streams}
        return streams.union(self.names.values())


def describe(model: NetworkModel, task: str) -> Network:
    """Return the description that travels with a network.

    Args:
        model: the source.
        task: what it is for.

    Returns:
        The description.

    Raises:
        SourceError: if an input or output is of a type that no bundle holds.
    """
    n_parameters = sum(a.size for a in model.graph.constants.values() if a.dtype.kind == "f")
    return Network(
        task=task,
        inputs=tuple(_info(value) for value in model.graph.inputs),
        outputs=tuple(_info(value) for value in model.graph.outputs),
        n_parameters=n_parameters,
        feed=model.feed,
        n_labels=len(model.labels),
        detection=model.detection,
    )


def pack_network(
    model: NetworkModel,
    network: Network,
    variants: Mapping[str, Graph],
    staged: Path,
    *,
    provenance: Mapping[str, object],
    shrink: Shrink = shrink_constant,
) -> Bundle:
    """Write a bundle into a staged folder.

    Args:
        model: the source, for its name and files.
        network: its description.
        variants: name -> graph; the first is the default variant.
        staged: an empty folder.
        provenance: hashes and settings that the bundle was made from.
        shrink: stores a constant without its zeros, or says with None that it stays whole.

    Returns:
        The bundle; the same bytes for the same graphs.
    """
    variants = {name: compact(graph) for name, graph in variants.items()}
    tensors = _Tensors(shrink=shrink)
    outside = _all_outside(variants, tensors)
    files, hashes = _write_weights(tensors, outside, staged)
    made: dict[str, Variant] = {}
    for variant, graph in variants.items():
        file = "model.onnx" if len(variants) == 1 else f"{variant}.onnx"
        places = _places(graph, outside[variant], files)
        (staged / file).write_bytes(model_bytes(graph, outside=places))
        used = {files[name][0] for name in outside[variant].tensors()}
        made[variant] = Variant(
            graph=file,
            weights=tuple(name for name in hashes if name in used) or (WEIGHTS,),
            matrices={},
            accuracy_level=4,
            sparse=outside[variant].sparse,
        )
    for name, content in model.files.items():
        (staged / name).write_bytes(content)
    if model.labels:
        (staged / LABELS).write_text("\n".join(model.labels) + "\n", encoding="utf-8")
    manifest = Manifest(
        name=model.name,
        kind=NETWORK,
        version=1 + parent_version(provenance),
        default_variant=next(iter(variants)),
        variants=made,
        model=network,
        files={},
        provenance=json.loads(json.dumps(provenance)),
    )
    return write_manifest(staged, manifest, hashes=hashes)


def _write_weights(
    tensors: _Tensors, outside: Mapping[str, _Outside], staged: Path
) -> tuple[dict[str, tuple[str, TensorSpec]], dict[str, str]]:
    """Write a file for each set of variants that use the same, so that each needs what it uses.

    Returns:
        Name of a tensor -> its file and its place there; file -> SHA-256, those that fewer
        variants use first.
    """
    variants = list(outside)
    used = {variant: found.tensors() for variant, found in outside.items()}
    parts: dict[tuple[str, ...], dict[str, Array]] = {}
    if not all(used.values()):  # one that needs nothing names a file all the same
        parts[tuple(variants)] = {}
    for name, array in tensors.arrays.items():
        users = tuple(variant for variant in variants if name in used[variant])
        parts.setdefault(users, {})[name] = array
    places: dict[str, tuple[str, TensorSpec]] = {}
    hashes: dict[str, str] = {}
    for users in sorted(parts, key=len):
        file = weights_file(users, variants)
        declared = {
            name: TensorSpec(dtype=_CODES[array.dtype.name], shape=array.shape)
            for name, array in parts[users].items()
        }
        with SafetensorsWriter(staged / file, declared) as writer:
            for name, array in parts[users].items():
                writer.write(name, array)
            hashes[file] = writer.close()
        places |= {name: (file, spec) for name, spec in writer.tensors.items()}
    return places, hashes


def _all_outside(variants: Mapping[str, Graph], tensors: _Tensors) -> dict[str, _Outside]:
    keys = {
        name: {constant: _key(array) for constant, array in graph.constants.items()}
        for name, graph in variants.items()
    }
    uses = Counter(key for known in keys.values() for key in known.values())
    return {
        name: _outside(name, graph, tensors, keys[name], uses) for name, graph in variants.items()
    }


def _outside(
    variant: str,
    graph: Graph,
    tensors: _Tensors,
    keys: Mapping[str, _Key],
    uses: Mapping[_Key, int],
) -> _Outside:
    """Store the larger constants of a graph, equal ones of all variants once."""
    names: dict[str, str] = {}
    sparse: dict[str, SparseForm] = {}
    room = MOST_EXPANDED_BYTES
    for constant, array in graph.constants.items():
        if array.nbytes <= _INLINE_BYTES:
            continue
        key = keys[constant]
        whole = np.ascontiguousarray(array)
        wanted = constant if constant not in tensors.arrays else f"{variant}/{constant}"
        form = tensors.without_zeros(key, whole, wanted) if array.nbytes <= room else None
        if form is not None:
            sparse[constant] = form
            room -= form.size_bytes
        elif array.dtype.name in _CODES and (array.nbytes > _INLINE_BYTES_ALONE or uses[key] > 1):
            names[constant] = tensors.whole(key, whole, wanted)
    return _Outside(names=names, sparse=sparse)


def _places(
    graph: Graph, outside: _Outside, files: Mapping[str, tuple[str, TensorSpec]]
) -> dict[str, Place]:
    whole = {
        constant: Place(
            file=files[name][0],
            offset=files[name][1].offset,
            length=graph.constants[constant].nbytes,
        )
        for constant, name in outside.names.items()
    }
    return whole | {
        constant: Place(file=LEFT_OUT, offset=0, length=form.size_bytes)
        for constant, form in outside.sparse.items()
    }


def _key(array: Array) -> _Key:
    whole = np.ascontiguousarray(array)
    digest = hashlib.sha256(whole.reshape(-1).view(np.uint8).data).digest()
    return array.dtype.name, array.shape, digest


def _info(value: Value) -> ArrayInfo:
    if value.dtype.name not in _CODES:
        raise SourceError(f"{value.name!r} is {value.dtype.name}, which no bundle holds")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return ArrayInfo(name=value.name, dtype=value.dtype.name, shape=shape)
