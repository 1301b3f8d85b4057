"""A file that says which networks are joined, and what stands before and behind each."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed, feed_from_json
from onhand.core.outside import count, flag, object_of, shown
from onhand.host.networks.graph import Graph
from onhand.host.networks.joining.before import with_preprocessing
from onhand.host.networks.joining.behind import decode_cells, with_postprocessing
from onhand.host.networks.loading import load_network

__all__ = ["PART", "Part", "read_numbers", "read_part", "read_places"]

PART: Final = frozenset({"network", "cells", "picture", "answer"})
"""Keys that describe one network."""

_ANSWER: Final = {"what", "k", "least_score", "most_overlap", "most_boxes"}
_MOST_NETWORKS, _MOST_SIDE = 64, 2**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A network, and what stands before and behind it.

    Attributes:
        graph: the network.
        feed: how its picture is fed; None where it takes arrays.
        size: height and width of every picture; None for any.
        has_cells: whether its output is a grid of cells; see `decode_cells`.
        answer: arguments of `with_postprocessing`; empty for the outputs as they are.
    """

    graph: Graph
    feed: PictureFeed | None
    size: tuple[int, int] | None
    has_cells: bool
    answer: Mapping[str, Any]

    def behind(self, graph: Graph) -> Graph:
        """Return a graph with this part's way to an answer behind it."""
        if self.has_cells:
            graph = decode_cells(graph)
        return with_postprocessing(graph, **self.answer) if self.answer else graph

    def whole(self) -> Graph:
        """Return all of it as one graph."""
        graph = self.behind(self.graph)
        return graph if self.feed is None else with_preprocessing(graph, self.feed, size=self.size)


def readread_places(value: object, folder: Path, where: str) -> list[str]:
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= _MOST_NETWORKS
        or not all(isinstance(one, str) and one for one in value)
    ):
        raise InputError(f"{where}: networks are {shown(value)}, must be files or folders")
    return [str(folder / one) for one in value]


def read_places(value: object, folder: Path, where: str) -> list[str]:
    """Return files or folders of networks.

    Args:
        value: a list of names, seen from the folder.
        folder: of the file that names them.
        where: that is, for messages.

    Returns:
        Their places.

    Raises:
        InputError: if it is no list of names.
    """
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= _MOST_NETWORKS
        or not all(isinstance(one, str) and one for one in value)
    ):
        raise InputError(f"{where}: networks are {shown(value)}, must be files or folders")
    return [str(folder / one) for one in value]


def read_numbers(table: Mapping[str, object], key: str, where: str) -> list[float] | None:
    """Return a list of numbers; None where it is not there.

    Raises:
        InputError: if it is something else.
    """
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in value
    ):
        raise InputError(f"{where}: {key} is {shown(value)}, must be a list of numbers")
    return [float(one) for one in value]


def read_part(table: Mapping[str, object], folder: Path, where: str) -> Part:
    """Read a network, and what stands before and behind it.

    Args:
        table: its part of the file.
        folder: of the file.
        where: the part is, for messages.

    Returns:
        The part.

    Raises:
        InputError: if an option is wrong.
        SourceError: if the network cannot be read.
    """
    if "network" not in table:
        raise InputError(f"{where}: network is missing, must be a file or a folder")
    (place,) = read_places([table.get("network")], folder, where)
    answer = object_of(table.get("answer", {}), f"{where}: answer", _ANSWER)
    if answer and "what" not in answer:
        raise InputError(f"{where}: answer: what is missing: softmax, top-k, normalize or nms")
    for key in ("k", "most_boxes"):
        if key in answer:
            count(answer, key, f"{where}: answer", most=2**20)
    for key in ("least_score", "most_overlap"):
        value = answer.get(key, 0.5)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{where}: answer: {key} is {shown(value)}, must be from 0 to 1")
    feed, size = _picture(table.get("picture"), f"{where}: picture")
    return Part(
        graph=load_network(place, task="features").graph,
        feed=feed,
        size=size,
        has_cells=flag(table, "cells", where),
        answer=answer,
    )


def _picture(value: object, where: str) -> tuple[PictureFeed | None, tuple[int, int] | None]:
    if value is None:
        return None, None
    table = dict(object_of(value, where, {"size"} | {field.name for field in fields(PictureFeed)}))
    size = table.pop("size", None)
    try:
        feed = feed_from_json({"kind": "picture", **table})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not isinstance(feed, PictureFeed):
        return None, None
    if size is None:
        return feed, None
    if not isinstance(size, list) or len(size) != 2:
        raise InputError(f"{where}: size is {shown(size)}, must be height and width")
    sides = [count({"size": side}, "size", where, most=_MOST_SIDE) for side in size]
    return feed, (sides[0], sides[1])
