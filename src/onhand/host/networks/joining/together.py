"""Several networks in one graph: heads over a common trunk, and a chain of two."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name
from onhand.host.networks.joining.before import prepared
from onhand.host.networks.joining.growing import Growth, beside, check_versions, float64
from onhand.host.networks.joining.scaling import framed, sizes_of
from onhand.host.networks.onnx_files import body_bytes, infer_shapes

__all__ = ["cascade", "share_trunk"]

_CHANCE: Final = frozenset({
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
})
"""Operators that give something else each time; two of them are never one."""


def share_trunk(graphs: list[Graph], *, names: list[str]) -> Graph:
    """Put networks of the same inputs into one graph that computes what they share once.

    Two constants are one where dtype, shape and bytes agree, two nodes where operator, inputs and
    attributes do: heads trained on a common, frozen trunk keep one copy of it.

    Args:
        graphs: the graphs, of the same inputs.
        names: of the graphs; an output that two have is called "name.output" in the later one.

    Returns:
        One graph with all outputs, in order.

    Raises:
        InputError: if inputs, opsets or the number of names differ.
    """
    if not graphs or len(names) != len(graphs):
        raise InputError(f"{len(graphs)} graphs and {len(names)} names: must be as many, and some")
    inputs = graphs[0].inputs
    for graph, name in zip(graphs, names, strict=True):
        if graph.inputs != inputs:
            raise InputError(f"{name}: has other inputs than {names[0]}, must have the same")
    domains = check_versions(graphs)
    shared = frozenset(value.name for value in inputs)
    merging = _Merging()
    taken = set(shared)
    outputs: list[Value] = []
    for graph, name in zip(graphs, names, strict=True):
        own = beside(graph, taken, prefix=f"{name}.", shared=shared)
        merging.add(own)
        for value in own.outputs:
            source = merging.new.get(value.name, value.name)
            if source != value.name:
                # Computed already under another name, which stays an output of its own.
                merging.nodes.append(Node(op="Identity", inputs=(source,), outputs=(value.name,)))
            outputs.append(value)
    return Graph(
        nodes=tuple(merging.nodes),
        constants=merging.constants,
        inputs=inputs,
        outputs=tuple(outputs),
        opset=graphs[0].opset,
        domains=domains,
    ).live()


@dataclass(slots=True)
class _Merging:
    """Nodes and constants of all graphs so far, each once; `new` says what stands for what."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    known: dict[object, Node] = field(default_factory=dict)
    stored: dict[object, str] = field(default_factory=dict)

    def add(self, graph: Graph) -> None:
        captured = {name for node in graph.nodes for name in node.captured}
        named = set(graph.output_names()) | captured
        for name, array in graph.constants.items():
            first = self.stored.setdefault(_content(array), name)
            # Bodies of loops read their names as they are.
            if name == first or name in named:
                self.constants[name] = array
            else:
                self.new[name] = first
        for node in graph.nodes:
            inputs = tuple(self.new.get(name, name) for name in node.inputs)
            made = replace(node, inputs=inputs)
            can_share = (
                node.op not in _CHANCE and not node.bodies and not captured & set(node.outputs)
            )
            like = self.known.setdefault(_meaning(made), made) if can_share else made
            if like is made:
                self.nodes.append(made)
            else:
                self.new |= dict(zip(node.outputs, like.outputs, strict=True))


def _content(array: Array) -> tuple[str, tuple[int, ...], str]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return array.dtype.str, array.shape, digest


def _meaning(node: Node) -> object:
    attributes = tuple(
        (key, _content(value) if isinstance(value, np.ndarray) else value)
        for key, value in sorted(node.attributes.items())
    )
    present = tuple(bool(name) for name in node.outputs)
    return node.domain, node.op, node.inputs, attributes, present


def cascade(detector: Graph, classifier: Graph, feed: PictureFeed) -> Graph:
    """Cut out what a detector finds, and let a classifier say what each crop is.

    Args:
        detector: its first input is a picture (H, W, 3) uint8, its first output boxes (M, 4) as
            shares of it: left, top, right, bottom, as after `with_preprocessing` and
            `with_postprocessing` with "nms".
        classifier: of one input that `feed` fills, with any number of crops in a batch.
        feed: of the classifier, which is fed a crop as it is fed a picture.

    Returns:
        One graph: all outputs of the detector, then those of the classifier, (M, ...) each.
        Boxes are widened to whole pixels and cut at the picture's edges.

    Raises:
        InputError: if the detector, the classifier or the feed is not like that.
    """
    picture, boxes = detector.inputs[0], detector.outputs[0]
    if picture.dtype != np.uint8 or len(picture.shape) != 3 or boxes.shape[1:] != (4,):
        raise InputError("the detector must take a picture (H, W, 3) uint8 and give boxes (M, 4)")
    if feed.resize == "none" or feed.channels == "gray":
        raise InputError("the classifier's feed must scale pictures, in color")
    classifier = _any_batch(classifier, feed)
    domains = check_versions([detector, classifier])
    g = Growth(detector.names())
    crops = _crops(g, picture.name, boxes.name, feed)
    second = beside(classifier, g.taken, prefix="classifier.", shared=frozenset())
    second = second.renamed({second.inputs[0].name: crops})
    outputs = tuple(replace(v, shape=(None, *v.shape[1:])) for v in second.outputs)
    whole = replace(
        detector,
        nodes=(*detector.nodes, *g.nodes, *second.nodes),
        constants={**detector.constants, **g.constants, **second.constants},
        outputs=(*detector.outputs, *outputs),
        domains=domains,
    )
    return whole.live()


def _any_batch(graph: Graph, feed: PictureFeed) -> Graph:
    first = graph.inputs[0]
    sides = (3, feed.height, feed.width) if feed.layout == "nchw" else (feed.height, feed.width, 3)
    if len(graph.inputs) != 1 or first.shape[1:] != sides or first.dtype != np.float32:
        raise InputError(
            f"the classifier takes {[v.shape for v in graph.inputs]}, must take one float32 batch "
            f"of {sides}"
        )
    opened = replace(
        graph,
        inputs=(replace(first, shape=("crops", *sides)),),
        outputs=tuple(replace(v, shape=("crops", *v.shape[1:])) for v in graph.outputs),
    )
    blank = replace(
        opened, outputs=tuple(replace(v, shape=(None,) * len(v.shape)) for v in opened.outputs)
    )
    known = infer_shapes(blank)
    for value in opened.outputs:
        if known[value.name].shape[:1] == (1,):
            raise InputError(
                f"the classifier's {value.name!r} is for one picture; export it for any number"
            )
    return opened


def _crops(g: Growth, picture: str, boxes: str, feed: PictureFeed) -> str:
    """Add the crops, scaled and normalised: (M, 3, height, width) or (M, height, width, 3)."""
    size = g.op("Concat", *sizes_of(g, picture)[::-1], axis=0)  # (2,): W, H
    shares = g.cast(boxes, np.float64)  # (M, 4)
    low, high = (
        g.op("Mul", g.op("Gather", shares, np.array(at), axis=1), size) for at in ([0, 1], [2, 3])
    )  # (M, 2) each: across, down
    last = g.op("Sub", size, float64(1))
    # A box may lie beside the picture: one row of pixels is left of it then.
    begin = g.op("Max", g.op("Min", g.op("Floor", low), last), float64(0))
    end = g.op("Min", g.op("Max", g.op("Ceil", high), g.op("Add", begin, float64(1))), size)
    bounds = g.cast(g.op("Concat", begin, end, axis=1), np.int64)  # (M, 4)
    count = g.op("Squeeze", g.op("Shape", bounds, start=0, end=1))
    crops = fresh_name(g.taken, "join.crops")
    g.nodes.append(
        Node(
            op="Loop",
            inputs=(count, ""),
            outputs=(crops,),
            bodies={"body": _one_crop(crops, picture, bounds, feed)},
            captured=(picture, bounds),
        )
    )
    return crops


def _one_crop(name: str, picture: str, bounds: str, feed: PictureFeed) -> bytes:
    """Return the body of a loop over boxes: cut one out, scale and normalise it.

    One crop at a time, as work then goes with the crop's size instead of the picture's.
    """
    # Nothing inside may be called as anything outside is, now or later.
    g = Growth({picture, bounds}, prefix=f"{name}.inside")
    turn, go, go_on = (f"{name}.{what}" for what in ("turn", "go", "go on"))
    row = g.op("Gather", bounds, turn, axis=0)  # (4,): left, top, right, bottom
    begin, end = (g.op("Gather", row, np.array(at)) for at in ([1, 0], [3, 2]))
    crop = g.op("Slice", picture, begin, end, np.array([0, 1]))  # (h, w, 3)
    pixels = g.cast(crop, np.float32)
    mean, std = (np.asarray(values, dtype=np.float32) for values in (feed.mean, feed.std))
    frame = framed(g, feed, *sizes_of(g, pixels))
    made = prepared(g, pixels, feed, frame=frame, mean=mean, std=std)
    g.nodes.append(Node(op="Identity", inputs=(go,), outputs=(go_on,)))
    whole, truth, float32 = np.dtype(np.int64), np.dtype(np.bool), np.dtype(np.float32)
    sides = (3, feed.height, feed.width) if feed.layout == "nchw" else (feed.height, feed.width, 3)
    body = Graph(
        nodes=tuple(g.nodes),
        constants=g.constants,
        inputs=(
            Value(name=turn, dtype=whole, shape=()),
            Value(name=go, dtype=truth, shape=()),
            Value(name=picture, dtype=np.dtype(np.uint8), shape=(None, None, 3)),
            Value(name=bounds, dtype=whole, shape=(None, 4)),
        ),
        outputs=(
            Value(name=go_on, dtype=truth, shape=()),
            Value(name=made, dtype=float32, shape=sides),
        ),
        opset=17,
    )
    return body_bytes(body, captured=frozenset({picture, bounds}))
