"""A bundle whose lesson is written by hand: a frozen trunk, and a linear head with gradients."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle, stage_bundle, write_manifest
from onhand.core.lesson import LESSON, Lesson, Trainable, render_lesson
from onhand.core.manifest import Manifest, Variant
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxwrite import (
    WrittenNode,
    bytes_field,
    node_message,
    number_field,
    tensor_message,
)
from onhand.core.safetensors import SafetensorsWriter, TensorSpec

Sizes = Sequence[int | None]
N_PIXELS, D, C = 6, 4, 3
LABELS = ("cup", "lamp", "door")
_CODES = {"float32": 1, "int64": 7}


def declared(name: str, dtype: str, shape: Sizes) -> bytes:
    """An input or an output; None for a size that is free."""
    sizes = [bytes_field(1, b"" if n is None else number_field(1, n)) for n in shape]
    tensor = number_field(1, _CODES[dtype]) + bytes_field(2, b"".join(sizes))
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, tensor))


def outside(name: str, shape: Sequence[int], *, file: str, offset: int, length: int) -> bytes:
    """A tensor of float32 that lies in another file."""
    entries = {"location": file, "offset": str(offset), "length": str(length)}
    fields = [number_field(1, size) for size in shape]
    fields += [number_field(2, 1), bytes_field(8, name.encode())]
    fields += [
        bytes_field(13, bytes_field(1, key.encode()) + bytes_field(2, value.encode()))
        for key, value in entries.items()
    ]
    return b"".join([*fields, number_field(14, 1)])


def onnx_model(
    nodes: Sequence[WrittenNode],
    *,
    inputs: Mapping[str, tuple[str, Sizes]],
    outputs: Mapping[str, tuple[str, Sizes]],
    tensors: Sequence[bytes] = (),
) -> bytes:
    """An ONNX file with several outputs."""
    graph = [bytes_field(1, node_message(node)) for node in nodes]
    graph.append(bytes_field(2, b"lesson"))
    graph += [bytes_field(5, tensor) for tensor in tensors]
    graph += [bytes_field(11, declared(name, *info)) for name, info in inputs.items()]
    graph += [bytes_field(12, declared(name, *info)) for name, info in outputs.items()]
    opset = bytes_field(1, b"") + number_field(2, 21)
    return b"".join([
        number_field(1, 10),
        bytes_field(8, opset),
        bytes_field(7, b"".join(graph)),
    ])


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> WrittenNode:
    """One operator."""
    return WrittenNode(kind=kind, inputs=inputs, output=output, attributes=attributes)


def head_nodes() -> list[WrittenNode]:
    """The loss of a linear head and its gradients, node by node."""
    return [
        node("Gemm", ["latent", "head.weight", "head.bias"], "logits", transB=1),
        node("LogSoftmax", ["logits"], "logs", axis=1),
        node("Exp", ["logs"], "shares"),
        node("Shape", ["head.bias"], "n_classes"),
        node("OneHot", ["labels", "n_classes", "off_on"], "right", axis=1),
        node("Mul", ["right", "logs"], "picked"),
        node("ReduceSum", ["picked", "one"], "minus_losses", keepdims=0),
        node("Neg", ["minus_losses"], "losses"),
        node("Mul", ["losses", "weights"], "weighted"),
        node("ReduceSum", ["weighted", "zero"], "loss.new", keepdims=0),
        node("Sub", ["logits", "past_logits"], "away"),
        node("Mul", ["away", "away"], "away2"),
        node("ReduceMean", ["away2", "one"], "past.losses", keepdims=0),
        node("Mul", ["past.losses", "past_weights"], "past.weighted"),
        node("ReduceSum", ["past.weighted", "zero"], "loss.past", keepdims=0),
        node("Mul", ["past_classes", "logs"], "soft.picked"),
        node("ReduceSum", ["soft.picked", "one"], "soft.minus", keepdims=0),
        node("Mul", ["soft.minus", "soft_weights"], "soft.weighted"),
        node("ReduceSum", ["soft.weighted", "zero"], "loss.soft", keepdims=0),
        node("Add", ["loss.new", "loss.past"], "loss.two"),
        node("Sub", ["loss.two", "loss.soft"], "loss"),
        node("Sub", ["shares", "right"], "slope.plain"),
        node("Unsqueeze", ["weights", "one"], "weights.column"),
        node("Mul", ["slope.plain", "weights.column"], "slope.new"),
        node("Unsqueeze", ["past_weights", "one"], "past.column"),
        node("Cast", ["n_classes"], "n_classes.float", to=1),
        node("Mul", ["away", "past.column"], "slope.past.half"),
        node("Add", ["slope.past.half", "slope.past.half"], "slope.past.sum"),
        node("Div", ["slope.past.sum", "n_classes.float"], "slope.past"),
        node("ReduceSum", ["past_classes", "one"], "soft.total", keepdims=1),
        node("Mul", ["shares", "soft.total"], "soft.shares"),
        node("Sub", ["soft.shares", "past_classes"], "soft.away"),
        node("Unsqueeze", ["soft_weights", "one"], "soft.column"),
        node("Mul", ["soft.away", "soft.column"], "slope.soft"),
        node("Sum", ["slope.new", "slope.past", "slope.soft"], "slope"),
        node("Gemm", ["slope", "latent"], "grad.head.weight", transA=1),
        node("ReduceSum", ["slope", "zero"], "grad.head.bias", keepdims=0),
    ]


def head_graph() -> bytes:
    """The graph of the lesson."""
    f = "float32"
    return onnx_model(
        head_nodes(),
        inputs={
            "head.weight": (f, [None, D]),
            "head.bias": (f, [None]),
            "latent": (f, [None, D]),
            "labels": ("int64", [None]),
            "weights": (f, [None]),
            "past_logits": (f, [None, None]),
            "past_weights": (f, [None]),
            "past_classes": (f, [None, None]),
            "soft_weights": (f, [None]),
        },
        outputs={
            "loss": (f, []),
            "losses": (f, [None]),
            "logits": (f, [None, None]),
            "grad.head.weight": (f, [None, D]),
            "grad.head.bias": (f, [None]),
        },
        tensors=[
            tensor_message("off_on", np.array([0, 1], np.float32)),
            tensor_message("zero", np.array([0], np.int64)),
            tensor_message("one", np.array([1], np.int64)),
        ],
    )


def trunk_weights() -> FloatArray:
    """What the trunk multiplies by: (N_PIXELS, D)."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((N_PIXELS, D)).astype(np.float32)


def trunk_graph(offset: int) -> bytes:
    """Pixels times a matrix that lies in the weights file, and no less than nothing."""
    return onnx_model(
        [
            WrittenNode(kind="MatMul", inputs=["pixels", "frozen"], output="seen"),
            WrittenNode(kind="Relu", inputs=["seen"], output="latent"),
        ],
        inputs={"pixels": ("float32", [None, N_PIXELS])},
        outputs={"latent": ("float32", [None, D])},
        tensors=[frozen(offset)],
    )


def answers_graph(offset: int, *, bound: bool) -> bytes:
    """The whole network; its head is an input, or zeros."""
    zeros = {"head.weight": np.zeros((C, D), np.float32), "head.bias": np.zeros(C, np.float32)}
    free: dict[str, tuple[str, Sizes]] = {
        "head.weight": ("float32", [None, D]),
        "head.bias": ("float32", [None]),
    }
    return onnx_model(
        [
            node("MatMul", ["pixels", "frozen"], "seen"),
            node("Relu", ["seen"], "latent"),
            node("Gemm", ["latent", "head.weight", "head.bias"], "scores", transB=1),
        ],
        inputs={"pixels": ("float32", [None, N_PIXELS]), **({} if bound else free)},
        outputs={"scores": ("float32", [None, C if bound else None])},
        tensors=[
            frozen(offset),
            *([tensor_message(name, array) for name, array in zeros.items()] if bound else []),
        ],
    )


def frozen(offset: int) -> bytes:
    """The trunk's matrix, in the weights file."""
    return outside(
        "frozen",
        [N_PIXELS, D],
        file="weights.safetensors",
        offset=offset,
        length=N_PIXELS * D * 4,
    )


def lesson_of_head(**changes: object) -> Lesson:
    """The lesson of the bundle."""
    given: dict[str, object] = {
        "kind": "head",
        "feeds": "classes",
        "variant": "plain",
        "graph": "learn.onnx",
        "trunk": "trunk.onnx",
        "start": "learn.safetensors",
        "answers": "learned.onnx",
        "trainables": {
            "head.weight": Trainable(shape=(C, D), tensor="head.weight", grows=True),
            "head.bias": Trainable(shape=(C,), tensor="head.bias", grows=True),
        },
    }
    return Lesson(**(given | changes))  # type: ignore[arg-type]


def write_tensors(path: Path, arrays: Mapping[str, FloatArray]) -> Mapping[str, TensorSpec]:
    """Write float32 tensors; return their places."""
    specs = {name: TensorSpec(dtype="F32", shape=array.shape) for name, array in arrays.items()}
    with SafetensorsWriter(path, specs) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
        writer.close()
        return writer.tensors


def write_bundle(root: Path, *, lesson: Lesson | None = None, without: str = "") -> Bundle:
    """Write a network of pixels that can learn its head.

    Args:
        root: the folder to make.
        lesson: in place of `lesson_of_head`.
        without: a file that is left out.
    """
    with stage_bundle(root) as staged:
        places = write_tensors(staged / "weights.safetensors", {"frozen": trunk_weights()})
        zeros = {"head.weight": np.zeros((C, D), np.float32), "head.bias": np.zeros(C, np.float32)}
        write_tensors(staged / "learn.safetensors", zeros)
        place = places["frozen"].offset
        (staged / "model.onnx").write_bytes(answers_graph(place, bound=True))
        (staged / "learned.onnx").write_bytes(answers_graph(place, bound=False))
        (staged / "trunk.onnx").write_bytes(trunk_graph(place))
        (staged / "learn.onnx").write_bytes(head_graph())
        (staged / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
        (staged / LESSON).write_bytes(render_lesson(lesson or lesson_of_head()))
        if without:
            (staged / without).unlink()
        network = Network(
            task="image-classification",
            inputs=(ArrayInfo(name="pixels", dtype="float32", shape=(None, N_PIXELS)),),
            outputs=(ArrayInfo(name="scores", dtype="float32", shape=(None, C)),),
            n_parameters=N_PIXELS * D + C * D + C,
            n_labels=C,
        )
        manifest = Manifest(
            name="things",
            kind="network",
            version=1,
            default_variant="plain",
            variants={
                "plain": Variant(
                    graph="model.onnx",
                    weights=("weights.safetensors",),
                    matrices={},
                    accuracy_level=0,
                )
            },
            model=network,
            files={},
            provenance={},
        )
        write_manifest(staged, manifest, hashes={})
    return read_bundle(root)
