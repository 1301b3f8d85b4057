"""Encoders of text as plain ONNX operators, in the form that engines fuse.

ONNX Runtime makes `FusedMatMul` and `BiasGelu` of these nodes, and `SkipLayerNormalization`, a slow
one, where all sizes are known; OpenVINO makes its `ScaledDotProductAttention`; a pass over networks
still meets ordinary products.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value

__all__ = ["OPSET", "Encoder", "Naming", "Sentence", "build_encoder"]

OPSET = 17
# What is added to the scores of padding: exp() of it is 0, and half precision still holds it.
_MASKED = -10000.0
_LOW = -1e9  # below every state
_FLOAT, _INT64 = 1, 7  # dtypes, as ONNX numbers them


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Where a family keeps its tensors; `{}` is the number of a layer.

    Attributes:
        prefix: of all tensors but the heads', in checkpoints with a head.
        query: the linear layer of the queries.
        key: likewise.
        value: likewise.
        output: the linear layer behind the attention.
        attention_norm: the norm behind it.
        up: the first linear layer of the feed-forward part.
        down: the second.
        norm: the norm behind it.
    """

    prefix: str
    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    up: str
    down: str
    norm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """An encoder: a transformer whose norms come behind its parts.

    Attributes:
        family: "bert", "roberta", "xlm-roberta", "distilbert" or "mpnet".
        naming: where its tensors are.
        width: D.
        n_layers: of attention and feed-forward part.
        n_heads: H; D is a multiple of it.
        hidden: width of the feed-forward part.
        activation: "gelu", "gelu_tanh", "relu" or "silu".
        epsilon: of the norms.
        vocab_size: V.
        n_positions: rows of the table of positions.
        n_types: kinds of text; 0 where the family has none.
        pad_id: the id of padding.
        counts_positions: positions begin behind `pad_id` and count what is no padding.
        buckets: of relative positions, MPNet's; 0 for none.
        head: how classes are scored: "pooler", "dense", "pre_classifier", or "" for no head.
        n_labels: of the head; 0 without one.
    """

    family: str
    naming: Naming
    width: int
    n_layers: int
    n_heads: int
    hidden: int
    activation: str
    epsilon: float
    vocab_size: int
    n_positions: int
    n_types: int
    pad_id: int
    counts_positions: bool
    buckets: int = 0
    head: str = ""
    n_labels: int = 0

    @property
    def most_tokens(self) -> int:
        """The longest text that the table of positions holds."""
        return self.n_positions - (self.pad_id + 1 if self.counts_positions else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """How the tokens' states become one vector.

    Attributes:
        pooling: "mean", "cls" or "max".
        dense: of each layer behind it: weight (N, K), bias (N,) or None, and activation.
        normalize: whether the vector is brought to length 1.
    """

    pooling: str = "mean"
    dense: tuple[tuple[FloatArray, FloatArray | None, str], ...] = ()
    normalize: bool = False


Read = Callable[[str, tuple[int, ...]], FloatArray]


@dataclass(slots=True)
class _Builder:
    """Collects nodes and constants; one for one graph."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def op(self, op: str, *inputs: str, out: str, **attributes: Attribute) -> str:
        """Add a node and return its output."""
        self.nodes.append(Node(op=op, inputs=inputs, outputs=(out,), attributes=attributes))
        return out

    def constant(self, name: str, array: Array) -> str:
        """Add a constant, once under one name, and return the name."""
        self.constants.setdefault(name, array)
        return name

    def whole(self, *numbers: int) -> str:
        """Return a list of whole numbers as a constant."""
        name = "list." + ".".join(str(number) for number in numbers)
        return self.constant(name, np.asarray(numbers, dtype=np.int64))

    def number(self, value: float) -> str:
        """Return a float32 as a constant."""
        return self.constant(f"number.{value!r}", np.asarray(value, dtype=np.float32))

    def linear(self, x: str, name: str, weight: FloatArray, bias: FloatArray | None) -> str:
        """Add x W^T + b; `weight` is (N, K), stored as (K, N)."""
        stored = self.constant(f"{name}.weight", np.ascontiguousarray(weight.T))  # (K, N)
        if bias is None:
            return self.op("MatMul", x, stored, out=f"{name}.out")
        product = self.op("MatMul", x, stored, out=f"{name}.product")
        return self.op("Add", product, self.constant(f"{name}.bias", bias), out=f"{name}.out")

    def activate(self, x: str, kind: str, name: str) -> str:
        """Add an activation; "identity" adds nothing."""
        if kind == "identity":
            return x
        if kind in {"relu", "tanh", "sigmoid"}:
            return self.op(kind.capitalize(), x, out=f"{name}.{kind}")
        if kind == "silu":
            gate = self.op("Sigmoid", x, out=f"{name}.gate")
            return self.op("Mul", x, gate, out=f"{name}.silu")
        if kind == "gelu":
            scaled = self.op("Div", x, self.number(math.sqrt(2)), out=f"{name}.scaled")
            inner = self.op("Erf", scaled, out=f"{name}.erf")
        else:  # x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
            cube = self.op("Pow", x, self.number(3.0), out=f"{name}.cube")
            part = self.op("Mul", cube, self.number(0.044715), out=f"{name}.part")
            both = self.op("Add", x, part, out=f"{name}.both")
            scaled = self.op("Mul", both, self.number(math.sqrt(2 / math.pi)), out=f"{name}.scaled")
            inner = self.op("Tanh", scaled, out=f"{name}.tanh")
        shifted = self.op("Add", inner, self.number(1.0), out=f"{name}.shifted")
        # Half of x, not of the product: a constant beside the next layer would be folded into it,
        # and engines would no longer see the function.
        halved = self.op("Mul", x, self.number(0.5), out=f"{name}.halved")
        return self.op("Mul", halved, shifted, out=f"{name}.{kind}")

    def norm(self, x: str, name: str, read: Read, shape: Encoder) -> str:
        """Add a layer norm over the last axis."""
        parts = [self.constant(f"{name}.{p}", read(f"{name}.{p}", (shape.width,)))
                 for p in ("weight", "bias")]  # fmt: skip
        epsilon = shape.epsilon
        return self.op("LayerNormalization", x, *parts, out=f"{name}.out", axis=-1, epsilon=epsilon)

    def read_linear(self, x: str, name: str, read: Read, n: int, k: int) -> str:
        """Add a linear layer of K inputs and N outputs."""
        return self.linear(x, name, read(f"{name}.weight", (n, k)), read(f"{name}.bias", (n,)))


def build_encoder(
    encoder: Encoder, read: Read, *, task: str, sentence: Sentence | None = None
) -> Graph:
    """Build the graph of an encoder.

    Args:
        encoder: its description.
        read: gives a tensor of the checkpoint by name and shape, as float32.
        task: "text-embedding", "text-classification" or "features".
        sentence: how one vector is made, for "text-embedding".

    Returns:
        The graph, of any number B of texts of any length T: `input_ids`, `attention_mask` and,
        where the family tells texts apart, `token_type_ids`, (B, T) int64 each, to `embedding`
        (B, D'), `logits` (B, n_labels) or `last_hidden_state` (B, T, D).
    """
    b = _Builder()
    states = _embed(b, encoder, read)
    mask = _mask(b, encoder, read)
    for i in range(encoder.n_layers):
        states = _layer(b, encoder, read, states, mask, i)
    width: tuple[int | str, ...]
    if task == "text-embedding":
        output, width = _sentence(b, sentence or Sentence(), states, encoder.width)
    elif task == "text-classification":
        output, width = _classes(b, encoder, read, states), (encoder.n_labels,)
    else:
        b.nodes[-1] = replace(b.nodes[-1], outputs=("last_hidden_state",))
        output, width = "last_hidden_state", ("sequence", encoder.width)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if encoder.n_types > 1 else [])]
    whole, real = np.dtype(np.int64), np.dtype(np.float32)
    return Graph(
        nodes=tuple(b.nodes),
        constants=b.constants,
        inputs=tuple(Value(name=n, dtype=whole, shape=("batch", "sequence")) for n in names),
        outputs=(Value(name=output, dtype=real, shape=("batch", *width)),),
        opset=OPSET,
    ).live()


def _embed(b: _Builder, encoder: Encoder, read: Read) -> str:
    D = encoder.width
    words = read("embeddings.word_embeddings.weight", (encoder.vocab_size, D))
    table = b.constant("embeddings.word_embeddings.weight", words)
    summed = b.op("Gather", table, "input_ids", out="embeddings.words")  # (B, T, D)
    places = read("embeddings.position_embeddings.weight", (encoder.n_positions, D))
    if encoder.n_types:
        types = read("embeddings.token_type_embeddings.weight", (encoder.n_types, D))
        if encoder.n_types == 1:  # every token is of it
            places = places + types
        else:
            table = b.constant("embeddings.token_type_embeddings.weight", types)
            kinds = b.op("Gather", table, "token_type_ids", out="embeddings.types")  # (B, T, D)
            summed = b.op("Add", summed, kinds, out="embeddings.typed")
    table = b.constant("embeddings.position_embeddings.weight", places)
    if encoder.counts_positions:
        # As the family does: padding stays at its own row, tokens count from the next.
        pad = b.constant("pad_id", np.asarray(encoder.pad_id, dtype=np.int64))
        is_pad = b.op("Equal", "input_ids", pad, out="positions.padding")
        is_token = b.op("Not", is_pad, out="positions.tokens")
        ones = b.op("Cast", is_token, out="positions.ones", to=_INT64)
        axis = b.constant("axis.1", np.asarray(1, dtype=np.int64))
        order = b.op("CumSum", ones, axis, out="positions.order")
        order = b.op("Mul", order, ones, out="positions.counted")
        order = b.op("Add", order, pad, out="positions.ids")
        rows = b.op("Gather", table, order, out="embeddings.positions")  # (B, T, D)
    else:
        shape = b.op("Shape", "input_ids", out="shape")
        length = b.op("Slice", shape, b.whole(1), b.whole(2), out="length")
        rows = b.op("Slice", table, b.whole(0), length, b.whole(0), out="embeddings.positions")
    summed = b.op("Add", summed, rows, out="embeddings.sum")
    return b.norm(summed, "embeddings.LayerNorm", read, encoder)


def _mask(b: _Builder, encoder: Encoder, read: Read) -> str:
    """Return what is added to the scores: (B, 1, 1, T), or (B, H, T, T) with relative positions."""
    wide = b.op("Unsqueeze", "attention_mask", b.whole(1, 2), out="mask.wide")  # (B, 1, 1, T)
    ones = b.op("Cast", wide, out="mask.ones", to=_FLOAT)
    zeros = b.op("Sub", b.number(1.0), ones, out="mask.zeros")
    mask = b.op("Mul", zeros, b.number(_MASKED), out="mask.scores")
    if not encoder.buckets:
        return mask
    name = "encoder.relative_attention_bias.weight"
    weights = read(name, (encoder.buckets, encoder.n_heads))
    P = encoder.n_positions
    bucket = _bucket(np.arange(-P + 1, P), encoder.buckets)  # (2P-1,)
    table = b.constant(name, np.ascontiguousarray(weights[bucket].T))  # (H, 2P-1)
    shape = b.op("Shape", "input_ids", out="shape")
    one = b.constant("axis.1", np.asarray(1, dtype=np.int64))
    length = b.op("Gather", shape, one, out="length")
    zero = b.constant("zero", np.asarray(0, dtype=np.int64))
    order = b.op("Range", zero, length, one, out="order")  # (T,)
    keys = b.op("Unsqueeze", order, b.whole(0), out="order.keys")  # (1, T)
    queries = b.op("Unsqueeze", order, b.whole(1), out="order.queries")  # (T, 1)
    apart = b.op("Sub", keys, queries, out="order.apart")  # (T, T)
    rows = b.op("Add", apart, b.whole(P - 1), out="order.rows")
    bias = b.op("Gather", table, rows, out="order.bias", axis=1)  # (H, T, T)
    return b.op("Add", mask, bias, out="mask.relative")  # (B, H, T, T)


def _bucket(apart: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the bucket of a key that is `apart` places behind its query.

    Source:
        T5, arXiv:1910.10683, both directions, at most 128 apart; MPNet, arXiv:2004.09297.
    """
    half = n // 2
    exact, far = half // 2, 128
    distance = np.abs(apart)
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / math.log(far / exact) * (half - exact)
    large = np.minimum(exact + steps.astype(np.int64), half - 1)
    return np.where(apart > 0, half, 0) + np.where(distance < exact, distance, large)


def _layer(b: _Builder, encoder: Encoder, read: Read, x: str, mask: str, i: int) -> str:
    D, H, F = encoder.width, encoder.n_heads, encoder.hidden
    names = encoder.naming
    heads = b.whole(0, 0, H, D // H)
    turned: list[str] = []
    for pattern, perm in ((names.query, (0, 2, 1, 3)), (names.key, (0, 2, 3, 1)),
                          (names.value, (0, 2, 1, 3))):  # fmt: skip
        name = pattern.format(i)
        split = b.op("Reshape", b.read_linear(x, name, read, D, D), heads, out=f"{name}.heads")
        turned.append(b.op("Transpose", split, out=f"{name}.turned", perm=perm))
    query, key, value = turned  # (B, H, T, D/H), (B, H, D/H, T), (B, H, T, D/H)
    to = f"layer.{i}.attention"
    scores = b.op("MatMul", query, key, out=f"{to}.products")  # (B, H, T, T)
    scores = b.op("Div", scores, b.number(math.sqrt(D // H)), out=f"{to}.scaled")
    scores = b.op("Add", scores, mask, out=f"{to}.scores")
    chances = b.op("Softmax", scores, out=f"{to}.chances", axis=-1)
    mixed = b.op("MatMul", chances, value, out=f"{to}.mixed")  # (B, H, T, D/H)
    mixed = b.op("Transpose", mixed, out=f"{to}.turned", perm=(0, 2, 1, 3))
    mixed = b.op("Reshape", mixed, b.whole(0, 0, D), out=f"{to}.joined")  # (B, T, D)
    found = b.read_linear(mixed, names.output.format(i), read, D, D)
    x = b.op("Add", found, x, out=f"{to}.sum")
    x = b.norm(x, names.attention_norm.format(i), read, encoder)
    wide = b.read_linear(x, names.up.format(i), read, F, D)  # (B, T, F)
    wide = b.activate(wide, encoder.activation, f"layer.{i}.hidden")
    found = b.read_linear(wide, names.down.format(i), read, D, F)
    x = b.op("Add", found, x, out=f"layer.{i}.sum")
    return b.norm(x, names.norm.format(i), read, encoder)


def _first(b: _Builder, states: str) -> str:
    zero = b.constant("zero", np.asarray(0, dtype=np.int64))
    return b.op("Gather", states, zero, out="first", axis=1)  # (B, D)


def _classes(b: _Builder, encoder: Encoder, read: Read, states: str) -> str:
    D, N = encoder.width, encoder.n_labels
    before, activation, last = {
        "pooler": ("pooler.dense", "tanh", "classifier"),
        "dense": ("classifier.dense", "tanh", "classifier.out_proj"),
        "pre_classifier": ("pre_classifier", "relu", "classifier"),
    }[encoder.head]
    x = b.read_linear(_first(b, states), before, read, D, D)
    x = b.read_linear(b.activate(x, activation, before), last, read, N, D)
    b.nodes[-1] = replace(b.nodes[-1], outputs=("logits",))
    return "logits"


def _sentence(
    b: _Builder, sentence: Sentence, states: str, width: int
) -> tuple[str, tuple[int, ...]]:
    if sentence.pooling == "cls":
        x = _first(b, states)
    else:
        column = b.op("Unsqueeze", "attention_mask", b.whole(2), out="pool.column")  # (B, T, 1)
        ones = b.op("Cast", column, out="pool.ones", to=_FLOAT)
        if sentence.pooling == "mean":
            kept = b.op("Mul", states, ones, out="pool.kept")
            total = b.op("ReduceSum", kept, b.whole(1), out="pool.sum", keepdims=0)  # (B, D)
            n = b.op("ReduceSum", ones, b.whole(1), out="pool.n", keepdims=0)  # (B, 1)
            n = b.op("Max", n, b.number(1e-9), out="pool.count")
            x = b.op("Div", total, n, out="pool.mean")
        else:
            zeros = b.op("Sub", b.number(1.0), ones, out="pool.zeros")
            low = b.op("Mul", zeros, b.number(_LOW), out="pool.low")
            kept = b.op("Add", states, low, out="pool.kept")
            x = b.op("ReduceMax", kept, out="pool.max", axes=(1,), keepdims=0)
    for i, (weight, bias, activation) in enumerate(sentence.dense):
        x = b.activate(b.linear(x, f"dense.{i}", weight, bias), activation, f"dense.{i}.out")
        width = len(weight)
    if sentence.normalize:
        length = b.op("ReduceL2", x, out="length.l2", axes=(1,), keepdims=1)  # (B, 1)
        length = b.op("Max", length, b.number(1e-12), out="length.some")
        x = b.op("Div", x, length, out="normal")
    b.nodes[-1] = replace(b.nodes[-1], outputs=("embedding",))
    return "embedding", (width,)
