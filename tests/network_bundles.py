"""Bundles of small networks, written without torch and without the onnx package."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.bundle import Bundle, read_bundle, stage_bundle, write_manifest
from onhand.core.detection import Detection
from onhand.core.feed import Feed
from onhand.core.manifest import NETWORK, Manifest, Variant
from onhand.core.measurement import Measurement, Unit
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxgraph import parse_graph
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, layout_tensors

Array = NDArray[np.generic]
Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | Array
ONNX_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
}
STORED = {"float32": "F32", "uint8": "U8", "int8": "I8", "int32": "I32", "int64": "I64",
          "bool": "BOOL", "float16": "F16"}  # fmt: skip
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """A node of a graph."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A graph and its constants, whose inputs and outputs are as the manifest will say."""

    ops: Sequence[Op]
    constants: Mapping[str, Array]
    inputs: tuple[ArrayInfo, ...]
    outputs: tuple[ArrayInfo, ...]
    opset: int = 17
    domains: Mapping[str, int] = field(default_factory=dict)


def info(name: str, *shape: int | None, dtype: str = "float32") -> ArrayInfo:
    """An input or an output."""
    return ArrayInfo(name=name, dtype=dtype, shape=shape)


def varint(number: int) -> bytes:
    """A number as protocol buffers write it; negative ones take ten bytes."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def whole(key: int, number: int) -> bytes:
    """A field that is a number."""
    return varint(key << 3) + varint(number)


def text(key: int, content: str | bytes) -> bytes:
    """A field that is a text or a message."""
    raw = content.encode() if isinstance(content, str) else content
    return varint(key << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, array: Array, place: tuple[str, int, int] | None = None) -> bytes:
    """A tensor, whose bytes may lie in a file: its name, the first byte, and how many."""
    message = b"".join(whole(1, size) for size in array.shape)
    message += whole(2, ONNX_TYPES[array.dtype.name]) + text(8, name)
    if place is None:
        return message + text(9, array.tobytes())
    for key, value in zip(("location", "offset", "length"), place, strict=True):
        message += text(13, text(1, key) + text(2, str(value)))
    return message + whole(14, 1)


def attribute(name: str, value: Attribute) -> bytes:
    """An attribute of a node."""
    message = text(1, name)
    if isinstance(value, np.ndarray):
        return message + text(5, tensor("", value)) + whole(20, 4)
    if isinstance(value, str):
        return message + text(4, value) + whole(20, 3)
    if isinstance(value, int):
        return message + whole(3, value) + whole(20, 2)
    if isinstance(value, float):
        return message + varint(2 << 3 | 5) + struct.pack("<f", value) + whole(20, 1)
    if all(isinstance(item, int) for item in value):
        return message + b"".join(whole(8, int(item)) for item in value) + whole(20, 7)
    packed = b"".join(struct.pack("<f", float(item)) for item in value)
    return message + text(7, packed) + whole(20, 6)


def value_info(described: ArrayInfo) -> bytes:
    """An input or an output in a graph."""
    sizes = b"".join(
        text(1, text(2, f"n{place}") if size is None else whole(1, size))
        for place, size in enumerate(described.shape)
    )
    kind = text(1, whole(1, ONNX_TYPES[described.dtype]) + text(2, sizes))
    return text(1, described.name) + text(2, kind)


def node(op: Op) -> bytes:
    """A node in a graph."""
    message = b"".join(text(1, name) for name in op.inputs)
    message += b"".join(text(2, name) for name in op.outputs)
    message += text(3, op.outputs[0]) + text(4, op.kind)
    message += b"".join(text(5, attribute(n, value)) for n, value in op.attributes.items())
    return message + (text(7, op.domain) if op.domain else b"")


def model(drawing: Drawing, places: Mapping[str, tuple[str, int, int]] | None = None) -> bytes:
    """An ONNX file; constants without a place lie in it."""
    graph = b"".join(text(1, node(op)) for op in drawing.ops) + text(2, "network")
    for name, array in drawing.constants.items():
        graph += text(5, tensor(name, array, (places or {}).get(name)))
    graph += b"".join(text(11, value_info(described)) for described in drawing.inputs)
    graph += b"".join(text(12, value_info(described)) for described in drawing.outputs)
    message = whole(1, 10) + text(7, graph) + text(8, text(1, "") + whole(2, drawing.opset))
    for domain, version in drawing.domains.items():
        message += text(8, text(1, domain) + whole(2, version))
    return message


def pack(
    root: Path,
    variants: Mapping[str, Drawing],
    *,
    task: str = "features",
    feed: Feed | None = None,
    described: Drawing | None = None,
    files: Mapping[str, bytes] | None = None,
    accuracy_level: int = 0,
    provenance: Mapping[str, object] | None = None,
    detection: Detection | None = None,
    n_labels: int = 0,
) -> Bundle:
    """Write the bundle of some variants, the first of them its default, and read it back.

    Args:
        root: folder to create.
        variants: name -> graph; each has a weights file of its own.
        task: what the network is for.
        feed: how its inputs are made.
        described: whose inputs and outputs the manifest tells; None for those of the first.
        files: more of them: a tokenizer.
        accuracy_level: as in `Variant`.
        provenance: as in `Manifest`.
        detection: how its outputs become boxes.
        n_labels: lines of its labels, which are among `files`.
    """
    made: dict[str, Variant] = {}
    hashes: dict[str, str] = {}
    with stage_bundle(root) as staged:
        for number, (name, drawing) in enumerate(variants.items()):
            weights = WEIGHTS if number == 0 else f"{name}.safetensors"
            graph = "model.onnx" if number == 0 else f"{name}.onnx"
            places, hashes[weights] = _write_weights(staged / weights, drawing.constants)
            (staged / graph).write_bytes(model(drawing, places))
            made[name] = Variant(
                graph=graph, weights=(weights,), matrices={}, accuracy_level=accuracy_level
            )
        for name, content in (files or {}).items():
            (staged / name).write_bytes(content)
        first = described or next(iter(variants.values()))
        manifest = Manifest(
            name="tiny-network",
            kind=NETWORK,
            version=1,
            default_variant=next(iter(variants)),
            variants=made,
            model=Network(
                task=task,
                inputs=first.inputs,
                outputs=first.outputs,
                n_parameters=sum(array.size for array in first.constants.values()),
                detection=detection,
                feed=feed,
                n_labels=n_labels,
            ),
            files={},
            provenance=provenance or {},
        )
        write_manifest(staged, manifest, hashes=hashes)
    return read_bundle(root)


def write_network_report(
    bundle: Bundle,
    figures: Mapping[str, Mapping[str, float]],
    *,
    limits: Mapping[str, float] | None = None,
) -> None:
    """Put a report into a bundle.

    Args:
        bundle: the bundle.
        figures: variant -> name of a figure -> its value; the default one first.
        limits: of the budget, as `Budget.limits` gives them.
    """
    report = json.loads((Path(__file__).parent / "device" / "report_example.json").read_text())
    units: dict[str, Unit] = {"quality_loss": "fraction", "size_bytes": "byte"}
    report |= {
        "budget": {"breaches": [], "limits": dict(limits or {})},
        "default_variant": bundle.manifest.default_variant,
        "kind": "network",
        "manifest_sha256": bundle.manifest_sha256,
        "variants": {
            variant: {
                "figures": {
                    name: Measurement(
                        name=name, value=value, unit=units.get(name, "s"), samples=1, spread=0.0,
                        how="by hand",
                    ).to_json()
                    for name, value in given.items()
                },
                "kept": {},
                "matrices": [],
                "repair": None,
            }
            for variant, given in figures.items()
        },
    }  # fmt: skip
    (bundle.root / "report.json").write_text(json.dumps(report))


def _write_weights(
    path: Path, constants: Mapping[str, Array]
) -> tuple[dict[str, tuple[str, int, int]], str]:
    declared = {
        name: TensorSpec(dtype=STORED[array.dtype.name], shape=array.shape)
        for name, array in constants.items()
    }
    with SafetensorsWriter(path, declared) as writer:
        for name, array in constants.items():
            writer.write(name, array)
        digest = writer.close()
    _, laid = layout_tensors(declared)
    return {name: (path.name, spec.offset, spec.size) for name, spec in laid.items()}, digest


def drawing_of(path: Path) -> Drawing:
    """An ONNX file that holds all its data, read without the onnx package."""
    graph = parse_graph(path.read_bytes(), {})
    ops = [
        Op(
            kind=made.op,
            inputs=made.inputs,
            outputs=made.outputs,
            attributes={name: v for name, v in made.attributes.items() if v is not None},
            domain=made.domain,
        )
        for made in graph.nodes
    ]
    inputs, outputs = (
        tuple(ArrayInfo(name=d.name, dtype=d.dtype, shape=d.shape or ()) for d in declared)
        for declared in (graph.inputs, graph.outputs)
    )
    return Drawing(ops=ops, constants=graph.constants, inputs=inputs, outputs=outputs,
                   opset=graph.opset, domains=graph.domains)  # fmt: skip


def classifier(rng: np.random.Generator, *, batch: int | None = 1) -> Drawing:
    """Two convolutions, one of them depthwise, a pool over all places, and a matrix."""

    def random(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32) / 3

    same = {"pads": [1, 1, 1, 1]}
    return Drawing(
        ops=[
            Op(kind="Conv", inputs=["x", "w1", "b1"], outputs=["c1"],
               attributes=same | {"strides": [2, 2]}),
            Op(kind="Clip", inputs=["c1", "low", "high"], outputs=["r1"]),
            Op(kind="Conv", inputs=["r1", "w2"], outputs=["c2"], attributes=same | {"group": 8}),
            Op(kind="Relu", inputs=["c2"], outputs=["r2"]),
            Op(kind="GlobalAveragePool", inputs=["r2"], outputs=["p"]),
            Op(kind="Flatten", inputs=["p"], outputs=["f"]),
            Op(kind="Gemm", inputs=["f", "w3", "b3"], outputs=["y"], attributes={"transB": 1}),
        ],
        constants={
            "w1": random(8, 3, 3, 3),
            "b1": random(8),
            "low": np.array(0, dtype=np.float32),
            "high": np.array(6, dtype=np.float32),
            "w2": random(8, 1, 3, 3),
            "w3": random(5, 8),
            "b3": random(5),
        },
        inputs=(info("x", batch, 3, 12, 12),),
        outputs=(info("y", batch, 5),),
    )  # fmt: skip
