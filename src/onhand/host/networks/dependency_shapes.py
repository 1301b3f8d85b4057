"""How operators that only move elements pass channels on, and how they are made to fit fewer."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.dependency_reshape import reshape
from onhand.host.networks.dependency_trace import Cutting, Edit, IntArray, Labels, Place, Trace
from onhand.host.networks.graph import Array, Node

__all__ = ["SHAPE_RULES"]


def _unknown(trace: Trace, node: Node) -> None:
    trace.opaque(node, f"{node.op} {node.name!r} is given what is not known before it runs")


def _whole_numbers(trace: Trace, node: Node, place: int, key: str) -> tuple[int, ...] | None:
    """Return a list of numbers that is an input in newer operators; None where it is computed."""
    if len(node.inputs) > place and node.inputs[place]:
        found = trace.graph.constants.get(node.inputs[place])
        return None if found is None else tuple(int(n) for n in found.reshape(-1))
    return node.wholes(key)


def _transpose(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    if data is None:
        _unknown(trace, node)
        return
    order = node.wholes("perm") or tuple(reversed(range(len(data))))
    trace.put(node.outputs[0], [data[axis] for axis in order])


def _squeeze(trace: Trace, node: Node) -> None:
    data, axes = trace.of(node.inputs[0]), _whole_numbers(trace, node, 1, "axes")
    if not data or not axes:
        _unknown(trace, node)
        return
    gone = {axis % len(data) for axis in axes}
    trace.put(node.outputs[0], [labels for i, labels in enumerate(data) if i not in gone])


def _unsqueeze(trace: Trace, node: Node) -> None:
    data, axes = trace.of(node.inputs[0]), _whole_numbers(trace, node, 1, "axes")
    if data is None or not axes:
        _unknown(trace, node)
        return
    rank = len(data) + len(axes)
    new, old = {axis % rank for axis in axes}, iter(data)
    trace.put(node.outputs[0], [None if i in new else next(old) for i in range(rank)])


def _concat(trace: Trace, node: Node) -> None:
    parts = [trace.of(name) for name in node.inputs]
    first = parts[0]
    if not first or any(part is None or len(part) != len(first) for part in parts):
        _unknown(trace, node)
        return
    along = node.whole("axis", 0) % len(first)
    found: list[Labels] = [
        _joined(trace, node, axis)
        if axis == along
        else trace.meet([(name, axis) for name in node.inputs], node)
        for axis in range(len(first))
    ]
    trace.put(node.outputs[0], found)


def _joined(trace: Trace, node: Node, axis: int) -> Labels:
    """Return the elements of all inputs one after the other; those without get frozen ones."""
    all_labels = [(trace.of(name) or ())[axis] for name in node.inputs]
    if all(labels is None for labels in all_labels):
        return None
    found: list[IntArray] = []
    for name, labels in zip(node.inputs, all_labels, strict=True):
        size = trace.size(name, axis)
        if labels is not None:
            found.append(labels)
        elif isinstance(size, int):
            found.append(trace.units.fresh(size))
            trace.units.freeze(found[-1], f"{name!r} has no channels that could go")
        else:
            _unknown(trace, node)
            return None
    return np.concatenate(found)


def _split(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    if not data:
        _unknown(trace, node)
        return
    axis = node.whole("axis", 0) % len(data)
    labels, sizes = data[axis], _whole_numbers(trace, node, 1, "split")
    if labels is None:
        pieces: list[Labels] = [None for _ in node.outputs]
    else:
        if sizes is None:
            _unknown(trace, node)
            return
        step = math.ceil(len(labels) / len(node.outputs))
        ends = np.cumsum(sizes)[:-1] if sizes else np.arange(step, len(labels), step)
        cut = np.split(labels, ends)
        pieces = list(cut)
        trace.places.extend(
            Place(name=name, labels=piece, makes=False)
            for name, piece in zip(node.outputs, cut, strict=True)
        )
        trace.edit(node, labels, _resplit(cut))
    for name, piece in zip(node.outputs, pieces, strict=True):
        if name:
            trace.put(name, (*data[:axis], piece, *data[axis + 1 :]))


def _resplit(pieces: Sequence[IntArray]) -> Edit:
    def edit(node: Node, cutting: Cutting) -> Iterable[Node]:
        sizes = np.array([cutting.count(piece) for piece in pieces], dtype=np.int64)
        name = cutting.constant(f"{node.name}.sizes", sizes)
        kept = {k: v for k, v in node.attributes.items() if k not in {"num_outputs", "split"}}
        yield replace(node, inputs=(node.inputs[0], name), attributes=kept)

    return edit


def _slice(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    given = [trace.graph.constants.get(name) for name in node.inputs[1:]]
    arrays = [array for array in given if array is not None]
    if data is None or len(arrays) != len(given) or len(given) < 2:
        _unknown(trace, node)
        return
    starts, ends = arrays[:2]
    axes = arrays[2].tolist() if len(arrays) > 2 else list(range(len(starts)))
    steps = arrays[3].tolist() if len(arrays) > 3 else [1] * len(starts)
    found, cuts = list(data), {}
    for i, axis in enumerate(axes):
        labels = data[axis]
        if labels is None:
            continue
        low, high, _ = slice(int(starts[i]), int(ends[i])).indices(len(labels))
        if steps[i] != 1 or high <= low:
            trace.still((labels,), node)
            found[axis] = None
            continue
        found[axis] = labels[low:high]
        trace.places.append(Place(name=node.name, labels=labels[low:high], makes=False))
        cuts[i] = (labels[:low], labels[:high])
    if cuts:
        touched = np.concatenate([until for _, until in cuts.values()])
        trace.edit(node, touched, _reslice(starts, ends, cuts))
    trace.put(node.outputs[0], found)


def _reslice(starts: Array, ends: Array, cuts: Mapping[int, tuple[IntArray, IntArray]]) -> Edit:
    def edit(node: Node, cutting: Cutting) -> Iterable[Node]:
        low, high = starts.copy(), ends.copy()
        for i, (before, until) in cuts.items():
            low[i], high[i] = cutting.count(before), cutting.count(until)
        first = cutting.constant(f"{node.name}.starts", low)
        last = cutting.constant(f"{node.name}.ends", high)
        yield replace(node, inputs=(node.inputs[0], first, last, *node.inputs[3:]))

    return edit


def _gather(trace: Trace, node: Node) -> None:
    data, indices = trace.of(node.inputs[0]), trace.dims(node.inputs[1])
    if not data or indices is None:
        _unknown(trace, node)
        return
    axis = node.whole("axis", 0) % len(data)
    trace.still((data[axis], *(trace.of(node.inputs[1]) or ())), node)
    found = (*data[:axis], *(None for _ in indices), *data[axis + 1 :])
    if trace.is_constant(node.inputs[0]) and axis == 0 and len(data) == 2:
        trace.make(node.inputs[0], data[1])
    trace.put(node.outputs[0], found)


def _pad(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    pads = _whole_numbers(trace, node, 1, "pads")
    if data is None or pads is None or len(pads) != 2 * len(data):
        _unknown(trace, node)
        return
    moved = [pads[i] != 0 or pads[i + len(data)] != 0 for i in range(len(data))]
    trace.still((a for a, is_moved in zip(data, moved, strict=True) if is_moved), node)
    trace.put(node.outputs[0], [None if m else a for a, m in zip(data, moved, strict=True)])


def _shape(trace: Trace, node: Node) -> None:
    """Its numbers may steer anything, but for those that are picked out and do not change."""
    data = trace.of(node.inputs[0])
    if data is None:
        return
    low, high, _ = slice(node.whole("start", 0), node.whole("end", len(data))).indices(len(data))
    for i in range(low, high):
        if data[i] is not None and not _skips(trace, node, i - low):
            trace.still((data[i],), node)
    trace.put(node.outputs[0], (None,))


def _skips(trace: Trace, node: Node, index: int) -> bool:
    """Say whether all that reads a shape leaves one of its numbers out."""
    for reader in trace.readers.get(node.outputs[0], []):
        picked = trace.graph.constants.get(reader.inputs[1]) if len(reader.inputs) > 1 else None
        if reader.op != "Gather" or picked is None:
            return False
        # Counted from the end, nobody knows here.
        if any(number == index or number < 0 for number in picked.reshape(-1).tolist()):
            return False
    return node.outputs[0] not in trace.graph.output_names()


def _expand(trace: Trace, node: Node) -> None:
    data, shape = trace.of(node.inputs[0]), trace.graph.constants.get(node.inputs[1])
    if data is None:
        _unknown(trace, node)
        return
    dims = trace.dims(node.outputs[0])
    wanted = None if shape is None else [int(n) for n in shape.reshape(-1)]
    if dims is None or wanted is None or any(labels is not None for labels in data):
        keep = wanted is not None and dims is not None
        frozen = [
            labels
            for i, labels in enumerate(reversed(data))
            if not keep or (wanted and i < len(wanted) and wanted[-1 - i] != 1)
        ]
        trace.still(frozen, node)
    if dims is not None:
        pad = (None,) * (len(dims) - len(data))
        trace.put(node.outputs[0], (*pad, *data))


SHAPE_RULES: Final[dict[str, Callable[[Trace, Node], None]]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": reshape,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""ONNX's operators that move elements and compute nothing."""
