"""Small graphs, written and run by tests."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value
from onhand.host.networks.onnx_files import model_bytes

Shape = tuple[int | str | None, ...]


class Drawing:
    """A graph that grows node by node."""

    def __init__(self, **inputs: Shape) -> None:
        self._inputs = tuple(
            Value(name=name, dtype=np.dtype(np.float32), shape=shape)
            for name, shape in inputs.items()
        )
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}

    def constant(self, array: object, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant; its name."""
        name = f"c{len(self._constants)}"
        self._constants[name] = np.asarray(array, dtype=dtype)
        return name

    def node(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node; the name of its output."""
        name = f"n{len(self._nodes)}.{op}"
        self._nodes.append(Node(op=op, inputs=inputs, outputs=(name,), attributes=attributes))
        return name

    def graph(self, *outputs: str, rank: int = 2, opset: int = 17) -> Graph:
        """The graph as it stands."""
        shape: Shape = (None,) * rank
        return Graph(
            nodes=tuple(self._nodes),
            constants=dict(self._constants),
            inputs=self._inputs,
            outputs=tuple(
                Value(name=name, dtype=np.dtype(np.float32), shape=shape) for name in outputs
            ),
            opset=opset,
        )


def ops(graph: Graph) -> list[str]:
    """The operators, in order."""
    return [node.op for node in graph.nodes]


def computed(graph: Graph, feeds: Mapping[str, Array]) -> Sequence[NDArray[np.float32]]:
    """What ONNX Runtime computes, with none of its own changes."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model_bytes(graph), options, ["CPUExecutionProvider"])
    made: list[NDArray[np.float32]] = session.run(None, dict(feeds))
    return made
