"""A joined network as a file that `onhand build` takes."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onhand.core.errors import InputError
from onhand.device.networks.texts import TOKENIZER
from onhand.host.networks.graph import Graph, Node, fresh_name
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import model_bytes, read_onnx

__all__ = ["Joined", "as_example", "check_place", "put_tokenizer", "write_joined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What was written.

    Attributes:
        path: the file.
        size_bytes: of its constants.
        parts_bytes: of the constants of all networks in it, each by itself.
        difference: largest one between its answers and those of its parts, as a share.
        notes: sentences that a user should know.
    """

    path: Path
    size_bytes: int
    parts_bytes: int
    difference: float
    notes: tuple[str, ...] = ()


def as_example(graph: Graph) -> Graph:
    """Return a graph whose picture is one example of a batch, as bundles take them.

    Args:
        graph: its first input is a picture (H, W, 3).

    Returns:
        The graph; its first input is `pixels` (1, H, W, 3).
    """
    first, *others = graph.inputs
    taken = graph.names()
    fed, axis = fresh_name(taken, "pixels"), fresh_name(taken, "join.axis")
    alone = Node(op="Squeeze", inputs=(fed, axis), outputs=(first.name,))
    return replace(
        graph,
        nodes=(alone, *graph.nodes),
        constants={**graph.constants, axis: np.array([0])},
        inputs=(replace(first, name=fed, shape=(1, *first.shape)), *others),
    )


def check_place(out: Path) -> None:
    """Check where a network is to be written.

    Raises:
        InputError: if it cannot be there.
    """
    if out.suffix != ".onnx":
        raise InputError(f"{out} is not called .onnx")
    if out.exists():
        raise InputError(f"{out} exists already; remove it or choose another name")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.absolute().parent} is not a folder; create it first")


def put_tokenizer(model: NetworkModel, out: Path) -> tuple[str, ...]:
    """Put the tokenizer of a network of texts beside the file, where builds look for it.

    Returns:
        A note, where that was done.

    Raises:
        InputError: if another network's is there.
    """
    content = model.files.get(TOKENIZER)
    if content is None:
        return ()
    place = out.parent / TOKENIZER
    if place.exists():
        if place.read_bytes() != content:
            raise InputError(f"{place} is of another network; choose another folder for {out.name}")
        return ()
    place.write_bytes(content)
    return (f"{TOKENIZER} is beside it",)


def write_joined(
    graph: Graph, out: Path, parts_bytes: int, difference: float, notes: tuple[str, ...] = ()
) -> Joined:
    """Write a graph beside its place, read it again, and put it there."""
    beside = out.with_name(f".{out.stem}.{os.getpid()}.onnx")
    try:
        beside.write_bytes(model_bytes(graph))
        read_onnx(beside)
        beside.rename(out)
    finally:
        beside.unlink(missing_ok=True)
    return Joined(
        path=out,
        size_bytes=graph.size_bytes(),
        parts_bytes=parts_bytes,
        difference=difference,
        notes=notes,
    )
