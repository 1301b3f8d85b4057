"""A decoder as an ONNX graph whose weights are byte ranges of the bundle's safetensors files.

Inputs: `tokens` (1, T) int64; `rows` (R,) int64, which of the T rows go through the head;
`seqlens_k` (1,) int32 and `total_length` () int32, positions after this step less one and in
all; `cosines` and `sines` (context, head_dim / 2), by head_dim where layers differ;
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
        for head_dim in sorted({layer.head_dim for layer in decoder.layers}):
            for table in ("cosines", "sines"):
                name = f"{table}.{head_dim}"
                self._input(name, TensorProto.FLOAT, ["context", head_dim // 2])
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
        at, decoder, layer = f"layers.{i}.", self.decoder, self.decoder.layers[i]
        shape: list[int | str] = [1, layer.n_kv_heads, "context", layer.head_dim]
        for part in ("key", "value"):
            self._input(f"{part}.{i}", TensorProto.FLOAT, shape)
            self._output(f"new_{part}.{i}", TensorProto.FLOAT, shape)
        bias = f"{at}qkv_bias" if decoder.qkv_bias else ""
        qkv = self._matmul(f"{at}qkv", normed, bias=bias)
        tables = (f"cosines.{layer.head_dim}", f"sines.{layer.head_dim}")
        memory = (f"key.{i}", f"value.{i}", "seqlens_k", "total_length")
        self._node(
            "GroupQueryAttention",
            [qkv, "", "", *memory, *tables],
            [f"{at}attended", f"new_key.{i}", f"new_value.{i}"],
            domain=_MICROSOFT,
            num_heads=layer.n_heads,
            kv_num_heads=layer.n_kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=float(layer.head_dim**-0.5),
        )
        bias = f"{at}out_bias" if decoder.out_bias else ""
        attention = self._matmul(f"{at}out", f"{at}attended", bias=bias)
        residual, normed = self._skip_norm(f"{at}mlp_norm", residual, attention)

        bias = f"{at}gate_up_bias" if decoder.mlp_bias else ""
        both = self._matmul(f"{at}gate_up", normed, bias=bias)
        sizes = self._constant(f"{at}gate_up.sizes", np.array([layer.mlp_width] * 2))
        self._node("Split", [both, sizes], [f"{at}gate", f"{at}up"], axis=-1)
        # QuickGelu with alpha 1 is SiLU: x * sigmoid(x) in one kernel.
        self._node("QuickGelu", [f"{at}gate"], [f"{at}activated"], domain=_MICROSOFT, alpha=1.0)
        self._node("Mul", [f"{at}activated", f"{at}up"], [f"{at}inner"])
        bias = f"{at}down_bias" if decoder.mlp_bias else ""
        down = self._matmul(f"{at}down", f"{at}inner", bias=bias)
        last = i + 1 == len(decoder.layers)
        following = "final_norm" if last else f"layers.{i + 1}.attention_norm"
        return self._skip_norm(following, residual, down)

    def _embed(self) -> str:
        form = self.matrices["embed"]
        if form is None:
            self._node("Gather", [self._tensor("embed"), "tokens"], ["embedded"], axis=0)
            return "embedded"
        codes, scales, zeros = self._quantized("embed", form, flat=True)
        inputs = [codes, "tokens", scales, *([zeros] if zeros else [])]
        padded = form.n_groups(self.decoder.width) * form.group_size
        exact = padded == self.decoder.width
        self._node(
            "GatherBlockQuantized",
            inputs,
            ["embedded" if exact else "embedded.padded"],
            domain=_MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=form.group_size,
            bits=form.bits,
        )
        if not exact:
            ends = [
                self._constant(f"embedded.{what}", np.array([value]))
                for what, value in (("start", 0), ("end", self.decoder.width), ("axis", 2))
            ]
            self._node("Slice", ["embedded.padded", *ends], ["embedded"])
        return "embedded"

    def _head(self, normed: str) -> None:
        """Send only the chosen rows through the head: a prompt needs its last one."""
        self._node("Gather", [normed, "rows"], ["chosen"], axis=1)  # (1, R, D)
        scores = self._matmul("embed" if self.decoder.tied else "head", "chosen", out="scores")
        shape = self._constant("logits.shape", np.array([-1, self.decoder.vocab_size]))
        self._node("Reshape", [scores, shape], ["logits"])
        self._output("logits", TensorProto.FLOAT, ["R", self.decoder.vocab_size])

    def _matmul(self, name: str, x: str, *, bias: str = "", out: str = "") -> str:
        """Multiply by a stored matrix, and add a bias if there is one."""
        n_outputs, n_inputs = self.decoder.matrices()[name]
        out = out or f"{name}.result"
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
        shape = self.decoder.matrices()[name]
        n, groups, width = form.code_shape(shape)
        suffix = ".flat" if flat else ""
        codes = self._tensor(
            f"{name}.codes",
            alias=f"{name}.codes{suffix}",
            shape=(n, groups * width) if flat else None,
        )
        scales = f"{name}.scales.f32"
        if not any(node.output[0] == scales for node in self.nodes if node.op_type == "Cast"):
            # Stored as float16; folded into float32 once, at load.
            half = self._tensor(f"{name}.scales")
            self._node("Cast", [half], [scales], to=TensorProto.FLOAT)
        zeros = "" if form.symmetric else self._tensor(f"{name}.zeros")
        return codes, scales, zeros

    def _norm(self, weight: str, x: str) -> str:
        out = f"{weight}.normed"
        inputs = [x, self._tensor(weight)]
        epsilon = self.decoder.norm_epsilon
        self._node("SimplifiedLayerNormalization", inputs, [out], axis=-1, epsilon=epsilon)
        return out

    def _skip_norm(self, weight: str, residual: str, x: str) -> tuple[str, str]:
        """Add to the residual stream and norm the sum, in one kernel."""
        normed, summed = f"{weight}.normed", f"{weight}.residual"
        self._node(
            "SkipSimplifiedLayerNormalization",
            [residual, x, self._tensor(weight)],
            [normed, "", "", summed],
            domain=_MICROSOFT,
            epsilon=self.decoder.norm_epsilon,
        )
        return summed, normed

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
