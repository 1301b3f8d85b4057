"""The way from a network's outputs to an answer, as nodes of its graph."""

from dataclasses import replace
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph, Node, Value, fresh_name
from onhand.host.networks.joining.growing import Growth
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["POSTPROCESSING", "decode_cells", "with_postprocessing"]

POSTPROCESSING: Final = ("softmax", "top-k", "normalize", "nms")
_FLOAT32 = np.dtype(np.float32)
_TINY = np.array(1e-12, dtype=np.float32)


def with_postprocessing(
    graph: Graph,
    what: str,
    *,
    k: int = 5,
    least_score: float = 0.25,
    most_overlap: float = 0.45,
    most_boxes: int = 100,
) -> Graph:
    """Put what an answer needs behind a network.

    Args:
        graph: the graph; its first output (B, ..., C) is changed, others stay. For "nms" the
            first two are boxes (1, N, 4), two corners each, and scores (1, C, N).
        what: "softmax" over the last axis; "top-k": `scores` and `classes` (B, ..., k), the
            highest first; "normalize" to a length of 1 over the last axis; or "nms": `boxes`
            (M, 4), `scores` (M,) and `classes` (M,), without those that overlap a better one of
            the same class.
        k: for "top-k".
        least_score: for "nms".
        most_overlap: for "nms", of two boxes of one class: intersection over union.
        most_boxes: for "nms", of one class.

    Returns:
        The graph.

    Raises:
        InputError: if `what` is unknown, or the outputs do not fit it.
    """
    if what not in POSTPROCESSING:
        raise InputError(f"no such step {what!r}; known: {', '.join(POSTPROCESSING)}")
    first, *others = graph.outputs
    g = Growth(graph.names())
    if what == "nms":
        return _suppressed(
            graph, g, least_score=least_score, most_overlap=most_overlap, most_boxes=most_boxes
        )
    if not first.shape or first.dtype.kind != "f":
        raise InputError(f"output {first.name!r}: {what} needs numbers along an axis")
    if what == "top-k":
        return _top(graph, g, k)
    if what == "softmax":
        made = g.op("Softmax", first.name, called="probabilities", axis=-1)
    else:
        squares = g.op("ReduceSum", g.op("Mul", first.name, first.name), np.array([-1]))
        length = g.op("Max", g.op("Sqrt", squares), _TINY.astype(first.dtype))
        made = g.op("Div", first.name, length, called="vector")
    return g.behind(graph, (replace(first, name=made), *others))


def _top(graph: Graph, g: Growth, k: int) -> Graph:
    first, *others = graph.outputs
    last = first.shape[-1]
    if k < 1 or (isinstance(last, int) and k > last):
        raise InputError(f"output {first.name!r} has {last} scores, k is {k}")
    scores, classes = fresh_name(g.taken, "scores"), fresh_name(g.taken, "classes")
    wanted = g.constant("join.k", np.array([k]))
    g.nodes.append(
        Node(
            op="TopK",
            inputs=(first.name, wanted),
            outputs=(scores, classes),
            attributes={"axis": -1, "largest": 1, "sorted": 1},
        )
    )
    shape = (*first.shape[:-1], k)
    made = (
        Value(name=scores, dtype=first.dtype, shape=shape),
        Value(name=classes, dtype=np.dtype(np.int64), shape=shape),
    )
    return g.behind(graph, (*made, *others))


def _suppressed(
    graph: Graph, g: Growth, *, least_score: float, most_overlap: float, most_boxes: int
) -> Graph:
    names = graph.output_names()
    shapes = [value.shape for value in graph.outputs[:2]]
    if len(shapes) < 2 or len(shapes[0]) != 3 or len(shapes[1]) != 3 or shapes[0][2] != 4:
        raise InputError(f"nms needs boxes (1, N, 4) and scores (1, C, N), the outputs are {names}")
    boxes, scores = names[:2]
    limits = (np.array([most_boxes]), np.array([most_overlap], np.float32),
              np.array([least_score], np.float32))  # fmt: skip
    found = g.op("NonMaxSuppression", boxes, scores, *limits)  # (M, 3): picture, class, box
    kinds = g.op("Squeeze", g.op("Slice", found, *map(_one, (1, 2, 1))), _one(1), called="classes")
    places = g.op("Squeeze", g.op("Slice", found, *map(_one, (2, 3, 1))), _one(1))  # (M,)
    kept = g.op("Gather", g.op("Squeeze", boxes, _one(0)), places, called="boxes", axis=0)
    pairs = g.op("Slice", found, *map(_one, (1, 3, 1)))  # (M, 2): class, box
    chosen = g.op("GatherND", g.op("Squeeze", scores, _one(0)), pairs, called="scores")
    made = (
        Value(name=kept, dtype=_FLOAT32, shape=(None, 4)),
        Value(name=chosen, dtype=_FLOAT32, shape=(None,)),
        Value(name=kinds, dtype=np.dtype(np.int64), shape=(None,)),
    )
    return g.behind(graph, (*made, *graph.outputs[2:]))


def decode_cells(graph: Graph) -> Graph:
    """Turn a grid of cells, as FastestDet gives it, into boxes and scores.

    Args:
        graph: the graph; its first output is (1, 5 + C, h, w): for each cell whether there is
            something, where its middle is, how large it is, and C chances of classes.

    Returns:
        The graph; its outputs are `candidates` (1, N, 4), corners as shares of the picture: left,
        top, right, bottom; and `chances` (1, C, N). N is h w.

    Raises:
        InputError: if the output is of another shape, or its size is open.

    Source:
        github.com/dog-qiuqiu/FastestDet, `utils/tool.py` `handle_preds` at 50473cd.
    """
    first = graph.outputs[0]
    shape = infer_shapes(graph).get(first.name, first).shape
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != 4 or len(shape) != 4 or sizes[0] != 1 or sizes[1] < 6:
        raise InputError(f"output {first.name!r} is of shape {shape}, must be (1, 5 + C, h, w)")
    _, channels, h, w = sizes
    g = Growth(graph.names())
    flat = g.op("Reshape", first.name, np.array([1, channels, h * w]))  # (1, 5 + C, N)

    def part(begin: int, end: int) -> str:
        return g.op("Slice", flat, _one(begin), _one(end), _one(1))

    cells = np.stack(np.meshgrid(np.arange(w), np.arange(h)))  # (2, h, w): across, down
    corner = cells.reshape(1, 2, h * w).astype(np.float32)
    grid = np.array([w, h], dtype=np.float32).reshape(1, 2, 1)
    middle = g.op("Div", g.op("Add", g.op("Tanh", part(1, 3)), corner), grid)  # (1, 2, N)
    half = g.op("Mul", g.op("Sigmoid", part(3, 5)), np.array(0.5, np.float32))
    edges = g.op("Concat", g.op("Sub", middle, half), g.op("Add", middle, half), axis=1)
    boxes = g.op("Transpose", edges, called="candidates", perm=(0, 2, 1))  # (1, N, 4)
    there = g.op("Pow", part(0, 1), np.array(0.6, np.float32))
    kinds = g.op("Pow", part(5, channels), np.array(0.4, np.float32))
    scores = g.op("Mul", there, kinds, called="chances")  # (1, C, N)
    made = (
        Value(name=boxes, dtype=_FLOAT32, shape=(1, h * w, 4)),
        Value(name=scores, dtype=_FLOAT32, shape=(1, channels - 5, h * w)),
    )
    return g.behind(graph, (*made, *graph.outputs[1:]))


def _one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([value], dtype=np.int64)
