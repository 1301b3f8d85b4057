"""Small random networks of many makes, for what removes channels."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value
from onhand.host.networks.samples import Samples

FLOAT = np.dtype(np.float32)


@dataclass
class Net:
    """Adds nodes one after the other; values are named by what makes them."""

    seed: int = 0
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def weight(self, *shape: int, at: float = 0.0) -> str:
        """Add random numbers around `at`."""
        name = f"c{len(self.constants)}"
        fan = max(int(np.prod(shape[1:])), 1) if len(shape) > 1 else 25
        values = at + self._rng.normal(size=shape) / np.sqrt(fan)
        self.constants[name] = values.astype(np.float32)
        return name

    def given(self, *numbers: int) -> str:
        """Add whole numbers."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(numbers, dtype=np.int64)
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Attribute) -> str:
        """Add an operator; return its first output, from which further ones count up."""
        name = f"v{len(self.nodes)}"
        names = (name, *(f"{name}.{i}" for i in range(1, outputs)))
        self.nodes.append(Node(op=op, inputs=inputs, outputs=names, attributes=attributes))
        return name

    def conv(self, x: str, n_in: int, n: int, *, k: int = 3, group: int = 1) -> str:
        """Add a convolution that keeps the picture's size, with a bias."""
        weight, bias = self.weight(n, n_in // group, k, k), self.weight(n)
        pads = (k // 2,) * 4
        return self.add("Conv", x, weight, bias, group=group, kernel_shape=(k, k), pads=pads)

    def norm(self, x: str, n: int) -> str:
        """Add a BatchNormalization."""
        numbers = [self.weight(n, at=at) for at in (1.0, 0.0, 0.0)]
        spread = self.weight(n, at=2.0)
        return self.add("BatchNormalization", x, *numbers, spread)

    def dense(self, x: str, n_in: int, n: int) -> str:
        """Add a product and its bias."""
        return self.add("Add", self.add("MatMul", x, self.weight(n_in, n)), self.weight(n))

    def graph(self, x: str, shape: tuple[int | str | None, ...], n: int) -> Graph:
        """End with the value `x`, (batch, ..., n)."""
        ends = ("batch", *(None for _ in shape[2:-1]), n) if len(shape) > 3 else ("batch", n)
        return Graph(
            nodes=tuple(self.nodes),
            constants=self.constants,
            inputs=(Value(name="x", dtype=FLOAT, shape=shape),),
            outputs=(Value(name=x, dtype=FLOAT, shape=ends),),
            opset=17,
        )


# A block takes a value of some channels, and returns one and its channels.
Block = Callable[[Net, str, int], tuple[str, int]]


def plain(net: Net, x: str, n: int) -> tuple[str, int]:
    """Convolution, normalization, ReLU; it changes the width."""
    return net.add("Relu", net.norm(net.conv(x, n, 12), 12)), 12


def residual(net: Net, x: str, n: int) -> tuple[str, int]:
    """As in ResNet."""
    y = net.add("Relu", net.norm(net.conv(x, n, 10), 10))
    return net.add("Relu", net.add("Add", net.conv(y, 10, n), x)), n


def inverted(net: Net, x: str, n: int) -> tuple[str, int]:
    """An inverted bottleneck with squeeze-and-excite, as in MobileNetV3."""
    wide = 2 * n
    y = net.add("HardSwish", net.norm(net.conv(x, n, wide, k=1), wide))
    y = net.add("Clip", net.conv(y, wide, wide, group=wide), *_bounds(net))
    s = net.add("Relu", net.conv(net.add("GlobalAveragePool", y), wide, 4, k=1))
    s = net.add("HardSigmoid", net.conv(s, 4, wide, k=1))
    return net.add("Add", net.conv(net.add("Mul", y, s), wide, n, k=1), x), n


def _bounds(net: Net) -> tuple[str, str]:
    names = []
    for value in (0.0, 6.0):
        names.append(f"c{len(net.constants)}")
        net.constants[names[-1]] = np.array(value, dtype=np.float32)
    return names[0], names[1]


def dense_concat(net: Net, x: str, n: int) -> tuple[str, int]:
    """Branches of several widths side by side, and the input beside them."""
    a = net.add("Relu", net.conv(x, n, 6, k=1))
    b = net.add("PRelu", net.conv(x, n, 4), net.weight(4, 1, 1))
    return net.add("Concat", x, a, b, axis=1), n + 10


def split_gate(net: Net, x: str, n: int) -> tuple[str, int]:
    """One half of the channels decides about the other."""
    y = net.conv(x, n, 16)
    half = net.add("Split", y, net.given(8, 8), outputs=2, axis=1)
    return net.add("Mul", half, net.add("Sigmoid", f"{half}.1")), 8


def sliced(net: Net, x: str, n: int) -> tuple[str, int]:
    """Two overlapping parts of one convolution."""
    y = net.conv(x, n, 12, k=1)
    parts = [
        net.add("Slice", y, net.given(low), net.given(high), net.given(1))
        for low, high in ((0, 6), (-8, 12))
    ]
    return net.conv(parts[0], 6, 8, k=1), 8 if net.conv(parts[1], 8, 8, k=1) else 0


def shuffle(net: Net, x: str, n: int) -> tuple[str, int]:
    """A convolution in groups between two shuffles, as in ShuffleNet."""
    y = net.conv(x, n, 12, k=1)
    y = _shuffled(net, y, 2, 6)
    y = net.add("Relu", net.conv(y, 12, 8, group=2))
    return _shuffled(net, y, 2, 4), 8


def _shuffled(net: Net, x: str, groups: int, each: int) -> str:
    apart = net.add("Reshape", x, net.given(0, groups, each, 6, 6))
    turned = net.add("Transpose", apart, perm=(0, 2, 1, 3, 4))
    return net.add("Reshape", turned, net.given(0, groups * each, 6, 6))


def multiplied(net: Net, x: str, n: int) -> tuple[str, int]:
    """A depthwise convolution that makes two channels of each."""
    y = net.conv(x, n, 6, k=1)
    return net.add("Tanh", net.conv(y, 6, 12, group=6)), 12


def enlarged(net: Net, x: str, n: int) -> tuple[str, int]:
    """A transposed convolution, scaled channel by channel, pooled back."""
    y = net.add("ConvTranspose", x, net.weight(n, 8, 2, 2), net.weight(8), strides=(2, 2))
    y = net.add("Mul", y, net.weight(8, 1, 1, at=1.0))
    return net.add("MaxPool", y, kernel_shape=(2, 2), strides=(2, 2)), 8


BLOCKS: tuple[Block, ...] = (
    plain, residual, inverted, dense_concat, split_gate, shuffle, multiplied, enlarged,
)  # fmt: skip


def picture_net(blocks: tuple[Block, ...], *, flat: bool = False, seed: int = 0) -> Graph:
    """A stem, blocks, and a classifier of 5 classes; pictures are (3, 6, 6)."""
    net = Net(seed)
    x, n = net.add("Relu", net.conv("x", 3, 8)), 8
    for block in blocks:
        x, n = block(net, x, n)
    if flat:
        x, n = net.add("Flatten", x), n * 36
    else:
        x = net.add("Flatten", net.add("GlobalAveragePool", x))
    x = net.add("Gemm", x, net.weight(7, n), net.weight(7), transB=1)
    x = net.add("Gemm", net.add("Relu", x), net.weight(7, 5), net.weight(5))
    return net.graph(x, ("batch", 3, 6, 6), 5)


def encoder_net(*, n_layers: int = 1, heads: int = 4, width: int = 16, seed: int = 0) -> Graph:
    """A BERT-like encoder on vectors, (batch, time, width), with 3 outputs for the first token."""
    net, x, each = Net(seed), "x", width // heads
    for _ in range(n_layers):
        q, k, v = (_heads(net, net.dense(x, width, width), heads, each) for _ in range(3))
        scores = net.add("MatMul", q, net.add("Transpose", k, perm=(0, 1, 3, 2)))
        seen = net.add("MatMul", net.add("Softmax", scores, axis=-1), v)
        joined = net.add("Transpose", seen, perm=(0, 2, 1, 3))
        joined = net.add("Reshape", joined, net.given(0, 0, width))
        x = _layer_norm(net, net.add("Add", net.dense(joined, width, width), x), width)
        y = net.add("Relu", net.dense(x, width, 2 * width))
        x = _layer_norm(net, net.add("Add", net.dense(y, 2 * width, width), x), width)
    first = net.constants | {"first": np.array(0, dtype=np.int64)}
    net.constants = first
    x = net.dense(net.add("Gather", x, "first", axis=1), width, 3)
    return net.graph(x, ("batch", "time", width), 3)


def _heads(net: Net, x: str, heads: int, each: int) -> str:
    apart = net.add("Reshape", x, net.given(0, 0, heads, each))
    return net.add("Transpose", apart, perm=(0, 2, 1, 3))


def _layer_norm(net: Net, x: str, width: int) -> str:
    return net.add("LayerNormalization", x, net.weight(width, at=1.0), net.weight(width), axis=-1)


def samples(graph: Graph, n: int = 8, *, seed: int = 1, labels: bool = False) -> Samples:
    """Random examples."""
    rng = np.random.default_rng(seed)
    shape = [n if isinstance(n, int) else 5 for n in graph.inputs[0].shape[1:]]
    feeds = [{"x": rng.normal(size=(1, *shape)).astype(np.float32)} for _ in range(n)]
    return Samples(feeds=feeds, labels=[i % 3 for i in range(n)] if labels else None)
