"""Layers with weights as matrices, and the second moments of their inputs.

One run of the examples serves pruning, factorising and the correction of rounding errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, SourceError
from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.observe import observe
from onhand.host.networks.samples import Samples

__all__ = ["Layer", "Moments", "find_layers", "measure_moments", "own_layers"]

Numbers = NDArray[np.float64]
# Positions of a picture that are looked at for each example: the others tell little more.
_POSITIONS = 4096
_BATCH = 4
# Rows of inputs that are multiplied at once.
_ROWS = 512
_RANKS = {"Conv": {3, 4, 5}, "ConvTranspose": {3, 4, 5}, "Gemm": {2}, "MatMul": {2}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer with constant weights, seen as products of matrices.

    Attributes:
        node: the operator.
        weight: the constant.
        shape: of the constant.
    """

    node: Node
    weight: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.name

    @property
    def data(self) -> str:
        """The value that it reads."""
        return self.node.inputs[0]

    @property
    def groups(self) -> int:
        """Products side by side: the groups of a convolution, else 1."""
        return self.node.whole("group", 1) if self.node.op == "Conv" else 1

    @property
    def n_inputs(self) -> int:
        """K, the inputs of each output."""
        if self.node.op == "Conv" or self._is_turned():
            return int(np.prod(self.shape[1:]))
        return self.shape[0]

    def matrices(self, weight: Array) -> FloatArray:
        """Return weights, shaped as the constant, as (groups, N, K) float32: outputs by inputs."""
        if self.node.op == "Conv":
            return weight.reshape(self.groups, self.shape[0] // self.groups, -1).astype(np.float32)
        if self.node.op == "ConvTranspose":
            return weight.reshape(1, self.shape[0], -1).swapaxes(1, 2).astype(np.float32)
        return (weight if self._is_turned() else weight.T)[None].astype(np.float32)

    def constant(self, matrices: FloatArray) -> FloatArray:
        """Undo `matrices`."""
        if self.node.op == "Conv":
            return matrices.reshape(self.shape)
        if self.node.op == "ConvTranspose":
            return matrices.swapaxes(1, 2).reshape(self.shape)
        return np.ascontiguousarray(matrices[0] if self._is_turned() else matrices[0].T)

    def columns(self, data: FloatArray, *, most: int) -> FloatArray:
        """Return what the matrices are multiplied with.

        Args:
            data: (batch, ...) what the node reads.
            most: positions to look at for each example, evenly spread.

        Returns:
            (groups, T, K) float32.
        """
        if self.node.op == "ConvTranspose":
            data = np.moveaxis(data, 1, -1)
        if self.node.op == "Gemm" and self.node.whole("transA", 0):
            data = data.T
        if self.node.op != "Conv":
            return data.reshape(1, -1, data.shape[-1])
        rank = len(self.shape) - 2
        windows = _windows(self.node, data, self.shape[2:])  # (B, C, *positions, *kernel)
        B, C = windows.shape[:2]
        n = int(np.prod(windows.shape[2 : 2 + rank]))
        # (B, positions, C, *kernel): a copy of what is looked at alone.
        moved = np.moveaxis(windows, 1, 1 + rank)
        flat = moved.reshape(B, n, C, *self.shape[2:])[:, :: -(-n // most)]
        parts = flat.reshape(-1, self.groups, C // self.groups * int(np.prod(self.shape[2:])))
        return np.ascontiguousarray(parts.transpose(1, 0, 2))  # (groups, T, K)

    def _is_turned(self) -> bool:
        return bool(self.node.whole("transB", 0)) if self.node.op == "Gemm" else False


def _windows(node: Node, data: FloatArray, kernel: tuple[int, ...]) -> FloatArray:
    """Return all that a convolution sees, (B, C, *positions, *kernel), as a view."""
    n = len(kernel)
    strides, steps = node.wholes("strides", (1,) * n), node.wholes("dilations", (1,) * n)
    spans = [(k - 1) * step + 1 for k, step in zip(kernel, steps, strict=True)]
    pads = list(node.wholes("pads", (0,) * 2 * n))
    how = node.text("auto_pad", "NOTSET")
    if how.startswith("SAME"):
        for i in range(n):
            size = data.shape[2 + i]
            over = max((-(-size // strides[i]) - 1) * strides[i] + spans[i] - size, 0)
            less, more = over // 2, over - over // 2
            pads[i], pads[n + i] = (less, more) if how == "SAME_UPPER" else (more, less)
    borders = [(0, 0), (0, 0), *((pads[i], pads[n + i]) for i in range(n))]
    windows = sliding_window_view(np.pad(data, borders), spans, axis=tuple(range(2, 2 + n)))
    picked = [slice(None, None, stride) for stride in strides]
    inside = [slice(None, None, step) for step in steps]
    return windows[(slice(None), slice(None), *picked, *inside)]


def find_layers(graph: Graph) -> tuple[Layer, ...]:
    """Return the layers that multiply with constant float32 weights.

    Args:
        graph: the graph.

    Returns:
        Each Conv, ConvTranspose without groups, Gemm, and MatMul by a matrix, in order.
    """
    found: list[Layer] = []
    for node in graph.nodes:
        ranks = _RANKS.get(node.op)
        if ranks is None or node.domain or len(node.inputs) < 2:
            continue
        array = graph.constants.get(node.inputs[1])
        if array is None or array.dtype != np.float32 or array.ndim not in ranks:
            continue
        if node.op != "ConvTranspose" or node.whole("group", 1) == 1:
            found.append(Layer(node=node, weight=node.inputs[1], shape=array.shape))
    return tuple(found)


def own_layers(graph: Graph) -> tuple[Layer, ...]:
    """Return the layers of `find_layers` whose weights nothing else reads."""
    readers, outputs = graph.readers(), set(graph.output_names())
    return tuple(
        layer
        for layer in find_layers(graph)
        if len(readers[layer.weight]) == 1
        and layer.node.inputs.count(layer.weight) == 1
        and layer.weight not in outputs
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What a layer's inputs were like, over all examples and positions.

    Attributes:
        mean: (groups, K) float32, the mean of x.
        square: (groups, K) float32, the mean of x^2.
        second: (groups, K, K) float32, the mean of x x^T; None where only squares were summed.
    """

    mean: FloatArray
    square: FloatArray
    second: FloatArray | None

    @property
    def variance(self) -> Numbers:
        """The variance of each input, (groups, K)."""
        return np.maximum(self.square.astype(np.float64) - np.square(self.mean, dtype=float), 0)


@dataclass(slots=True)
class _Sums:
    mean: Numbers | float = 0.0
    square: Numbers | float = 0.0
    second: Numbers | float = 0.0
    count: int = 0
    waiting: list[FloatArray] = field(default_factory=list)

    def add(self, x: FloatArray, *, pairs: bool) -> None:
        # Texts bring few rows each, and a sum of products costs as much for few as for many.
        self.waiting.append(x)
        if sum(part.shape[1] for part in self.waiting) >= _ROWS:
            self.settle(pairs=pairs)

    def settle(self, *, pairs: bool) -> None:
        if not self.waiting:
            return
        x = np.concatenate(self.waiting, axis=1) if len(self.waiting) > 1 else self.waiting[0]
        self.waiting.clear()
        self.mean += x.sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]
        if pairs:
            self.second += (x.transpose(0, 2, 1) @ x).astype(np.float64)
        else:
            self.square += np.square(x).sum(axis=1, dtype=np.float64)

    def moments(self) -> Moments:
        second = np.asarray(self.second, dtype=np.float64) / self.count
        square = np.asarray(self.square, dtype=np.float64) / self.count
        has_pairs = second.ndim == 3
        return Moments(
            mean=np.asarray(self.mean / self.count, dtype=np.float32),
            square=(np.einsum("gkk->gk", second) if has_pairs else square).astype(np.float32),
            second=second.astype(np.float32) if has_pairs else None,
        )


def measure_moments(
    graph: Graph, layers: Sequence[Layer], samples: Samples, *, threads: int, pairs: bool = True
) -> dict[str, Moments]:
    """Run examples and sum up the inputs of some layers.

    Args:
        graph: the graph.
        layers: of it.
        samples: the examples.
        threads: of one run.
        pairs: whether products of all pairs of inputs are summed, or squares alone.

    Returns:
        Name of a layer -> its inputs' moments.

    Raises:
        InputError: if there are no examples.
        SourceError: if the inputs of a layer are not finite.
        EngineError: if ONNX Runtime fails.
    """
    if not len(samples):
        raise InputError("the inputs of layers are not known without examples: give some")
    sums = {layer.name: _Sums() for layer in layers}
    names = sorted({layer.data for layer in layers})
    # Overflows are judged at the end, not warned of on the way.
    with np.errstate(over="ignore", invalid="ignore"):
        for made in observe(graph, samples, threads=threads, names=names, batch=_BATCH):
            for layer in layers:
                x = layer.columns(made[layer.data].astype(np.float32), most=_POSITIONS)
                sums[layer.name].add(x, pairs=pairs)
        for total in sums.values():
            total.settle(pairs=pairs)
    found = {name: total.moments() for name, total in sums.items()}
    for name, moments in found.items():
        if not np.isfinite(moments.square).all():
            raise SourceError(f"the inputs of layer {name!r} are not finite")
    return found
