"""One description of a decoder-only transformer, with options for every family.

A model family is a set of options here, not a file of its own. The description travels in the
bundle's manifest; every engine builds its computation from it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = ["Decoder", "DecoderLayer", "Rope", "decoder_from_json"]

# Bounds for what an outsider may write into a manifest: far above any model that fits a device.
_MOST = {
    "vocab_size": 2**22,
    "width": 2**17,
    "context": 2**20,
    "n_layers": 1024,
    "n_heads": 4096,
    "head_dim": 4096,
    "mlp_width": 2**20,
    "original_context": 2**24,
}
_LARGEST = 1e12  # of a factor, a base or an epsilon: float32 still holds its products


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position embedding.

    Attributes:
        theta: base of the geometric series of wavelengths.
        scaling: "default", "linear", "llama3" or "yarn".
        factor: how many times the context was stretched (all but "default").
        original_context: context before stretching ("llama3", "yarn").
        low_freq_factor: "llama3": wavelengths above original_context / this are stretched fully.
        high_freq_factor: "llama3": wavelengths below original_context / this stay.
        beta_fast: "yarn": rotations above which a dimension stays.
        beta_slow: "yarn": rotations below which a dimension is stretched fully.
        attention_factor: "yarn": factor on cosines and sines; None computes it.

    Source:
        RoPE: arXiv:2104.09864. YaRN: arXiv:2309.00071. "llama3": Llama 3.1's published code,
        as in transformers `modeling_rope_utils.py`.
    """

    theta: float = 10000.0
    scaling: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def inverse_frequencies(self, head_dim: int) -> FloatArray:
        """Return the angle per position of each pair: (head_dim // 2,) float32."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        plain: FloatArray = (1.0 / np.float32(self.theta) ** exponents).astype(np.float32)
        if self.scaling == "linear":
            return (plain / np.float32(self.factor)).astype(np.float32)
        if self.scaling == "llama3":
            return self._llama3(plain)
        if self.scaling == "yarn":
            return self._yarn(plain, head_dim)
        return plain

    def tables(self, head_dim: int, context: int) -> tuple[FloatArray, FloatArray]:
        """Return cosines and sines by position, each (context, head_dim // 2)."""
        angles = np.outer(
            np.arange(context, dtype=np.float32), self.inverse_frequencies(head_dim)
        )  # (context, head_dim // 2)
        scale = np.float32(self._scale())
        return np.cos(angles) * scale, np.sin(angles) * scale

    def _scale(self) -> float:
        if self.scaling != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def _llama3(self, plain: FloatArray) -> FloatArray:
        wavelength = 2 * np.pi / plain
        low = self.original_context / self.low_freq_factor
        high = self.original_context / self.high_freq_factor
        smooth = (self.original_context / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        between = (1 - smooth) * plain / self.factor + smooth * plain
        stretched = np.where(wavelength > low, plain / self.factor, plain)
        middle = (wavelength <= low) & (wavelength >= high)
        result: FloatArray = np.where(middle, between, stretched).astype(np.float32)
        return result

    def _yarn(self, plain: FloatArray, head_dim: int) -> FloatArray:
        def dimension(rotations: float) -> float:
            length = self.original_context / (rotations * 2 * math.pi)
            return head_dim * math.log(length) / (2 * math.log(self.theta))

        low = max(math.floor(dimension(self.beta_fast)), 0)
        high = min(math.ceil(dimension(self.beta_slow)), head_dim - 1)
        steps = np.arange(head_dim // 2, dtype=np.float32)
        ramp = np.clip((steps - low) / max(high - low, 0.001), 0, 1)
        keep = 1 - ramp
        mixed: FloatArray = (plain / self.factor * (1 - keep) + plain * keep).astype(np.float32)
        return mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """Sizes of one layer; layers may differ.

    Attributes:
        n_heads: query heads.
        n_kv_heads: key and value heads; divides `n_heads` (grouped-query attention).
        head_dim: width of one head.
        mlp_width: width inside the gated MLP.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    mlp_width: int

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
    """A decoder-only transformer: pre-norm attention with rotary positions, gated MLP.

    Attributes:
        vocab_size: rows of the embedding and of the head.
        width: width of the residual stream.
        context: most tokens that the model was made for.
        norm_epsilon: added to the mean square in RMSNorm.
        layers: the layers, first to last.
        rope: rotary positions.
        tied: whether the head is the embedding matrix.
        qkv_bias: whether query, key and value have a bias (Qwen2).
        out_bias: whether the attention output has a bias.
        mlp_bias: whether the MLP's matrices have a bias.
    """

    vocab_size: int
    width: int
    context: int
    norm_epsilon: float
    layers: tuple[DecoderLayer, ...]
    rope: Rope = field(default_factory=Rope)
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return name -> (N, K) of every weight matrix, in the order of the computation.

        Query, key and value are one matrix, and gate and up are one: rows are concatenated, so
        that one pass over the input computes them.
        """
        shapes = {"embed": (self.vocab_size, self.width)}
        for i, layer in enumerate(self.layers):
            shapes[f"layers.{i}.qkv"] = (layer.query_width + 2 * layer.kv_width, self.width)
            shapes[f"layers.{i}.out"] = (self.width, layer.query_width)
            shapes[f"layers.{i}.gate_up"] = (2 * layer.mlp_width, self.width)
            shapes[f"layers.{i}.down"] = (self.width, layer.mlp_width)
        if not self.tied:
            shapes["head"] = (self.vocab_size, self.width)
        return shapes

    def vectors(self) -> dict[str, tuple[int]]:
        """Return name -> (width,) of every norm and bias."""
        shapes: dict[str, tuple[int]] = {}
        for i, layer in enumerate(self.layers):
            shapes[f"layers.{i}.attention_norm"] = (self.width,)
            if self.qkv_bias:
                shapes[f"layers.{i}.qkv_bias"] = (layer.query_width + 2 * layer.kv_width,)
            if self.out_bias:
                shapes[f"layers.{i}.out_bias"] = (self.width,)
            shapes[f"layers.{i}.mlp_norm"] = (self.width,)
            if self.mlp_bias:
                shapes[f"layers.{i}.gate_up_bias"] = (2 * layer.mlp_width,)
                shapes[f"layers.{i}.down_bias"] = (self.width,)
        shapes["final_norm"] = (self.width,)
        return shapes

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
        return asdict(self) | {"layers": [asdict(layer) for layer in self.layers]}


def decoder_from_json(value: object) -> Decoder:
    """Read and validate a description that may come from outside.

    Args:
        value: a parsed JSON value.

    Returns:
        The description.

    Raises:
        InputError: if a key is unknown or missing, or a number is outside its bounds.
    """
    table = _table(value, "decoder", {f.name for f in fields(Decoder)})
    layers = table.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _MOST["n_layers"]:
        raise InputError(f"decoder: layers must be a list of 1 to {_MOST['n_layers']}")
    sizes = {key: _count(table, key, "decoder") for key in ("vocab_size", "width", "context")}
    flags = {key: _flag(table, key) for key in ("tied", "qkv_bias", "out_bias", "mlp_bias")}
    return Decoder(
        vocab_size=sizes["vocab_size"],
        width=sizes["width"],
        context=sizes["context"],
        norm_epsilon=_positive(table.get("norm_epsilon"), "decoder: norm_epsilon"),
        layers=tuple(_layer(item, i) for i, item in enumerate(layers)),
        rope=_rope(table.get("rope", {})),
        tied=flags["tied"],
        qkv_bias=flags["qkv_bias"],
        out_bias=flags["out_bias"],
        mlp_bias=flags["mlp_bias"],
    )


def _layer(value: object, i: int) -> DecoderLayer:
    where = f"decoder: layer {i}"
    table = _table(value, where, {f.name for f in fields(DecoderLayer)})
    layer = DecoderLayer(
        n_heads=_count(table, "n_heads", where),
        n_kv_heads=_count(table, "n_kv_heads", where, most="n_heads"),
        head_dim=_count(table, "head_dim", where),
        mlp_width=_count(table, "mlp_width", where),
    )
    if layer.n_heads % layer.n_kv_heads or layer.head_dim % 2:
        raise InputError(
            f"{where}: {layer.n_heads} heads must be a multiple of {layer.n_kv_heads} key heads, "
            f"and head_dim {layer.head_dim} even"
        )
    return layer


def _rope(value: object) -> Rope:
    table = _table(value, "decoder: rope", {f.name for f in fields(Rope)})
    given: dict[str, Any] = {
        key: _positive(number, f"decoder: rope: {key}")
        for key, number in table.items()
        if key not in {"scaling", "original_context"}
        and not (key == "attention_factor" and number is None)
    }
    if table.get("original_context", 0) != 0:
        given["original_context"] = _count(table, "original_context", "decoder: rope")
    if "scaling" in table:
        given["scaling"] = table["scaling"]
    rope = Rope(**given)
    if rope.scaling not in ("default", "linear", "llama3", "yarn"):
        raise InputError(f"decoder: rope: unknown scaling {rope.scaling!r}")
    if rope.theta <= 1:
        raise InputError(f"decoder: rope: theta is {rope.theta}, must be above 1")
    if rope.scaling in {"llama3", "yarn"} and rope.original_context < 1:
        raise InputError(f"decoder: rope: {rope.scaling} needs original_context")
    if rope.low_freq_factor >= rope.high_freq_factor or rope.beta_slow >= rope.beta_fast:
        raise InputError("decoder: rope: low_freq_factor and beta_slow must be the smaller ones")
    return rope


def _table(value: object, where: str, known: set[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: must be a JSON object, found {type(value).__name__}")
    if unknown := sorted(set(value) - known):
        raise InputError(f"{where}: unknown key {unknown[0]!r}")
    return value


def _count(table: Mapping[str, object], key: str, where: str, *, most: str = "") -> int:
    value = table.get(key)
    limit = _MOST[most or key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise InputError(f"{where}: {key} is {value!r}, must be a whole number from 1 to {limit}")
    return value


def _positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise InputError(f"{where} is {value!r}, must be a number above 0, at most {_LARGEST:g}")
    return float(value)


def _flag(table: Mapping[str, object], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"decoder: {key} is {value!r}, must be true or false")
    return value
