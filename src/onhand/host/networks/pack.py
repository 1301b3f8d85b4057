"""Graphs written as a bundle: constants into one weights file that all variants share."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.bundle import Bundle, write_manifest
from onhand.core.errors import SourceError
from onhand.core.manifest import NETWORK, Manifest, Variant
from onhand.core.network import ArrayInfo, Network
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.device.networks.answers import LABELS
from onhand.host.networks.compact import compact
from onhand.host.networks.graph import Array, Graph, Value
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import Place, model_bytes

__all__ = ["describe", "pack_network"]

_WEIGHTS = "weights.safetensors"
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
_Content = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True, slots=True)
class _Stored:
    """One tensor of the weights file."""

    name: str
    array: Array


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
    )


def pack_network(
    model: NetworkModel,
    network: Network,
    variants: Mapping[str, Graph],
    staged: Path,
    *,
    provenance: Mapping[str, object],
) -> Bundle:
    """Write a bundle into a staged folder.

    Args:
        model: the source, for its name and files.
        network: its description.
        variants: name -> graph; the first is the default variant.
        staged: an empty folder.
        provenance: hashes and settings that the bundle was made from.

    Returns:
        The bundle; the same bytes for the same graphs.
    """
    variants = {name: compact(graph) for name, graph in variants.items()}
    stored, places = _shared(variants)
    declared = {
        name: TensorSpec(dtype=_CODES[one.array.dtype.name], shape=one.array.shape, offset=0)
        for name, one in stored.items()
    }
    with SafetensorsWriter(staged / _WEIGHTS, declared) as writer:
        for name, one in stored.items():
            writer.write(name, one.array)
        digest = writer.close()
    made: dict[str, Variant] = {}
    for variant, graph in variants.items():
        file = "model.onnx" if len(variants) == 1 else f"{variant}.onnx"
        outside = {
            constant: Place(
                file=_WEIGHTS,
                offset=writer.tensors[name].offset,
                length=graph.constants[constant].nbytes,
            )
            for constant, name in places[variant].items()
        }
        (staged / file).write_bytes(model_bytes(graph, outside=outside))
        made[variant] = Variant(graph=file, weights=(_WEIGHTS,), matrices={}, accuracy_level=4)
    for name, content in model.files.items():
        (staged / name).write_bytes(content)
    if model.labels:
        (staged / LABELS).write_text("\n".join(model.labels) + "\n", encoding="utf-8")
    manifest = Manifest(
        name=model.name,
        kind=NETWORK,
        version=1,
        default_variant=next(iter(variants)),
        variants=made,
        model=network,
        files={},
        provenance=json.loads(json.dumps(provenance)),
    )
    return write_manifest(staged, manifest, hashes={_WEIGHTS: digest})


def _shared(
    variants: Mapping[str, Graph],
) -> tuple[dict[str, _Stored], dict[str, dict[str, str]]]:
    """Return the tensors to store, equal ones once, and variant -> constant -> tensor's name."""
    stored: dict[str, _Stored] = {}
    by_content: dict[_Content, str] = {}
    places: dict[str, dict[str, str]] = {}
    contents = {
        variant: {n: _content(a) for n, a in graph.constants.items() if _may_leave(a)}
        for variant, graph in variants.items()
    }
    uses = Counter(key for known in contents.values() for key in known.values())
    for variant, graph in variants.items():
        places[variant] = {}
        for constant, key in contents[variant].items():
            array = graph.constants[constant]
            if array.nbytes <= _INLINE_BYTES_ALONE and uses[key] == 1:
                continue
            if key not in by_content:
                name = constant if constant not in stored else f"{variant}/{constant}"
                by_content[key] = name
                stored[name] = _Stored(name, np.ascontiguousarray(array))
            places[variant][constant] = by_content[key]
    return stored, places


def _may_leave(array: Array) -> bool:
    return array.nbytes > _INLINE_BYTES and array.dtype.name in _CODES


def _content(array: Array) -> _Content:
    whole = np.ascontiguousarray(array)
    digest = hashlib.sha256(whole.reshape(-1).view(np.uint8).data).digest()
    return array.dtype.name, array.shape, digest


def _info(value: Value) -> ArrayInfo:
    if value.dtype.name not in _CODES:
        raise SourceError(f"{value.name!r} is {value.dtype.name}, which no bundle holds")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return ArrayInfo(name=value.name, dtype=value.dtype.name, shape=shape)
