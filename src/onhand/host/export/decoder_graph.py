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

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    StringStringEntryProto,
    TensorProto,
    ValueInfoProto,
    helper,
)

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import TensorSpec

__all__ = ["decoder_graph"]

_MICROSOFT = "com.microsoft"
_ELEMENTS = {"U8": TensorProto.UINT8, "F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}
_OPSET = 21

# Tensor name -> file of the bundle, and its place there.
Places = Callable[[str], tuple[str, TensorSpec]]


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


class _Builder:
    """Collects nodes and initializers of one graph."""

    def __init__(
        self,
        decoder: Decoder,
        matrices: Mapping[str, GroupFormat | None],
        places: Places,
        accuracy_level: int,
    ) -> None:
        self.decoder = decoder
        self.matrices = matrices
        self.places = places
        self.accuracy_level = accuracy_level
        self.shapes = decoder.matrices()
        self.vectors = decoder.vectors()
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []

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
                helper.make_opsetid("", _OPSET),
                helper.make_opsetid(_MICROSOFT, 1),
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
            domain=_MICROSOFT,
            **options,
        )
        return f"{at}attended"

    def _normed_heads(self, i: int, qkv: str) -> list[str]:
        """Split query, key and value, and norm each head of the first two."""
        at, layer = f"layers.{i}.", self.decoder.layers[i]
        widths = [layer.query_width, layer.kv_width, layer.kv_width]
        sizes = self._constant(f"{at}qkv.sizes", np.array(widths))
        parts = [f"{at}query", f"{at}key", f"{at}value"]
        self._node("Split", [qkv, sizes], parts, axis=-1)
        heads = self._constant(f"{at}heads", np.array([0, 0, -1, layer.head_dim]))
        for number, (name, width) in enumerate(zip(("query", "key"), widths, strict=False)):
            self._node("Reshape", [parts[number], heads], [f"{at}{name}.heads"])
            normed = self._norm(f"{at}{name}_norm", f"{at}{name}.heads")
            flat = self._constant(f"{at}{name}.flat", np.array([0, 0, width]))
            self._node("Reshape", [normed, flat], [f"{at}{name}.normed"])
            parts[number] = f"{at}{name}.normed"
        return parts

    def _activation(self, x: str, out: str) -> None:
        kind = self.decoder.activation
        if kind == "silu":
            # QuickGelu with alpha 1 is SiLU: x * sigmoid(x) in one kernel.
            self._node("QuickGelu", [x], [out], domain=_MICROSOFT, alpha=1.0)
        elif kind == "gelu_tanh":
            self._node("FastGelu", [x], [out], domain=_MICROSOFT)
        else:
            self._node("Gelu", [x], [out], domain=_MICROSOFT)

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

    def _rows(self, name: str, ids: str) -> str:
        """Look up rows of a stored matrix."""
        form = self.matrices[name]
        out = f"{name}.rows"
        if form is None:
            self._node("Gather", [self._tensor(name), ids], [out], axis=0)
            return out
        codes, scales, zeros = self._quantized(name, form, flat=True)
        inputs = [codes, ids, scales, *([zeros] if zeros else [])]
        padded = form.n_groups(self.decoder.width) * form.group_size
        exact = padded == self.decoder.width
        self._node(
            "GatherBlockQuantized",
            inputs,
            [out if exact else f"{out}.padded"],
            domain=_MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=form.group_size,
            bits=form.bits,
        )
        if not exact:
            ends = [
                self._constant(f"{out}.{what}", np.array([value]))
                for what, value in (("start", 0), ("end", self.decoder.width), ("axis", 2))
            ]
            self._node("Slice", [f"{out}.padded", *ends], [out])
        return out

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

    def _matmul(self, name: str, x: str, *, bias: str = "", out: str = "") -> str:
        """Multiply by a matrix, factor by factor, and add a bias if there is one."""
        *before, last = self.decoder.factors(name)
        for factor in before:
            x = self._product(factor, x, out=f"{factor}.result")
        return self._product(last, x, bias=bias, out=out or f"{name}.result")

    def _product(self, name: str, x: str, *, out: str, bias: str = "") -> str:
        """Multiply by a stored matrix, and add a bias if there is one."""
        n_outputs, n_inputs = self.shapes[name]
        form = self.matrices[name]
        if form is None:
            product = f"{out}.product" if bias else out
            # The file keeps (N, K); the runtime packs it once at load.
            inputs = [x, self._tensor(name)]
            self._node("FusedMatMul", inputs, [product], domain=_MICROSOFT, transB=1)
            if bias:
                self._node("Add", [product, self._tensor(bias)], [out])
            return out
        codes, scales, zeros = self._quantized(name, form, flat=False)
        inputs = [x, codes, scales, zeros, "", self._tensor(bias) if bias else ""]
        while not inputs[-1]:
            inputs.pop()
        self._node(
            "MatMulNBits",
            inputs,
            [out],
            domain=_MICROSOFT,
            K=n_inputs,
            N=n_outputs,
            bits=form.bits,
            block_size=form.group_size,
            accuracy_level=self.accuracy_level,
        )
        return out

    def _quantized(self, name: str, form: GroupFormat, *, flat: bool) -> tuple[str, str, str]:
        """Return codes, float32 scales and zero points ("" if symmetric).

        The gather and the matrix product read the same bytes under two shapes.
        """
        shape = self.shapes[name]
        n, groups, width = form.code_shape(shape)
        suffix = ".flat" if flat else ""
        codes = self._tensor(
            f"{name}.codes",
            alias=f"{name}.codes{suffix}",
            shape=(n, groups * width) if flat else None,
        )
        scales = f"{name}.scales.f32"
        if f"{name}.scales" not in self.initializers:
            # Stored as float16; folded into float32 once, at load. A tied pair shares them.
            half = self._tensor(f"{name}.scales")
            self._node("Cast", [half], [scales], to=TensorProto.FLOAT)
        zeros = "" if form.symmetric else self._tensor(f"{name}.zeros")
        return codes, scales, zeros

    def _norm(self, weight: str, x: str) -> str:
        out = f"{weight}.normed"
        inputs = [x, *self._norm_weights(weight)]
        epsilon = self.decoder.norm_epsilon
        kind = "LayerNormalization" if len(inputs) > 2 else "SimplifiedLayerNormalization"
        self._node(kind, inputs, [out], axis=-1, epsilon=epsilon)
        return out

    def _skip_norm(self, weight: str, residual: str, x: str) -> tuple[str, str]:
        """Add to the residual stream and norm the sum, in one kernel."""
        normed, summed = f"{weight}.normed", f"{weight}.residual"
        weights = self._norm_weights(weight)
        plain = "SkipLayerNormalization" if len(weights) > 1 else "SkipSimplifiedLayerNormalization"
        self._node(
            plain,
            [residual, x, *weights],
            [normed, "", "", summed],
            domain=_MICROSOFT,
            epsilon=self.decoder.norm_epsilon,
        )
        return summed, normed

    def _norm_weights(self, name: str) -> list[str]:
        names = [name, f"{name}_bias"]
        return [self._tensor(vector) for vector in names if vector in self.vectors]

    def _tensor(self, name: str, *, alias: str = "", shape: tuple[int, ...] | None = None) -> str:
        """Declare an initializer that lies in a weights file."""
        alias = alias or name
        if alias not in self.initializers:
            file, spec = self.places(name)
            place = {"location": file, "offset": spec.offset, "length": spec.size}
            self.initializers[alias] = TensorProto(
                name=alias,
                data_type=_ELEMENTS[spec.dtype],
                dims=spec.shape if shape is None else shape,
                data_location=TensorProto.EXTERNAL,
                external_data=[
                    StringStringEntryProto(key=key, value=str(value))
                    for key, value in place.items()
                ],
            )
        return alias

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = helper.make_tensor(
            name, TensorProto.INT64, value.shape, value.astype(np.int64)
        )
        return name

    def _factor(self, name: str, value: float) -> str:
        number = np.array(value, dtype=np.float32)
        self.initializers[name] = helper.make_tensor(name, TensorProto.FLOAT, (), number[None])
        return name

    def _node(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: int | float | list[int],
    ) -> None:
        name = next(out for out in outputs if out)
        node = helper.make_node(kind, inputs, outputs, name=name, domain=domain)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in sorted(attributes.items())
        )
        self.nodes.append(node)

    def _input(self, name: str, element: int, shape: Sequence[int | str]) -> None:
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))

    def _output(self, name: str, element: int, shape: Sequence[int | str]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, element, shape))
