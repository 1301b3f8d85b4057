"""Parts that graphs of decoders are made of: stored matrices, norms, activations, nodes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import TensorSpec

__all__ = ["MICROSOFT", "OPSET", "DecoderParts", "Places"]

MICROSOFT: Final = "com.microsoft"
OPSET: Final = 21
_ELEMENTS = {"U8": TensorProto.UINT8, "F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}

# Tensor name -> file of the bundle, and its place there.
Places = Callable[[str], tuple[str, TensorSpec]]


class DecoderParts:
    """Collects nodes and initializers of one graph; graphs of decoders derive from it."""

    def __init__(
        self,
        decoder: Decoder,
        matrices: Mapping[str, GroupFormat | None],
        places: Places,
        accuracy_level: int,
    ) -> None:
        """Begin with nothing.

        Args:
            decoder: the model.
            matrices: name -> how each matrix is stored; None for plain float32.
            places: tensor name -> file name in the bundle and byte range in that file.
            accuracy_level: MatMulNBits setting; 4 multiplies in int8, 0 in float32.
        """
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
            self._node("QuickGelu", [x], [out], domain=MICROSOFT, alpha=1.0)
        elif kind == "gelu_tanh":
            self._node("FastGelu", [x], [out], domain=MICROSOFT)
        else:
            self._node("Gelu", [x], [out], domain=MICROSOFT)

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
            domain=MICROSOFT,
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
            self._node("FusedMatMul", inputs, [product], domain=MICROSOFT, transB=1)
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
            domain=MICROSOFT,
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
