"""One description of a decoder-only transformer, with options for every family.

A model family is a set of options here, not a file of its own. The description travels in the
bundle's manifest; every engine builds its computation from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from onhand.core.errors import InputError
from onhand.core.outside import count, flag, object_of, positive, word
from onhand.core.rope import Rope, rope_from_json

__all__ = ["MOST", "Decoder", "DecoderLayer", "Rope", "decoder_from_json"]

# Bounds for what an outsider may write into a manifest: far above any model that fits a device.
MOST = {
    "vocab_size": 2**22,
    "width": 2**17,
    "context": 2**20,
    "n_layers": 1024,
    "n_heads": 4096,
    "head_dim": 4096,
    "mlp_width": 2**20,
}
_FLAGS = ("tied", "qkv_bias", "out_bias", "mlp_bias", "qk_norm", "post_norm")
_WORDS = {
    "norm": ("rms", "layer"),
    "activation": ("silu", "gelu", "gelu_tanh"),
    "positions": ("rope", "learned"),
}
_SCALES = ("embed_scale", "attention_scale", "attention_softcap", "logit_softcap")
# Looked up by rows: the second factor would be read the other way round.
_LOOKED_UP = ("embed", "positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """Sizes of one layer; layers may differ.

    Attributes:
        n_heads: query heads.
        n_kv_heads: key and value heads; divides `n_heads` (grouped-query attention).
        head_dim: width of one head.
        mlp_width: width inside the MLP.
        window: tokens that a token attends to, itself included (sliding-window attention); 0 for
            all before it.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    mlp_width: int
    window: int = 0

    @property
    def query_width(self) -> int:
        """Outputs of the query matrix."""
        return self.n_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Outputs of the key matrix, and of the value matrix."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder-only transformer: norm, attention, norm, MLP; each added to the residual stream.

    Attributes:
        vocab_size: rows of the embedding and of the head.
        width: width of the residual stream.
        context: most tokens that the model was made for.
        norm_epsilon: added to the mean square, or the variance, in every norm.
        layers: the layers, first to last.
        rope: rotary positions.
        local_rope: rotary positions of the layers with a window, where they differ (Gemma 3).
        tied: whether the head is the embedding matrix.
        qkv_bias: whether query, key and value have a bias (Qwen2).
        out_bias: whether the attention output has a bias.
        mlp_bias: whether the MLP's matrices have a bias.
        norm: "rms" (arXiv:1910.07467), or "layer" with a bias (arXiv:1607.06450).
        qk_norm: whether each head's query and key are normed before they turn (Qwen3).
        post_norm: whether the outputs of attention and MLP are normed too (Gemma).
        activation: inside the MLP: "silu", "gelu" or "gelu_tanh", its approximation by tanh.
        gated: whether the activation of one matrix multiplies the outputs of another.
        positions: "rope", or "learned": a vector for each position, added to the embedding.
        embed_scale: factor on the embedding of a token (Gemma).
        attention_scale: factor on the scores; None for head_dim ** -0.5.
        attention_softcap: c in c * tanh(score / c); None for none (Gemma 2).
        logit_softcap: the same of the logits.
        ranks: name of a matrix W (N, K) -> R, where it is stored as two factors, `W.left` (N, R)
            and `W.right` (R, K), whose product it is; not of `embed` and `positions`.
    """

    vocab_size: int
    width: int
    context: int
    norm_epsilon: float
    layers: tuple[DecoderLayer, ...]
    rope: Rope = field(default_factory=Rope)
    local_rope: Rope | None = None
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norm: str = "rms"
    qk_norm: bool = False
    post_norm: bool = False
    activation: str = "silu"
    gated: bool = True
    positions: str = "rope"
    embed_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def inner(self) -> str:
        """Name of the matrix that leads into the MLP."""
        return "gate_up" if self.gated else "up"

    def rotary(self, i: int) -> Rope | None:
        """Return the rotary positions of a layer, None if positions are learned."""
        if self.positions == "learned":
            return None
        local = self.layers[i].window > 0 and self.local_rope is not None
        return self.local_rope if local else self.rope

    def rotary_name(self, i: int) -> str | None:
        """Return the name of a layer's rotary tables, None if positions are learned."""
        rope = self.rotary(i)
        if rope is None:
            return None
        local = "local." if rope is self.local_rope else ""
        return f"{local}{self.layers[i].head_dim}"

    def rotary_tables(self) -> dict[str, tuple[Rope, int]]:
        """Return name -> rotary positions and head_dim of every table that the layers need."""
        found: dict[str, tuple[Rope, int]] = {}
        for i, layer in enumerate(self.layers):
            name, rope = self.rotary_name(i), self.rotary(i)
            if name is not None and rope is not None:
                found[name] = (rope, layer.head_dim)
        return dict(sorted(found.items()))

    def score_scale(self, i: int) -> float:
        """Return the factor on the attention scores of a layer."""
        if self.attention_scale is not None:
            return self.attention_scale
        return float(self.layers[i].head_dim ** -0.5)

    def factors(self, name: str) -> tuple[str, ...]:
        """Return the stored matrices that make up a matrix, in the order they are applied in."""
        return (f"{name}.right", f"{name}.left") if name in self.ranks else (name,)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every stored weight, in the order of the computation."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in self.whole_tensors().items():
            if name in self.ranks:
                shapes[f"{name}.right"] = (self.ranks[name], shape[1])
                shapes[f"{name}.left"] = (shape[0], self.ranks[name])
            else:
                shapes[name] = shape
        return shapes

    def whole_tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every weight as if none were stored as factors.

        Query, key and value are one matrix, and gate and up are one: rows are concatenated, so
        that one pass over the input computes them.
        """
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, self.width)}
        if self.positions == "learned":
            shapes["positions"] = (self.context, self.width)
        for i, layer in enumerate(self.layers):
            for name, *shape in self._layer_tensors(layer):
                shapes[f"layers.{i}.{name}"] = tuple(shape)
        for name, size in self._norm_vectors("final_norm"):
            shapes[name] = (size,)
        if not self.tied:
            shapes["head"] = (self.vocab_size, self.width)
        return shapes

    @property
    def head(self) -> str:
        """Name of the matrix that the head applies."""
        return "embed" if self.tied else "head"

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return name -> (N, K) of every stored matrix, factors on their own; see `tensors`."""
        found = self.tensors().items()
        return {name: (shape[0], shape[1]) for name, shape in found if len(shape) == 2}

    def vectors(self) -> dict[str, tuple[int]]:
        """Return name -> (width,) of every norm and bias; see `tensors`."""
        found = self.tensors().items()
        return {name: (shape[0],) for name, shape in found if len(shape) == 1}

    def _layer_tensors(self, layer: DecoderLayer) -> Iterator[tuple[Any, ...]]:
        """Yield the name of each of a layer's tensors, and its shape."""
        qkv = layer.query_width + 2 * layer.kv_width
        inner = (2 if self.gated else 1) * layer.mlp_width
        yield from self._norm_vectors("attention_norm")
        yield from self._matrix("qkv", qkv, self.width, bias=self.qkv_bias)
        if self.qk_norm:
            yield "query_norm", layer.head_dim
            yield "key_norm", layer.head_dim
        yield from self._matrix("out", self.width, layer.query_width, bias=self.out_bias)
        if self.post_norm:
            yield from self._norm_vectors("attention_post_norm")
        yield from self._norm_vectors("mlp_norm")
        yield from self._matrix(self.inner, inner, self.width, bias=self.mlp_bias)
        yield from self._matrix("down", self.width, layer.mlp_width, bias=self.mlp_bias)
        if self.post_norm:
            yield from self._norm_vectors("mlp_post_norm")

    def _matrix(self, name: str, n: int, k: int, *, bias: bool) -> Iterator[tuple[Any, ...]]:
        yield name, n, k
        if bias:
            yield f"{name}_bias", n

    def _norm_vectors(self, name: str) -> Iterator[tuple[str, int]]:
        yield name, self.width
        if self.norm == "layer":
            yield f"{name}_bias", self.width

    @property
    def n_parameters(self) -> int:
        """Number of weights, a tied matrix counted once."""
        matrices = sum(n * k for n, k in self.matrices().values())
        return matrices + sum(n for (n,) in self.vectors().values())

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the key/value memory keeps for one token, all layers."""
        return sum(2 * layer.kv_width for layer in self.layers)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object; `decoder_from_json` reads it."""
        table = asdict(self) | {"layers": [asdict(layer) for layer in self.layers]}
        if not self.ranks:
            # Readers older than factors know no such key, and need none.
            del table["ranks"]
        return table


def decoder_from_json(value: object) -> Decoder:
    """Read and validate a description that may come from outside.

    Args:
        value: a parsed JSON value.

    Returns:
        The description.

    Raises:
        InputError: if a key is unknown or missing, or a number is outside its bounds.
    """
    table = object_of(value, "decoder", {f.name for f in fields(Decoder)})
    layers = table.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MOST["n_layers"]:
        raise InputError(f"decoder: layers must be a list of 1 to {MOST['n_layers']}")
    given: dict[str, Any] = {
        key: count(table, key, "decoder", most=MOST[key])
        for key in ("vocab_size", "width", "context")
    }
    given |= {key: flag(table, key, "decoder") for key in _FLAGS}
    given |= {key: word(table, key, "decoder", words) for key, words in _WORDS.items()}
    for key in _SCALES:
        if table.get(key) is not None:
            given[key] = positive(table[key], f"decoder: {key}")
    decoder = Decoder(
        norm_epsilon=positive(table.get("norm_epsilon"), "decoder: norm_epsilon"),
        layers=tuple(_layer(item, i) for i, item in enumerate(layers)),
        rope=rope_from_json(table.get("rope", {}), "decoder: rope"),
        local_rope=None
        if table.get("local_rope") is None
        else rope_from_json(table["local_rope"], "decoder: local_rope"),
        gated=flag(table, "gated", "decoder", default=True),
        **given,
    )
    _check_rotation(decoder)
    return replace(decoder, ranks=_ranks(table.get("ranks", {}), decoder))


def _layer(value: object, i: int) -> DecoderLayer:
    where = f"decoder: layer {i}"
    table = object_of(value, where, {f.name for f in fields(DecoderLayer)})
    layer = DecoderLayer(
        n_heads=count(table, "n_heads", where, most=MOST["n_heads"]),
        n_kv_heads=count(table, "n_kv_heads", where, most=MOST["n_heads"]),
        head_dim=count(table, "head_dim", where, most=MOST["head_dim"]),
        mlp_width=count(table, "mlp_width", where, most=MOST["mlp_width"]),
        window=count({"window": 0, **table}, "window", where, least=0, most=MOST["context"]),
    )
    if layer.n_heads % layer.n_kv_heads or layer.head_dim % 2:
        raise InputError(
            f"{where}: {layer.n_heads} heads must be a multiple of {layer.n_kv_heads} key heads, "
            f"and head_dim {layer.head_dim} even"
        )
    return layer


def _ranks(value: object, decoder: Decoder) -> dict[str, int]:
    """Read which matrices are stored as factors.

    Raises:
        InputError: if a name is not that of a matrix that can be, or a rank is out of range.
    """
    shapes = decoder.matrices()
    able = shapes.keys() - set(_LOOKED_UP)
    if isinstance(value, Mapping) and (odd := sorted(set(value) & set(_LOOKED_UP))):
        raise InputError(f"decoder: ranks: {odd[0]} is looked up by rows, it cannot be factors")
    table = object_of(value, "decoder: ranks", able)
    return {name: count(table, name, "decoder: ranks", most=min(shapes[name])) for name in table}


def _check_rotation(decoder: Decoder) -> None:
    """Refuse rotary positions that do not fit the heads.

    Raises:
        InputError: if an odd number of a head's numbers, or none, would turn, or the factors of
            "longrope" are not one for each pair.
    """
    for i, layer in enumerate(decoder.layers):
        rope = decoder.rotary(i)
        if rope is None:
            continue
        rotated = rope.rotated(layer.head_dim)
        if rotated < 2 or rotated % 2:
            raise InputError(
                f"decoder: layer {i}: {rotated} numbers of a head cannot turn in pairs"
            )
        wanted = rotated // 2 if rope.scaling == "longrope" else 0
        if (found := (len(rope.short_factors), len(rope.long_factors))) != (wanted, wanted):
            raise InputError(
                f"decoder: layer {i}: rope has {found[0]} short and {found[1]} long factors, "
                f"needs {wanted} of each"
            )
