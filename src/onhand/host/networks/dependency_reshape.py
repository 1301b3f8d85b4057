"""How a reshape passes channels on: heads split off, pixels flattened, channels shuffled."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from onhand.host.networks.dependency_trace import Cutting, Edit, IntArray, Labels, Trace
from onhand.host.networks.graph import Node

__all__ = ["reshape"]

Dims = tuple[int | str | None, ...]


def reshape(trace: Trace, node: Node) -> None:
    """Follow a Reshape or a Flatten: axes that stay, that are split, and that become one.

    Where an axis is split, whole rows of the outer part go together: an attention head. In a
    channel shuffle it is the inner part, so that its groups stay equal in size.

    Args:
        trace: what is known; the node's outputs and its edit are added.
        node: the operator.
    """
    data, old = trace.of(node.inputs[0]), trace.dims(node.inputs[0])
    new = trace.dims(node.outputs[0])
    if data is None or old is None or new is None:
        trace.opaque(node, f"{node.op} {node.name!r} gives a shape that is not known")
        return
    found: list[Labels] = [None] * len(new)
    matched: set[int] = set()
    for part in _segments(old, new):
        matched.update(part.before)
        for axis, labels in _through(trace, node, part, data, old, new):
            found[axis] = labels
    for axis, labels in enumerate(data):
        if axis not in matched:
            trace.units.freeze(labels, f"{node.op} {node.name!r} mixes it with an unknown size")
    if node.op == "Reshape":
        _follow_sizes(trace, node, found)
    trace.put(node.outputs[0], found)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Axes before and after that hold the same elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _segments(old: Dims, new: Dims) -> Iterator[_Segment]:
    """Yield what fits from the left, then from the right, as far as sizes are known."""
    left = list(_walk(old, new))
    yield from left
    i = max((axis + 1 for part in left for axis in part.before), default=0)
    j = max((axis + 1 for part in left for axis in part.after), default=0)
    if i == len(old) and j == len(new):
        return
    rest_old, rest_new = old[i:][::-1], new[j:][::-1]
    for part in _walk(rest_old, rest_new):
        yield _Segment(
            tuple(len(old) - 1 - axis for axis in reversed(part.before)),
            tuple(len(new) - 1 - axis for axis in reversed(part.after)),
        )


def _walk(old: Dims, new: Dims) -> Iterator[_Segment]:
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = old[i], new[j]
        if a == b and a is not None:
            yield _Segment((i,), (j,))
            i, j = i + 1, j + 1
            continue
        if a == 1:
            i += 1
            continue
        if b == 1:
            j += 1
            continue
        if not isinstance(a, int) or not isinstance(b, int):
            return
        low, high = i, j
        while a != b:
            if a < b:
                i += 1
                size = old[i] if i < len(old) else None
                a = a * size if isinstance(size, int) else 0
            else:
                j += 1
                size = new[j] if j < len(new) else None
                b = b * size if isinstance(size, int) else 0
            if not a or not b:
                return
        i, j = i + 1, j + 1
        yield _Segment(tuple(range(low, i)), tuple(range(high, j)))


def _through(
    trace: Trace, node: Node, part: _Segment, data: tuple[Labels, ...], old: Dims, new: Dims
) -> Iterator[tuple[int, Labels]]:
    """Yield the axes after that have elements, with these."""
    labelled = [axis for axis in part.before if data[axis] is not None]
    if not labelled:
        return
    first = data[labelled[0]]
    for axis in labelled[1:]:
        trace.units.freeze(data[axis], f"{node.op} {node.name!r} makes one axis of several")
    if first is None:
        return
    if len(part.before) == len(part.after) == 1:
        yield part.after[0], first
    elif len(part.after) == 1:
        sizes = [old[axis] for axis in part.before]
        shape = [n for n in sizes if isinstance(n, int)]
        place = part.before.index(labelled[0])
        one = [len(first) if i == place else 1 for i in range(len(shape))]
        yield part.after[0], np.broadcast_to(first.reshape(one), shape).reshape(-1)
    elif len(part.before) == 1:
        shape = [n for axis in part.after if isinstance(n := new[axis], int)]
        tie = _inner(trace, node, part) if len(shape) == 2 else 0
        rows = np.moveaxis(first.reshape(shape), tie, 0).reshape(shape[tie], -1)
        for column in rows.T[1:]:
            trace.units.join(rows[:, 0], column)
        yield part.after[tie], rows[:, 0]
    else:
        trace.units.freeze(first, f"{node.op} {node.name!r} splits and joins at once")


def _inner(trace: Trace, node: Node, part: _Segment) -> int:
    """Return 1 where the two axes are swapped and made one again: a channel shuffle; else 0."""
    swaps = trace.readers.get(node.outputs[0], [])
    if len(swaps) != 1 or swaps[0].op != "Transpose":
        return 0
    order = swaps[0].wholes("perm")
    low, high = part.after
    swapped = tuple({low: high, high: low}.get(axis, axis) for axis in range(len(order)))
    joins = trace.readers.get(swaps[0].outputs[0], [])
    return int(order == swapped and [reader.op for reader in joins] == ["Reshape"])


def _follow_sizes(trace: Trace, node: Node, found: list[Labels]) -> None:
    """Let the wanted sizes follow the channels; keep those whose size is computed."""
    entries = _entries(trace, node.inputs[1])
    wanted: dict[int, IntArray] = {}
    for axis, labels in enumerate(found):
        if labels is None:
            continue
        entry = entries[axis] if entries is not None and len(entries) == len(found) else None
        if entry is None:
            trace.units.freeze(labels, f"the shape of {node.op} {node.name!r} is computed")
        elif entry > 0:
            wanted[axis] = labels
        elif entry == 0 and trace.of(node.inputs[0]) is not None:
            _copied(trace, node, axis, labels)
    if wanted:
        touched = np.concatenate(list(wanted.values()))
        trace.edit(node, touched, _resized(wanted, trace.producers.get(node.inputs[1]), trace))


def _copied(trace: Trace, node: Node, axis: int, labels: IntArray) -> None:
    """A 0 copies the size of the same axis before: right where that is the same axis."""
    data = trace.of(node.inputs[0]) or ()
    same = data[axis] if axis < len(data) else None
    if same is None or not np.array_equal(same, labels):
        trace.units.freeze(labels, f"the shape of {node.op} {node.name!r} copies another size")


def _entries(trace: Trace, name: str) -> list[int | None] | None:
    """Return the wanted sizes, None for those that are computed; None where nothing is known."""
    if name in trace.graph.constants:
        return [int(n) for n in trace.graph.constants[name].reshape(-1)]
    node = trace.producers.get(name)
    if node is None or node.op != "Concat":
        return None
    found: list[int | None] = []
    for part in node.inputs:
        if part in trace.graph.constants:
            found += [int(n) for n in trace.graph.constants[part].reshape(-1)]
        elif trace.dims(part) == (1,):
            found.append(None)
        else:
            return None
    return found


def _resized(wanted: dict[int, IntArray], maker: Node | None, trace: Trace) -> Edit:
    constants = trace.graph.constants

    def edit(node: Node, cutting: Cutting) -> Iterable[Node]:
        sizes = {axis: cutting.count(labels) for axis, labels in wanted.items()}
        if maker is None:
            shape = constants[node.inputs[1]].copy().reshape(-1)
            for axis, size in sizes.items():
                shape[axis] = size
            name = cutting.constant(f"{node.name}.shape", shape)
            yield replace(node, inputs=(node.inputs[0], name))
            return
        parts, start = [], 0
        for part in maker.inputs:
            length = constants[part].size if part in constants else 1
            inside = [axis for axis in sizes if start <= axis < start + length]
            if inside:
                array = constants[part].copy().reshape(-1)
                for axis in inside:
                    array[axis - start] = sizes[axis]
                parts.append(cutting.constant(f"{node.name}.sizes", array))
            else:
                parts.append(part)
            start += length
        made = cutting.name(f"{node.name}.shape")
        yield replace(maker, inputs=tuple(parts), outputs=(made,))
        yield replace(node, inputs=(node.inputs[0], made))

    return edit
