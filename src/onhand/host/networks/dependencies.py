"""Dependency groups: which channels of which layers go together, and a graph without some.

Source:
    DepGraph, arXiv:2301.12900: a channel can only go together with all that depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.dependency_rules import RULES
from onhand.host.networks.dependency_trace import Axes, Consumer, Edit, IntArray, Place, Trace
from onhand.host.networks.graph import Array, Graph, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["Dependencies", "UnitGroup", "cut", "find_dependencies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGroup:
    """Units that any of the others could stand for: the channels of one width.

    Attributes:
        weights: names of the weights that make these channels.
        units: (n,) their numbers.
        widths: how many channels one unit is, in each place where a whole number must stay.
    """

    weights: tuple[str, ...]
    units: IntArray
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What goes together in a graph.

    Attributes:
        graph: the graph.
        roots: (elements,) the unit of each element.
        axes: constant -> elements along each of its axes.
        groups: units that may go.
        kept: weight -> why some of the channels that it makes must stay.
        consumers: layers that sum over channels.
        edits: node -> the elements that it depends on, and how it is made to fit fewer.
    """

    graph: Graph
    roots: IntArray
    axes: Mapping[str, Axes]
    groups: tuple[UnitGroup, ...]
    kept: Mapping[str, str]
    consumers: tuple[Consumer, ...]
    edits: Mapping[str, tuple[IntArray, Edit]]


def find_dependencies(graph: Graph) -> Dependencies:
    """Follow all channels through a graph.

    Args:
        graph: the graph.

    Returns:
        The groups, and what must stay with the reason.
    """
    trace = Trace(
        graph=graph,
        shapes=infer_shapes(graph),
        producers=graph.producers(),
        readers=graph.readers(),
    )
    for value in graph.inputs:
        trace.put(value.name, (None,) * len(value.shape))
    for node in graph.nodes:
        rule = None if node.domain else RULES.get(node.op)
        if rule is None or node.captured:
            trace.opaque(node, f"{node.op} {node.name!r} may do anything with it")
        else:
            rule(trace, node)
    for value in graph.outputs:
        for labels in trace.of(value.name) or ():
            trace.units.freeze(labels, f"{value.name!r} is an output of the network")
    roots = trace.units.roots()
    frozen = trace.units.frozen()
    return Dependencies(
        graph=graph,
        roots=roots,
        axes={name: axes for name, axes in trace.axes.items() if name in graph.constants},
        groups=_groups(trace.places, roots, frozen),
        kept=_kept(trace.places, roots, frozen),
        consumers=tuple(trace.consumers),
        edits=trace.edits,
    )


def _groups(
    places: Sequence[Place], roots: IntArray, frozen: Mapping[int, str]
) -> tuple[UnitGroup, ...]:
    """Units of the same widths in the same places form a group."""
    standing: dict[int, list[tuple[int, int]]] = {}
    for number, place in enumerate(places):
        units, widths = np.unique(roots[place.labels], return_counts=True)
        for unit, width in zip(units.tolist(), widths.tolist(), strict=True):
            if unit not in frozen:
                standing.setdefault(unit, []).append((number, width))
    members: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for unit, where in standing.items():
        members.setdefault(tuple(where), []).append(unit)
    found: list[UnitGroup] = []
    for position, alike in members.items():
        weights = [places[number].name for number, _ in position if places[number].makes]
        if weights:
            found.append(
                UnitGroup(
                    weights=tuple(dict.fromkeys(weights)),
                    units=np.array(sorted(alike), dtype=np.int64),
                    widths=tuple(width for _, width in position),
                )
            )
    return tuple(found)


def _kept(places: Sequence[Place], roots: IntArray, frozen: Mapping[int, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place in places:
        stay = [unit for unit in roots[place.labels].tolist() if unit in frozen]
        if place.makes and stay:
            some = "" if len(stay) == len(place.labels) else f"{len(stay)} of its channels: "
            found[place.name] = some + frozen[stay[0]]
    return found


class _Cut:
    """See `Cutting`."""

    def __init__(self, stays: NDArray[np.bool_], taken: set[str]) -> None:
        self.stays, self.added = stays, dict[str, Array]()
        self._taken = taken

    def count(self, labels: IntArray) -> int:
        """See `Cutting`."""
        return int(self.stays[labels].sum())

    def constant(self, wanted: str, array: Array) -> str:
        """See `Cutting`."""
        name = fresh_name(self._taken, wanted)
        self.added[name] = array
        return name

    def name(self, wanted: str) -> str:
        """See `Cutting`."""
        return fresh_name(self._taken, wanted)


def cut(found: Dependencies, units: IntArray) -> Graph:
    """Return the graph without some units: smaller constants, and all shapes fit.

    Args:
        found: of the graph.
        units: (n,) numbers of units out of `found.groups`.

    Returns:
        The graph; inputs and outputs keep their shapes.
    """
    stays = ~np.isin(found.roots, units)
    cutting = _Cut(stays, found.graph.names())
    constants = dict(found.graph.constants)
    for name, axes in found.axes.items():
        array = constants[name]
        for axis, labels in enumerate(axes):
            if labels is not None and not stays[labels].all():
                array = np.compress(stays[labels], array, axis=axis)
        constants[name] = array
    nodes = []
    for node in found.graph.nodes:
        touched, edit = found.edits.get(node.name, (None, None))
        if touched is None or edit is None or stays[touched].all():
            nodes.append(node)
        else:
            nodes.extend(edit(node, cutting))
    return replace(found.graph, nodes=tuple(nodes), constants=constants | cutting.added).live()
