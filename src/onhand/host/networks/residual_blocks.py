"""Blocks that add to what they read: the network runs without them as well.

Source:
    ShortGPT, arXiv:2403.03853: block influence is 1 - cosine of a block's input and output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.observe import observe
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.samples import Samples

__all__ = ["ResidualBlock", "block_influences", "find_blocks", "without_block"]

_BATCH = 4
# What may stand behind the sum, if it stands behind the block's input as well.
_BEHIND: Final = {"Clip", "LayerNormalization", "RMSNormalization", "Relu"}


@dataclass(frozen=True, slots=True)
class ResidualBlock:
    """What lies between a value and its sum with what was made of it.

    Attributes:
        source: the value that the block reads.
        result: the value that it gives, of the same shape.
    """

    source: str
    result: str


def find_blocks(graph: Graph) -> tuple[ResidualBlock, ...]:
    """Return the residual blocks of a graph, in order.

    A layer of a transformer is two of them: attention, and what follows it.

    Args:
        graph: the graph.
    """
    shapes, producers, readers = infer_shapes(graph), graph.producers(), graph.readers()
    above: dict[str, frozenset[str]] = {}  # value -> all values that it depends on
    found: list[ResidualBlock] = []
    for node in graph.nodes:
        read = frozenset(node.reads())
        inside = read.union(*(above.get(name, frozenset()) for name in read))
        above |= dict.fromkeys(node.outputs, inside)
        if node.op != "Add" or node.domain:
            continue
        for source, branch in (node.inputs, node.inputs[::-1]):
            if source in producers and source in above.get(branch, frozenset()):
                result = _behind(node.outputs[0], producers[source], readers)
                if _same_shape(shapes, source, result) and result not in graph.output_names():
                    found.append(ResidualBlock(source, result))
    captured = {name for node in graph.nodes for name in node.captured}
    return tuple(block for block in found if block.result not in captured)


def _behind(name: str, before: Node, readers: Mapping[str, list[Node]]) -> str:
    """Return the end of a block: behind a norm or a ReLU that its input has behind it, too."""
    following = readers.get(name, [])
    if len(following) == 1 and following[0].op == before.op and before.op in _BEHIND:
        return following[0].outputs[0]
    return name


def _same_shape(shapes: Mapping[str, Value], first: str, second: str) -> bool:
    a, b = shapes.get(first), shapes.get(second)
    return a is not None and b is not None and a.shape == b.shape and len(a.shape) > 1


def block_influences(
    graph: Graph, blocks: Sequence[ResidualBlock], samples: Samples, *, threads: int
) -> list[float]:
    """Return for each block 1 - the mean cosine of what it reads and gives: 0 changes nothing.

    Args:
        graph: the graph.
        blocks: of it.
        samples: the examples.
        threads: of one run.

    Raises:
        EngineError: if ONNX Runtime fails.
    """
    names = sorted({name for block in blocks for name in (block.source, block.result)})
    sums, n = np.zeros(len(blocks)), 0
    for made in observe(graph, samples, threads=threads, names=names, batch=_BATCH):
        for i, block in enumerate(blocks):
            a, b = (made[name].astype(np.float64) for name in (block.source, block.result))
            a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            sums[i] += ((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).sum()
        n += len(made[names[0]]) if names else 0
    return [float(1 - total / max(n, 1)) for total in sums]


def without_block(graph: Graph, block: ResidualBlock) -> Graph:
    """Return the graph in which a block's result is what it reads."""
    return graph.renamed({block.result: block.source}).live()
