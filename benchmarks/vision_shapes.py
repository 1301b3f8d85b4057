"""The graph of EfficientNet-B0 with random weights, for what engines make of its operators."""

from typing import Final

import numpy as np

from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value

__all__ = ["efficientnet_b0", "mobilenet_v3"]

# expansion, channels, blocks, stride, kernel: arXiv:1905.11946, table 1.
_STAGES: Final = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
# kernel, channels inside, channels, gate, hard swish, stride: arXiv:1905.02244, table 1.
_MOBILE: Final = (
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
)  # fmt: skip
_CLASSES: Final = 1000


class _Network:
    """A graph that grows, and what is drawn at random for it."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}

    def node(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node and return the name of its output."""
        name = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(Node(op=op, inputs=inputs, outputs=(name,), attributes=attributes))
        return name

    def constant(self, array: Array) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self._constants)}"
        self._constants[name] = array.astype(np.float32)
        return name

    def conv(
        self, data: str, n_in: int, n_out: int, size: int, *, stride: int = 1, group: int = 1
    ) -> str:
        """Add a convolution whose results stay of one size, with a bias."""
        fan = n_in // group * size * size
        weight = self._random.normal(0, np.sqrt(2 / fan), (n_out, n_in // group, size, size))
        # As batch normalisation with noise leaves it: channels of different sizes and means.
        weight *= self._random.uniform(0.5, 1.5, (n_out, 1, 1, 1))
        bias = self._random.normal(0, 0.2, n_out)
        return self.node(
            "Conv", data, self.constant(weight), self.constant(bias),
            pads=(size // 2,) * 4, strides=(stride, stride), group=group,
            kernel_shape=(size, size),
        )  # fmt: skip

    def swish(self, data: str) -> str:
        """Add x * sigmoid(x)."""
        return self.node("Mul", data, self.node("Sigmoid", data))

    def block(
        self, data: str, n_in: int, n_out: int, *, expansion: int, stride: int, size: int
    ) -> str:
        """Add an inverted residual block with squeeze and excitation."""
        wide = n_in * expansion
        inner = data if expansion == 1 else self.swish(self.conv(data, n_in, wide, 1))
        inner = self.swish(self.conv(inner, wide, wide, size, stride=stride, group=wide))
        few = max(1, n_in // 4)
        squeezed = self.swish(self.conv(self.node("GlobalAveragePool", inner), wide, few, 1))
        gate = self.node("Sigmoid", self.conv(squeezed, few, wide, 1))
        made = self.conv(self.node("Mul", inner, gate), wide, n_out, 1)
        return self.node("Add", data, made) if stride == 1 and n_in == n_out else made

    def graph(self, output: str) -> Graph:
        """Return the graph."""
        dtype = np.dtype(np.float32)
        return Graph(
            nodes=tuple(self._nodes),
            constants=self._constants,
            inputs=(Value(name="input", dtype=dtype, shape=(1, 3, 224, 224)),),
            outputs=(Value(name=output, dtype=dtype, shape=(1, _CLASSES)),),
            opset=17,
        )


def efficientnet_b0(*, seed: int = 0) -> Graph:
    """Return EfficientNet-B0 for one picture of 224 x 224, batch normalisation folded."""
    made = _Network(seed)
    data = made.swish(made.conv("input", 3, 32, 3, stride=2))
    n_in = 32
    for expansion, n_out, n_blocks, stride, size in _STAGES:
        for i in range(n_blocks):
            data = made.block(
                data, n_in, n_out, expansion=expansion, stride=1 if i else stride, size=size
            )
            n_in = n_out
    data = made.node("GlobalAveragePool", made.swish(made.conv(data, n_in, 1280, 1)))
    weight = np.random.default_rng(seed + 1).normal(0, 0.03, (_CLASSES, 1280))
    flat = made.node("Flatten", data)
    bias = made.constant(np.zeros(_CLASSES))
    return made.graph(made.node("Gemm", flat, made.constant(weight), bias, transB=1))


def mobilenet_v3(*, seed: int = 0) -> Graph:
    """Return MobileNetV3-Large for one picture of 224 x 224, batch normalisation folded."""
    made = _Network(seed)
    data = made.node("HardSwish", made.conv("input", 3, 16, 3, stride=2))
    n_in = 16
    for size, wide, n_out, has_gate, is_hard, stride in _MOBILE:
        kind = "HardSwish" if is_hard else "Relu"
        inner = data if wide == n_in else made.node(kind, made.conv(data, n_in, wide, 1))
        inner = made.node(kind, made.conv(inner, wide, wide, size, stride=stride, group=wide))
        if has_gate:
            pooled = made.node("GlobalAveragePool", inner)
            squeezed = made.node("Relu", made.conv(pooled, wide, wide // 4, 1))
            opened = made.conv(squeezed, wide // 4, wide, 1)
            gate = made.node("HardSigmoid", opened, alpha=1 / 6, beta=0.5)
            inner = made.node("Mul", inner, gate)
        narrow = made.conv(inner, wide, n_out, 1)
        data = made.node("Add", data, narrow) if stride == 1 and n_in == n_out else narrow
        n_in = n_out
    last = made.node("HardSwish", made.conv(data, n_in, 960, 1))
    wide_head = made.node(
        "HardSwish", made.conv(made.node("GlobalAveragePool", last), 960, 1280, 1)
    )
    weight = np.random.default_rng(seed + 1).normal(0, 0.03, (_CLASSES, 1280))
    flat = made.node("Flatten", wide_head)
    bias = made.constant(np.zeros(_CLASSES))
    return made.graph(made.node("Gemm", flat, made.constant(weight), bias, transB=1))
