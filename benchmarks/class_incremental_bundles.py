"""Bundles that class-incremental streams are learned by: small networks, and an encoder's head.

    python -m benchmarks.class_incremental_bundles digits|spoken|intents FOLDER [--encoder BUNDLE]

Each is a network without classes, with a head of none, to which a lesson adds them. It runs in a
process of its own, for checking a lesson's gradients needs PyTorch, and learning must not have it.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.core.errors import InputError
from onhand.host.learning.network_files import add_network_lesson
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.samples import Samples

__all__ = ["FOLDERS", "main"]

FOLDERS: Final = {
    "digits": ("digits", "digits-head"),
    "spoken": ("spoken", "spoken-head"),
    "intents": ("intents-head",),
}
"""The bundles of a set: one whose every layer learns, and one whose head does."""
_SEED: Final = 20260101


def main() -> None:
    """Build the bundles of a set that a folder does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("set", choices=FOLDERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", type=Path, help="a bundle of an encoder, for intents")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS[given.set]:
        place = given.folder / name
        if place.exists():
            continue
        if given.set == "intents":
            if given.encoder is None:
                raise InputError("intents: --encoder is needed, a bundle of an encoder")
            _with_lesson(_copied(given.encoder, place), "head")
        else:
            graph, cut = _perceptron() if given.set == "digits" else _convolutions()
            learnable = "head" if name.endswith("head") else f"last-block,cut={cut}"
            _with_lesson(_packed(name, graph, place), learnable)


def _copied(source: Path, place: Path) -> Bundle:
    shutil.copytree(source, place)
    return read_bundle(place)


def _with_lesson(bundle: Bundle, learnable: str) -> None:
    """Add a lesson; a bundle whose gradients are not PyTorch's does not stay."""
    try:
        add_network_lesson(bundle, parse_learnable(learnable), samples=Samples(feeds=[]), threads=1)
    except Exception:
        shutil.rmtree(bundle.root)
        raise


def _packed(name: str, graph: Graph, place: Path) -> Bundle:
    model = NetworkModel(
        name=name, family="benchmark", graph=graph, sha256="0" * 64, source_bytes=graph.size_bytes()
    )
    with stage_bundle(place) as staged:
        pack_network(model, describe(model, "features"), {"fp32": graph}, staged, provenance={})
    return read_bundle(place)


def _drawn(*shape: int) -> np.ndarray:
    """Return weights as He et al. 2015 draw them; each run draws its own again."""
    scale = np.sqrt(2 / np.prod(shape[1:]))
    drawn = np.random.default_rng([_SEED, *shape]).standard_normal(shape)
    weights: np.ndarray = (drawn * scale).astype(np.float32)
    return weights


def _perceptron() -> tuple[Graph, str]:
    """Return 64 pixels -> 100 -> head, and the value from which on everything can be learned."""
    nodes = (
        Node(op="Mul", inputs=("x", "scale"), outputs=("scaled",)),
        Node(op="Gemm", inputs=("scaled", "w1", "b1"), outputs=("sum1",), attributes={"transB": 1}),
        Node(op="Relu", inputs=("sum1",), outputs=("vector",)),
    )
    constants = {
        "scale": np.array(1 / 16, np.float32),
        "w1": _drawn(100, 64),
        "b1": np.zeros(100, np.float32),
    }
    return _graph(nodes, constants, (64,), 100), "scaled"


def _convolutions() -> tuple[Graph, str]:
    """Return (1, 32, 32) features -> two convolutions -> 128 -> head, and where to cut."""
    nodes = [Node(op="Mul", inputs=("x", "scale"), outputs=("scaled",))]
    constants = {"scale": np.array(1, np.float32)}
    before = "scaled"
    for i, (n_in, n_out) in enumerate(((1, 16), (16, 32))):
        constants |= {f"c{i}": _drawn(n_out, n_in, 3, 3), f"d{i}": np.zeros(n_out, np.float32)}
        nodes.append(
            Node(
                op="Conv",
                inputs=(before, f"c{i}", f"d{i}"),
                outputs=(f"conv{i}",),
                attributes={"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
            )
        )
        before = f"relu{i}"
        nodes.append(Node(op="Relu", inputs=(f"conv{i}",), outputs=(before,)))
    constants |= {"w": _drawn(128, 2048), "b": np.zeros(128, np.float32)}
    nodes += [
        Node(op="Flatten", inputs=(before,), outputs=("flat",), attributes={"axis": 1}),
        Node(op="Gemm", inputs=("flat", "w", "b"), outputs=("sum",), attributes={"transB": 1}),
        Node(op="Relu", inputs=("sum",), outputs=("vector",)),
    ]
    return _graph(nodes, constants, (1, 32, 32), 128), "scaled"


def _graph(
    nodes: Sequence[Node], constants: dict[str, np.ndarray], shape: tuple[int, ...], width: int
) -> Graph:
    floats = np.dtype(np.float32)
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=(Value(name="x", dtype=floats, shape=("N", *shape)),),
        outputs=(Value(name="vector", dtype=floats, shape=("N", width)),),
        opset=17,
    )


if __name__ == "__main__":
    main()
