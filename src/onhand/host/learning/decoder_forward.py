"""The forward pass of a lesson: a decoder over whole texts, with factors of low rank as inputs.

It is the computation of `device.engines.forward` from operators that can be differentiated.
Attention sees a whole text at once, so there is no memory; texts are padded at their right, where
nothing that is scored can see it, so there is no mask among the inputs either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.export.decoder_parts import MICROSOFT, OPSET, DecoderParts, Places

__all__ = ["EXACT", "LOGITS", "LowRank", "decoder_forward"]

EXACT: Final = 0
"""MatMulNBits in float32: rounding what is multiplied to int8 would change every gradient."""
LOGITS: Final = "logits"
"""The tensor with the logits of the scored rows, (R, V)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """What is added to some matrices: alpha / rank * B A.

    Attributes:
        targets: names of whole matrices, as in `Decoder.whole_tensors`.
        rank: of each of them.
        alpha: of the scale.
    """

    targets: tuple[str, ...]
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """The factor on B A."""
        return self.alpha / self.rank


def decoder_forward(
    decoder: Decoder,
    matrices: Mapping[str, GroupFormat | None],
    places: Places,
    added: LowRank,
) -> ModelProto:
    """Build the graph up to its logits.

    Args:
        decoder: the model.
        matrices: name -> how each matrix is stored; None for plain float32.
        places: tensor name -> file name in the bundle and byte range in that file.
        added: what is learned.

    Returns:
        A graph without outputs, whose tensor `LOGITS` is (R, V).
    """
    return _Forward(decoder, matrices, places, added).build()


class _Forward(DecoderParts):
    """Tensors are (B, S, width), heads (B, heads, S, head_dim)."""

    def __init__(
        self,
        decoder: Decoder,
        matrices: Mapping[str, GroupFormat | None],
        places: Places,
        added: LowRank,
    ) -> None:
        super().__init__(decoder, matrices, places, EXACT)
        self.added = added
        self.shown: dict[str, list[int | str]] = {}
        self._masks: dict[tuple[int, int], str] = {}

    def build(self) -> ModelProto:
        """Return the model."""
        decoder = self.decoder
        self._input("tokens", TensorProto.INT64, ["B", "S"])
        self._input("rows", TensorProto.INT64, ["R"])
        for name, (rope, head_dim) in decoder.rotary_tables().items():
            for table in ("cosines", "sines"):
                half = rope.rotated(head_dim) // 2
                self._input(f"{table}.{name}", TensorProto.FLOAT, ["S", half])
        for name in self.added.targets:
            n_outputs, n_inputs = decoder.whole_tensors()[name]
            rank = self.added.rank
            self._input(f"{name}.lora_A", TensorProto.FLOAT, [rank, n_inputs])
            self._input(f"{name}.lora_B", TensorProto.FLOAT, [n_outputs, rank])
        self._places()
        residual = self._embed()
        for i in range(len(decoder.layers)):
            residual = self._layer(i, residual)
        self._head(self._norm("final_norm", residual))
        graph: GraphProto = helper.make_graph(
            self.nodes,
            "lesson",
            self.inputs,
            [],
            list(self.initializers.values()),
            value_info=[
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.shown.items()
            ],
        )
        return helper.make_model(
            graph,
            producer_name="onhand",
            ir_version=10,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        )

    def _places(self) -> None:
        """Number the tokens of a text: `places` (S,)."""
        self._node("Shape", ["tokens"], ["length"], start=1, end=2)
        axis = self._constant("axis.first", np.array([0]))
        self._node("Squeeze", ["length", axis], ["length.number"])
        first, step = (self._number(f"places.{what}", i) for i, what in enumerate(("from", "by")))
        self._node("Range", [first, "length.number", step], ["places"])

    def _embed(self) -> str:
        found = self._rows("embed", "tokens")
        if self.decoder.embed_scale != 1.0:
            scale = self._factor("embed.scale", self.decoder.embed_scale)
            self._node("Mul", [found, scale], ["embed.scaled"])
            found = "embed.scaled"
        if self.decoder.positions == "learned":
            self._node("Unsqueeze", ["places", "axis.first"], ["places.row"])  # (1, S)
            self._node("Add", [found, self._rows("positions", "places.row")], ["embed.placed"])
            found = "embed.placed"
        self.shown[found] = ["B", "S", self.decoder.width]
        return found

    def _layer(self, i: int, residual: str) -> str:
        """Add one layer; returns the residual stream."""
        at, decoder = f"layers.{i}.", self.decoder
        normed = self._norm(f"{at}attention_norm", residual)
        attended = self._attention(i, self._learned(f"{at}qkv", normed, bias=decoder.qkv_bias))
        attention = self._learned(f"{at}out", attended, bias=decoder.out_bias)
        if decoder.post_norm:
            attention = self._norm(f"{at}attention_post_norm", attention)
        self._node("Add", [residual, attention], [f"{at}middle"])

        normed = self._norm(f"{at}mlp_norm", f"{at}middle")
        inner = self._learned(f"{at}{decoder.inner}", normed, bias=decoder.mlp_bias)
        if decoder.gated:
            widths = np.array([decoder.layers[i].mlp_width] * 2)
            sizes = self._constant(f"{at}gate_up.sizes", widths)
            self._node("Split", [inner, sizes], [f"{at}gate", f"{at}up.rest"], axis=-1)
            self._activation(f"{at}gate", f"{at}activated")
            self._node("Mul", [f"{at}activated", f"{at}up.rest"], [f"{at}inner"])
        else:
            self._activation(inner, f"{at}inner")
        down = self._learned(f"{at}down", f"{at}inner", bias=decoder.mlp_bias)
        if decoder.post_norm:
            down = self._norm(f"{at}mlp_post_norm", down)
        self._node("Add", [f"{at}middle", down], [f"{at}after"])
        return f"{at}after"

    def _learned(self, name: str, x: str, *, bias: bool) -> str:
        """Multiply by a matrix, and add what is learned of it."""
        product = self._matmul(name, x, bias=f"{name}_bias" if bias else "")
        if name in self.added.targets:
            low, high, both = (f"{name}.{part}" for part in ("low", "high", "learned"))
            inputs, options = [x, f"{name}.lora_A"], {"transB": 1}
            self._node("FusedMatMul", inputs, [low], domain=MICROSOFT, **options)
            inputs, scale = [low, f"{name}.lora_B"], float(self.added.scale)
            self._node("FusedMatMul", inputs, [high], domain=MICROSOFT, alpha=scale, transB=1)
            self._node("Add", [product, high], [both])
            product = both
        self.shown[product] = ["B", "S", self.decoder.whole_tensors()[name][0]]
        return product

    def _attention(self, i: int, qkv: str) -> str:
        """Let each token attend to those before it: (B, S, query_width)."""
        at, layer = f"layers.{i}.", self.decoder.layers[i]
        shared = layer.n_heads // layer.n_kv_heads
        query, key, value = self._heads(i, qkv)
        rows = f"{shared}S" if shared > 1 else "S"
        # Query heads that share a key head follow each other: they are more rows of one product.
        grouped: list[int | str] = ["B", layer.n_kv_heads, rows, layer.head_dim]
        if shared > 1:
            sizes = np.array([0, layer.n_kv_heads, -1, layer.head_dim])
            query = self._reshaped(query, f"{at}query.grouped", sizes, grouped)
        scale = self.decoder.score_scale(i)
        self._node(
            "FusedMatMul", [query, key], [f"{at}scores"], domain=MICROSOFT, alpha=scale, transB=1
        )
        scores = self._capped(f"{at}scores", self.decoder.attention_softcap)
        self._node("Add", [scores, self._mask(layer.window, shared)], [f"{at}seen"])
        self._node("Softmax", [f"{at}seen"], [f"{at}share"], axis=-1)
        for name in (f"{at}scores", f"{at}seen", f"{at}share"):
            self.shown[name] = ["B", layer.n_kv_heads, rows, "S"]
        self._node("MatMul", [f"{at}share", value], [f"{at}mixed"])
        self.shown[f"{at}mixed"] = grouped
        mixed = f"{at}mixed"
        if shared > 1:
            by_head: list[int | str] = ["B", layer.n_heads, "S", layer.head_dim]
            sizes = np.array([0, layer.n_heads, -1, layer.head_dim])
            mixed = self._reshaped(mixed, f"{at}mixed.heads", sizes, by_head)
        self._node("Transpose", [mixed], [f"{at}mixed.rows"], perm=[0, 2, 1, 3])
        flat = np.array([0, 0, layer.query_width])
        shown: list[int | str] = ["B", "S", layer.query_width]
        return self._reshaped(f"{at}mixed.rows", f"{at}attended", flat, shown)

    def _heads(self, i: int, qkv: str) -> list[str]:
        """Split query, key and value, norm and turn the first two: (B, heads, S, head_dim)."""
        at, decoder, layer = f"layers.{i}.", self.decoder, self.decoder.layers[i]
        if decoder.qk_norm:
            parts = self._normed_heads(i, qkv)
        else:
            widths = [layer.query_width, layer.kv_width, layer.kv_width]
            ends = self._constant(f"{at}qkv.sizes", np.array(widths))
            parts = [f"{at}query", f"{at}key", f"{at}value"]
            self._node("Split", [qkv, ends], parts, axis=-1)
        counts = (layer.n_heads, layer.n_kv_heads, layer.n_kv_heads)
        found: list[str] = []
        for name, part, n_heads in zip(("query", "key", "value"), parts, counts, strict=True):
            self.shown[part] = ["B", "S", n_heads * layer.head_dim]
            turned = part if name == "value" else self._turned(i, name, part, n_heads)
            sizes = np.array([0, 0, n_heads, layer.head_dim])
            shown: list[int | str] = ["B", "S", n_heads, layer.head_dim]
            split = self._reshaped(turned, f"{at}{name}.split", sizes, shown)
            self._node("Transpose", [split], [f"{at}{name}.by_head"], perm=[0, 2, 1, 3])
            self.shown[f"{at}{name}.by_head"] = ["B", n_heads, "S", layer.head_dim]
            found.append(f"{at}{name}.by_head")
        return found

    def _turned(self, i: int, name: str, part: str, n_heads: int) -> str:
        """Turn each head's pairs by their position's angle."""
        table, layer = self.decoder.rotary_name(i), self.decoder.layers[i]
        rope = self.decoder.rotary(i)
        if table is None or rope is None:
            return part
        out = f"layers.{i}.{name}.turned"
        rotated = rope.rotated(layer.head_dim)
        options = {"num_heads": n_heads}
        if rotated < layer.head_dim:
            options["rotary_embedding_dim"] = rotated
        inputs = [part, "axis.first", f"cosines.{table}", f"sines.{table}"]
        self._node("RotaryEmbedding", inputs, [out], domain=MICROSOFT, **options)
        self.shown[out] = ["B", "S", n_heads * layer.head_dim]
        return out

    def _mask(self, window: int, shared: int) -> str:
        """Return what is added to scores: 0 where a token may look, else -infinity."""
        key = (window, shared)
        if key in self._masks:
            return self._masks[key]
        name = f"mask.{window}"
        if not any(known == window for known, _ in self._masks):
            last = self._constant("axis.last", np.array([-1]))
            self._node("Unsqueeze", ["places", last], [f"{name}.at"])  # (S, 1)
            self._node("LessOrEqual", ["places", f"{name}.at"], [f"{name}.before"])  # (S, S)
            visible = f"{name}.before"
            if window:
                size = self._number(f"{name}.window", window)
                self._node("Sub", [f"{name}.at", size], [f"{name}.edge"])
                self._node("Greater", ["places", f"{name}.edge"], [f"{name}.near"])
                self._node("And", [visible, f"{name}.near"], [f"{name}.visible"])
                visible = f"{name}.visible"
            seen, hidden = self._factor("mask.seen", 0.0), self._factor("mask.hidden", -np.inf)
            self._node("Where", [visible, seen, hidden], [name])
            self.shown[name] = ["S", "S"]
        found = name
        if shared > 1:
            found = f"{name}.x{shared}"
            self._node("Concat", [name] * shared, [found], axis=0)
            self.shown[found] = [f"{shared}S", "S"]
        self._masks[key] = found
        return found

    def _head(self, normed: str) -> None:
        """Send only the scored rows through the head."""
        width = self.decoder.width
        flat = self._reshaped(normed, "hidden", np.array([-1, width]), ["BS", width])
        self._node("Gather", [flat, "rows"], ["chosen"], axis=0)
        self.shown["chosen"] = ["R", width]
        cap = self.decoder.logit_softcap
        out = LOGITS if cap is None else "scores"
        found = self._matmul(self.decoder.head, "chosen", out=out)
        found = self._capped(found, cap, out=LOGITS)
        self.shown[LOGITS] = ["R", self.decoder.vocab_size]

    def _capped(self, scores: str, cap: float | None, *, out: str = "") -> str:
        """Keep numbers within -cap .. cap."""
        if cap is None:
            return scores
        size = self._factor(f"{scores}.cap", cap)
        within, bent, out = f"{scores}.within", f"{scores}.tanh", out or f"{scores}.capped"
        self._node("Div", [scores, size], [within])
        self._node("Tanh", [within], [bent])
        self._node("Mul", [bent, size], [out])
        return out

    def _reshaped(self, x: str, out: str, sizes: np.ndarray, shown: list[int | str]) -> str:
        self._node("Reshape", [x, self._constant(f"{out}.sizes", sizes)], [out])
        self.shown[out] = shown
        return out

    def _number(self, name: str, value: int) -> str:
        self.initializers[name] = helper.make_tensor(name, TensorProto.INT64, (), [value])
        return name
