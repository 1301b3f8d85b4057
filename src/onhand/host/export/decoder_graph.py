"""A decoder as an ONNX graph whose weights are byte ranges of the bundle's safetensors files.

Inputs: `tokens` (1, T) int64; `rows` (R,) int64, which of the T rows go through the head;
`seqlens_k` (1,) int32 and `total_length` () int32, positions after this step less one and in
all; `position_ids` (1, T) int64 if positions are learned, else the tables that
`Decoder.rotary_tables` names, `cosines.*` and `sines.*` (context, rotated / 2);
`key.i`, `value.i` (1, n_kv_heads, context, head_dim) float32, the memory of layer i.
Outputs: `logits` (R, V) float32, and `new_key.i`, `new_value.i`, to be bound to the very buffers
of `key.i`, `value.i`: the memory then grows in place.

Rotary tables are inputs, not constants: engine and reference share one computation of them, and
a bundle does not carry megabytes that six numbers define.
"""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.export.decoder_parts import MICROSOFT, OPSET, DecoderParts, Places

__all__ = ["decoder_graph"]


def decoder_graph(
    decoder: Decoder,
    matrices: Mapping[str, GroupFormat | None],
    places: Places,
    *,
    accuracy_level: int,
) -> bytes:
    """Build the graph.

    Args:
        decoder: the model.
        matrices: name -> how each matrix is stored; None for plain float32.
        places: tensor name -> file name in the bundle and byte range in that file.
        accuracy_level: MatMulNBits setting; 4 multiplies in int8, 0 in float32.

    Returns:
        The serialised ONNX model; deterministic.
    """
    builder = _Builder(decoder, matrices, places, accuracy_level)
    content: bytes = builder.build().SerializeToString(deterministic=True)
    return content


class _Builder(DecoderParts):
    """The graph of one step."""

    def build(self) -> ModelProto:
        """Return the model."""
        decoder = self.decoder
        self._input("tokens", TensorProto.INT64, [1, "T"])
        self._input("rows", TensorProto.INT64, ["R"])
        self._input("seqlens_k", TensorProto.INT32, [1])
        self._input("total_length", TensorProto.INT32, [])
        if decoder.positions == "learned":
            self._input("position_ids", TensorProto.INT64, [1, "T"])
        for name, (rope, head_dim) in decoder.rotary_tables().items():
            for table in ("cosines", "sines"):
                half = rope.rotated(head_dim) // 2
                self._input(f"{table}.{name}", TensorProto.FLOAT, ["context", half])
        residual = self._embed()
        normed = self._norm("layers.0.attention_norm", residual)
        for i in range(len(decoder.layers)):
            residual, normed = self._layer(i, residual, normed)
        self._head(normed)
        graph: GraphProto = helper.make_graph(
            self.nodes, "decoder", self.inputs, self.outputs, list(self.initializers.values())
        )
        return helper.make_model(
            graph,
            producer_name="onhand",
            ir_version=10,
            opset_imports=[
                helper.make_opsetid("", OPSET),
                helper.make_opsetid(MICROSOFT, 1),
            ],
        )

    def _layer(self, i: int, residual: str, normed: str) -> tuple[str, str]:
        """Add one layer; returns the residual stream and the inputs of what comes next."""
        at, decoder = f"layers.{i}.", self.decoder
        attended = self._attention(i, normed)
        bias = f"{at}out_bias" if decoder.out_bias else ""
        attention = self._matmul(f"{at}out", attended, bias=bias)
        if decoder.post_norm:
            attention = self._norm(f"{at}attention_post_norm", attention)
        residual, normed = self._skip_norm(f"{at}mlp_norm", residual, attention)

        bias = f"{at}{decoder.inner}_bias" if decoder.mlp_bias else ""
        inner = self._matmul(f"{at}{decoder.inner}", normed, bias=bias)
        if decoder.gated:
            sizes = self._constant(
                f"{at}gate_up.sizes", np.array([decoder.layers[i].mlp_width] * 2)
            )
            self._node("Split", [inner, sizes], [f"{at}gate", f"{at}up"], axis=-1)
            self._activation(f"{at}gate", f"{at}activated")
            self._node("Mul", [f"{at}activated", f"{at}up"], [f"{at}inner"])
        else:
            self._activation(inner, f"{at}inner")
        bias = f"{at}down_bias" if decoder.mlp_bias else ""
        down = self._matmul(f"{at}down", f"{at}inner", bias=bias)
        if decoder.post_norm:
            down = self._norm(f"{at}mlp_post_norm", down)
        last = i + 1 == len(decoder.layers)
        following = "final_norm" if last else f"layers.{i + 1}.attention_norm"
        return self._skip_norm(following, residual, down)

    def _attention(self, i: int, normed: str) -> str:
        """Attend to the memory, which grows by the new tokens."""
        at, decoder, layer = f"layers.{i}.", self.decoder, self.decoder.layers[i]
        shape: list[int | str] = [1, layer.n_kv_heads, "context", layer.head_dim]
        for part in ("key", "value"):
            self._input(f"{part}.{i}", TensorProto.FLOAT, shape)
            self._output(f"new_{part}.{i}", TensorProto.FLOAT, shape)
        bias = f"{at}qkv_bias" if decoder.qkv_bias else ""
        inputs = [self._matmul(f"{at}qkv", normed, bias=bias), "", ""]
        if decoder.qk_norm:
            inputs = self._normed_heads(i, inputs[0])
        inputs += [f"key.{i}", f"value.{i}", "seqlens_k", "total_length"]
        rotary = decoder.rotary_name(i)
        if rotary is not None:
            inputs += [f"cosines.{rotary}", f"sines.{rotary}"]
        options: dict[str, int | float] = {
            "num_heads": layer.n_heads,
            "kv_num_heads": layer.n_kv_heads,
            "do_rotary": int(rotary is not None),
            "rotary_interleaved": 0,
            "scale": decoder.score_scale(i),
        }
        if layer.window:
            options["local_window_size"] = layer.window
        if decoder.attention_softcap is not None:
            options["softcap"] = decoder.attention_softcap
        self._node(
            "GroupQueryAttention",
            inputs,
            [f"{at}attended", f"new_key.{i}", f"new_value.{i}"],
            domain=MICROSOFT,
            **options,
        )
        return f"{at}attended"

    def _embed(self) -> str:
        """Look up the tokens, and their positions if those are learned."""
        found = self._rows("embed", "tokens")
        if self.decoder.embed_scale != 1.0:
            scale = self._factor("embed.scale", self.decoder.embed_scale)
            self._node("Mul", [found, scale], ["embed.scaled"])
            found = "embed.scaled"
        if self.decoder.positions == "learned":
            self._node("Add", [found, self._rows("positions", "position_ids")], ["embed.placed"])
            found = "embed.placed"
        return found

    def _head(self, normed: str) -> None:
        """Send only the chosen rows through the head: a prompt needs its last one."""
        self._node("Gather", [normed, "rows"], ["chosen"], axis=1)  # (1, R, D)
        scores = self._matmul(self.decoder.head, "chosen", out="scores")
        if self.decoder.logit_softcap is not None:
            cap = self._factor("logits.cap", self.decoder.logit_softcap)
            self._node("Div", [scores, cap], ["scores.within"])
            self._node("Tanh", ["scores.within"], ["scores.tanh"])
            self._node("Mul", ["scores.tanh", cap], ["scores.capped"])
            scores = "scores.capped"
        shape = self._constant("logits.shape", np.array([-1, self.decoder.vocab_size]))
        self._node("Reshape", [scores, shape], ["logits"])
        self._output("logits", TensorProto.FLOAT, ["R", self.decoder.vocab_size])

    def _skip_norm(self, weight: str, residual: str, x: str) -> tuple[str, str]:
        """Add to the residual stream and norm the sum, in one kernel."""
        normed, summed = f"{weight}.normed", f"{weight}.residual"
        weights = self._norm_weights(weight)
        plain = "SkipLayerNormalization" if len(weights) > 1 else "SkipSimplifiedLayerNormalization"
        self._node(
            plain,
            [residual, x, *weights],
            [normed, "", "", summed],
            domain=MICROSOFT,
            epsilon=self.decoder.norm_epsilon,
        )
        return summed, normed
