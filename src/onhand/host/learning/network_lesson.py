"""Lessons of networks that are no language models: what is learned, and the graphs that say how.

A network's graph is opened: weights that are learned become inputs, in float32 even where they
were codes. From the opened graph come
    learned.onnx: the network's own outputs, for whoever runs what was learned;
    learn-trunk.onnx: what lies before everything that is learned, in its stored precision;
    learn.onnx: what lies behind it (or the whole network), its loss and the gradients.
Where activations are rounded to integers, they are rounded in all of these: what is trained is what
will answer. Gradients pass that rounding as if it were not there, and nothing passes where it
saturates. Scores are not rounded any more, as the range of new classes' scores is not known.

Source:
    LoRA: arXiv:2106.09685. Straight-through estimator: arXiv:1308.3432.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.host.learning.losses import CLASS_INPUTS
from onhand.host.learning.network_cut import Cut, cut_at, find_last_block, values_behind
from onhand.host.learning.network_edit import GraphEdit, Opened
from onhand.host.learning.network_graph import (
    fixed_names,
    known_shapes,
    merged_decoders,
    renamed_apart,
    with_exact_products,
)
from onhand.host.learning.network_head import (
    Head,
    find_head,
    open_head,
    open_scores,
    with_new_head,
)
from onhand.host.learning.network_opset import newer_graph
from onhand.host.learning.network_weights import open_biases, open_low_rank, open_weights
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.graph import Graph, Node, Value

__all__ = [
    "ANSWERS",
    "GRAPH",
    "LATENT",
    "START",
    "TRUNK",
    "NetworkLesson",
    "make_lesson",
]

GRAPH: Final = "learn.onnx"
TRUNK: Final = "learn-trunk.onnx"
ANSWERS: Final = "learned.onnx"
START: Final = "learn.safetensors"
LATENT: Final = "latent"
_TAKEN: Final = {*CLASS_INPUTS, "loss", "losses", "logits", LATENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLesson:
    """A lesson, its graphs still without loss and gradients.

    Attributes:
        lesson: what the bundle will say of it.
        opened: the whole network, with the trainables as inputs.
        forward: from `latent`, or from the network's own inputs, and the trainables to the logits,
            its only output.
        trunk: from the network's inputs to `latent`; None where nothing lies before what is
            learned.
    """

    lesson: Lesson
    opened: Opened
    forward: Graph
    trunk: Graph | None


def make_lesson(graph: Graph, learnable: Learnable, *, variant: str, task: str) -> NetworkLesson:
    """Make a lesson of a network.

    Args:
        graph: of the variant, as it lies in the bundle.
        learnable: what is to be learned.
        variant: its name.
        task: of the network; one that gives vectors gets a new head.

    Returns:
        The lesson.

    Raises:
        InputError: if nothing of that kind can be learned of this network; it says why.
        EngineError: if ONNX Runtime cannot compute a weight.
    """
    if task == "detection":
        raise InputError("--learnable: what a detector learns from is not known here")
    graph = newer_graph(merged_decoders(graph))
    if task in {"text-embedding", "features"}:
        graph = with_new_head(graph, len(learnable.classes))
    elif learnable.classes:
        raise InputError(f"--learnable: classes= is for vectors; a network for {task} has its own")
    fixed = fixed_names(graph)
    head = find_head(graph, fixed)
    cut = _cut(graph, head, fixed, learnable)
    edit = GraphEdit(graph)
    logits = open_scores(edit, graph, head)
    grows = _open(edit, graph, head, fixed, cut, learnable)
    opened = edit.finished(logits, grows=grows)
    if not grows and head.n_classes < 2:
        raise InputError(f"the head gives {head.n_classes} score: classes are told apart by two")
    lesson = Lesson(
        kind=learnable.kind,
        feeds="classes",
        variant=variant,
        graph=GRAPH,
        trunk=None if cut is None else TRUNK,
        start=START,
        answers=ANSWERS,
        classes=learnable.classes,
        trainables=opened.trainables,
        alpha=learnable.scale() if learnable.kind == "lora" else 0.0,
    )
    forward = with_exact_products(_forward(opened, cut))
    return NetworkLesson(
        lesson=lesson,
        opened=opened,
        forward=forward,
        trunk=None if cut is None else _trunk(graph, cut),
    )


def _cut(graph: Graph, head: Head, fixed: Collection[str], learnable: Learnable) -> Cut | None:
    """Return where the trunk ends; None where everything is learned.

    Raises:
        InputError: if the network cannot be cut.
    """
    if learnable.kind == "head":
        shapes = known_shapes(graph)
        value = shapes.get(head.data)
        if value is None:
            raise InputError(f"of the value {head.data!r}, which the head reads, nothing is known")
        return Cut(value=value, beside=())
    if learnable.kind != "last-block":
        return None
    if learnable.cut:
        return cut_at(graph, head.node, fixed, learnable.cut)
    return find_last_block(graph, head.node, fixed)


def _open(
    edit: GraphEdit,
    graph: Graph,
    head: Head,
    fixed: Collection[str],
    cut: Cut | None,
    learnable: Learnable,
) -> bool:
    """Make trainables; whether classes may be added.

    Raises:
        InputError: if there would be none.
    """
    if learnable.kind == "last-block" and cut is not None:
        behind = values_behind(graph, cut.value.name, fixed) - {cut.value.name}
        open_weights(edit, graph, fixed, behind, head)
    elif learnable.kind == "bias":
        open_biases(edit, graph, fixed, head)
        if not edit.trainables:
            raise InputError("the network has no biases before its head: take --learnable head")
    elif learnable.kind == "lora":
        open_low_rank(edit, graph, fixed, head, learnable)
    if learnable.kind == "bias" and not _is_new(head, graph):
        # Of a head that was trained, only the bias is learned: classes cannot be added.
        return False
    return open_head(edit, graph, head)


def _is_new(head: Head, graph: Graph) -> bool:
    return not np.any(graph.constants.get(head.weight, np.ones(1)))


def _forward(opened: Opened, cut: Cut | None) -> Graph:
    """Return what the lesson differentiates: to the logits, from `latent` if there is a cut.

    Raises:
        InputError: if an input of the network is called as one of the lesson's.
    """
    shapes = known_shapes(opened.graph)
    logits = shapes.get(opened.logits)
    value = Value(name=opened.logits, dtype=np.dtype(np.float32), shape=("B", None))
    if logits is not None and len(logits.shape) == 2:
        value = replace(value, shape=("B", logits.shape[1]))
    whole = replace(opened.graph, outputs=(value,))
    if cut is not None:
        return _behind_cut(whole, opened, cut)
    own = tuple(_with_batch(one) for one in opened.own_inputs())
    if clash := sorted({one.name for one in own} & _TAKEN):
        raise InputError(
            f"the network's input {clash[0]!r} is called as one of the lesson's own: rename it"
        )
    return _apart(replace(whole, inputs=(*own, *_trainable_inputs(opened))).live())


def _with_batch(value: Value) -> Value:
    if not value.shape or isinstance(value.shape[0], int):
        return value
    return replace(value, shape=("B", *value.shape[1:]))


def _trainable_inputs(opened: Opened) -> tuple[Value, ...]:
    return tuple(one for one in opened.graph.inputs if one.name in opened.trainables)


def _behind_cut(whole: Graph, opened: Opened, cut: Cut) -> Graph:
    graph, names = renamed_apart(whole, _TAKEN)
    source = names.get(cut.value.name, cut.value.name)
    latent = _latent(cut)
    nodes: list[Node] = []
    constants = dict(graph.constants)
    if cut.beside:
        nodes, constants = _unpacked(cut, source, constants, graph.names())
    else:
        graph = graph.renamed({source: LATENT})
    kept = [node for node in graph.nodes if source not in node.outputs]
    return replace(
        graph,
        nodes=(*nodes, *kept),
        constants=constants,
        inputs=(latent, *_trainable_inputs(opened)),
    ).live()


def _latent(cut: Cut) -> Value:
    sizes = [size if isinstance(size, int) else f"L{i}" for i, size in enumerate(cut.value.shape)]
    if cut.beside and isinstance(sizes[-1], int):
        sizes[-1] += len(cut.beside)
    return Value(name=LATENT, dtype=np.dtype(np.float32), shape=("B", *sizes[1:]))


def _unpacked(
    cut: Cut, source: str, constants: dict[str, np.ndarray], names: set[str]
) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Return nodes that take a value and inputs beside it, as channels, out of `latent`.

    Raises:
        InputError: if the value's width is not known.
    """
    D = cut.value.shape[-1]
    if not isinstance(D, int):
        raise InputError(f"the width of {cut.value.name!r} is not known: cut elsewhere")
    last = "latent.last"
    constants[last] = np.array([-1], dtype=np.int64)
    nodes: list[Node] = []

    def piece(low: int, high: int, name: str) -> None:
        for end, place in (("low", low), ("high", high)):
            constants[f"{name}.{end}"] = np.array([place], dtype=np.int64)
        inputs = (LATENT, f"{name}.low", f"{name}.high", last)
        nodes.append(Node(op="Slice", inputs=inputs, outputs=(name,)))

    piece(0, D, source)
    for i, value in enumerate(cut.beside):
        channel = f"latent.{value.name}"
        piece(D + i, D + i + 1, channel)
        nodes.append(Node(op="Squeeze", inputs=(channel, last), outputs=(f"{channel}.floats",)))
        code = 7 if value.dtype == np.dtype(np.int64) else 6
        nodes.append(
            Node(
                op="Cast",
                inputs=(f"{channel}.floats",),
                outputs=(value.name,),
                attributes={"to": code},
            )
        )
    return nodes, constants


def _apart(graph: Graph) -> Graph:
    return renamed_apart(graph, _TAKEN)[0]


def _trunk(graph: Graph, cut: Cut) -> Graph:
    """Return what lies before a cut."""
    graph, names = renamed_apart(graph, {LATENT})
    source = names.get(cut.value.name, cut.value.name)
    value = replace(_latent(cut), shape=(cut.value.shape[0], *_latent(cut).shape[1:]))
    nodes: list[Node] = []
    constants = dict(graph.constants)
    parts = [source]
    for one in cut.beside:
        last = f"latent.last.{one.name}"
        constants[last] = np.array([-1], dtype=np.int64)
        floats, column = f"latent.{one.name}.floats", f"latent.{one.name}"
        nodes.append(Node(op="Cast", inputs=(one.name,), outputs=(floats,), attributes={"to": 1}))
        nodes.append(Node(op="Unsqueeze", inputs=(floats, last), outputs=(column,)))
        parts.append(column)
    if len(parts) > 1:
        made = Node(op="Concat", inputs=tuple(parts), outputs=(LATENT,), attributes={"axis": -1})
    else:
        made = Node(op="Identity", inputs=(source,), outputs=(LATENT,))
    return replace(
        graph, nodes=(*graph.nodes, *nodes, made), constants=constants, outputs=(value,)
    ).live()
