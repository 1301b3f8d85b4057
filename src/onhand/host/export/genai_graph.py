"""The bundle's graph with the inputs and outputs that onnxruntime-genai feeds.

Inputs: `input_ids` (B, T) int64; `attention_mask` (B, S) int64, 1 for each token so far, S of them
with the T new ones; `position_ids` (B, T) int64 if positions are learned;
`past_key_values.I.key`, `past_key_values.I.value` (B, n_kv_heads, P, head_dim) float32.
Outputs: `logits` (B, 1, V) float32, after the last token; `present.I.key`, `present.I.value`.

What was an input of ours and never changes, such as rotary tables, becomes a constant.

Source:
    onnxruntime-genai: src/python/py/models/builders/base.py (names, attention mask, pruned head).
"""

from collections.abc import Callable, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import TensorSpec
from onhand.host.export.decoder_graph import decoder_graph

__all__ = ["genai_graph", "rotary_constants"]

Places = Callable[[str], tuple[str, TensorSpec]]


def rotary_constants(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """Return name -> shape of every rotary table that the graph reads from the weights file.

    Scaling that changes with the conversation's length has two sets of tables; those of long
    conversations end in ".long".
    """
    shapes: dict[str, tuple[int, int]] = {}
    for name, (rope, head_dim) in decoder.rotary_tables().items():
        for table in ("cosines", "sines"):
            shape = (decoder.context, rope.rotated(head_dim) // 2)
            shapes[f"{table}.{name}"] = shape
            if rope.is_long(decoder.context):
                shapes[f"{table}.{name}.long"] = shape
    return shapes


def genai_graph(
    decoder: Decoder,
    matrices: Mapping[str, GroupFormat | None],
    places: Places,
    *,
    accuracy_level: int,
) -> bytes:
    """Build the graph.

    Args:
        decoder: the model; every layer has the same key heads.
        matrices: name -> how each matrix is stored; None for plain float32.
        places: tensor name, those of `rotary_constants` too -> file name and byte range.
        accuracy_level: MatMulNBits setting.

    Returns:
        The serialised ONNX model; deterministic.
    """
    content = decoder_graph(decoder, matrices, places, accuracy_level=accuracy_level)
    model: ModelProto = ModelProto.FromString(content)
    graph = model.graph
    names = _names(len(decoder.layers))
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    nodes = [*_lengths(), *_tables(decoder), *graph.node, _last_row()]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(_constants(decoder))
    for name, (_, half) in rotary_constants(decoder).items():
        graph.initializer.append(
            _external(_stored(decoder, name), (decoder.context, half), places(name))
        )
    graph.input.extend(_inputs(decoder))
    graph.output.extend(_outputs(decoder))
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def _names(n_layers: int) -> dict[str, str]:
    """Return our names of inputs and outputs -> onnxruntime-genai's."""
    names = {"tokens": "input_ids", "logits": "logits.rows"}
    for i in range(n_layers):
        for part in ("key", "value"):
            names[f"{part}.{i}"] = f"past_key_values.{i}.{part}"
            names[f"new_{part}.{i}"] = f"present.{i}.{part}"
    return names


def _lengths() -> list[NodeProto]:
    """Count the mask: tokens of each conversation less one, and of all."""
    return [
        helper.make_node("ReduceSum", ["attention_mask", "mask.axis"], ["mask.sum"], keepdims=0),
        helper.make_node("Sub", ["mask.sum", "mask.one"], ["mask.last"]),
        helper.make_node("Cast", ["mask.last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["mask.shape"]),
        helper.make_node("Gather", ["mask.shape", "mask.tokens"], ["mask.total"], axis=0),
        helper.make_node("Cast", ["mask.total"], ["total_length"], to=TensorProto.INT32),
    ]


def _constants(decoder: Decoder) -> list[TensorProto]:
    values = {
        "rows": [-1],  # a prompt needs its last row
        "mask.axis": [1],
        "mask.one": [1],
        "logits.last": [-1, 1, decoder.vocab_size],
    }
    made = [
        helper.make_tensor(name, TensorProto.INT64, [len(value)], value)
        for name, value in values.items()
    ]
    made.append(helper.make_tensor("mask.tokens", TensorProto.INT64, [], [1]))
    if any(rope.is_long(decoder.context) for rope, _ in decoder.rotary_tables().values()):
        limit = decoder.rope.original_context
        made.append(helper.make_tensor("rotary.limit", TensorProto.INT32, [], [limit]))
    return made


def _tables(decoder: Decoder) -> list[NodeProto]:
    """Choose between the tables of short and of long conversations."""
    longs = [name for name in rotary_constants(decoder) if name.endswith(".long")]
    if not longs:
        return []
    nodes = [helper.make_node("Greater", ["total_length", "rotary.limit"], ["rotary.is_long"])]
    for name in longs:
        chosen = name.removesuffix(".long")
        branches = {
            branch: _pass_on(source, f"{chosen}.{branch}")
            for branch, source in (("then_branch", name), ("else_branch", f"{chosen}.short"))
        }
        nodes.append(helper.make_node("If", ["rotary.is_long"], [chosen], **branches))
    return nodes


def _pass_on(source: str, out: str) -> GraphProto:
    """Return a branch that gives a table of the graph around it."""
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["positions", "pairs"])
    return helper.make_graph([helper.make_node("Identity", [source], [out])], out, [], [info])


def _stored(decoder: Decoder, name: str) -> str:
    """Return the constant's name: that of a chosen table is taken by the choice."""
    return f"{name}.short" if f"{name}.long" in rotary_constants(decoder) else name


def _last_row() -> NodeProto:
    return helper.make_node("Reshape", ["logits.rows", "logits.last"], ["logits"])


def _external(name: str, shape: Sequence[int], place: tuple[str, TensorSpec]) -> TensorProto:
    file, spec = place
    tensor = TensorProto(
        name=name,
        data_type=TensorProto.FLOAT,
        dims=shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in {"location": file, "offset": spec.offset, "length": spec.size}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _inputs(decoder: Decoder) -> list[ValueInfoProto]:
    rows = ["batch_size", "sequence_length"]
    whole = ["batch_size", "total_sequence_length"]
    made = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, rows),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, whole),
    ]
    if decoder.positions == "learned":
        made.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, rows))
    return made + _memory(decoder, "past_key_values", "past_sequence_length")


def _outputs(decoder: Decoder) -> list[ValueInfoProto]:
    shape: list[int | str] = ["batch_size", 1, decoder.vocab_size]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    return [logits, *_memory(decoder, "present", "total_sequence_length")]


def _memory(decoder: Decoder, name: str, length: str) -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            f"{name}.{i}.{part}",
            TensorProto.FLOAT,
            ["batch_size", layer.n_kv_heads, length, layer.head_dim],
        )
        for i, layer in enumerate(decoder.layers)
        for part in ("key", "value")
    ]
