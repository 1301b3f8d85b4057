"""Products of matrices in forms that engines compute on integers, with results in float32."""

from dataclasses import replace

import numpy as np

from onhand.host.networks.graph import Graph, Node, fresh_name
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.quantization.plan import layers_of

__all__ = ["dense_to_gemm", "plain_gemms", "pooled_to_gemm", "shape_biases"]


def plain_gemms(graph: Graph) -> Graph:
    """Return the graph whose Gemms of constants have their factors, alpha and beta, in those."""
    taken, constants = graph.names(), dict(graph.constants)

    def plain(node: Node) -> tuple[Node, ...]:
        factors = node.number("alpha", 1.0), node.number("beta", 1.0)
        if node.op != "Gemm" or node.domain or factors == (1.0, 1.0):
            return (node,)
        arrays = [graph.constants.get(name) for name in node.inputs[1:] if name]
        if any(array is None or array.dtype != np.float32 for array in arrays):
            return (node,)
        names: list[str] = []
        for name, array, factor in zip(node.inputs[1:], arrays, factors, strict=False):
            scaled = fresh_name(taken, f"{name}.scaled")
            if array is not None:
                constants[scaled] = (array * np.float32(factor)).astype(np.float32)
            names.append(scaled)
        attributes = {k: v for k, v in node.attributes.items() if k not in {"alpha", "beta"}}
        return (replace(node, inputs=(node.inputs[0], *names), attributes=attributes),)

    # `plain` fills `constants` while it runs.
    changed = graph.rebuilt(plain)
    return replace(changed, constants=constants).live()


def dense_to_gemm(graph: Graph) -> Graph:
    """Return the graph with a MatMul of rows and the Add of a bias behind it as one Gemm.

    ONNX Runtime makes a Gemm of them itself, but before it looks for integers, and computes it
    in float then. For products of more axes than two see `shape_biases`.
    """
    readers = graph.readers()
    dense = [layer for layer in layers_of(graph).values() if layer.node.op == "MatMul"]
    if not dense:
        return graph
    known = infer_shapes(graph)
    gone: set[str] = set()
    made: dict[str, Node] = {}
    for layer in dense:
        name, after = layer.node.name, readers.get(layer.node.name, [])
        data = known.get(layer.data)
        if data is None or len(data.shape) != 2 or name in graph.output_names():
            continue
        if len(after) != 1 or after[0].op != "Add" or after[0].inputs.count(name) != 1:
            continue
        bias = next(other for other in after[0].inputs if other != name)
        n_outputs = graph.constants[layer.weight].shape[1]
        array = graph.constants.get(bias)
        if (
            array is None
            or array.dtype != np.float32
            or array.shape
            not in {
                (n_outputs,),
                (1, n_outputs),
            }
        ):
            continue
        gone.add(name)
        made[after[0].name] = Node(
            op="Gemm", inputs=(layer.data, layer.weight, bias), outputs=after[0].outputs
        )
    return graph.rebuilt(lambda node: () if node.name in gone else (made.get(node.name, node),))


def pooled_to_gemm(graph: Graph) -> Graph:
    """Return the graph with 1 x 1 convolutions of pooled pictures as products of matrices.

    A Conv of single pixels that is only flattened is a Gemm; as such its result, the scores of
    classes, stays in float32 behind integer products.
    """
    producers, readers = graph.producers(), graph.readers()
    constants = dict(graph.constants)
    taken = graph.names()
    swapped: dict[str, tuple[Node, ...]] = {}
    for name, layer in layers_of(graph).items():
        node, after = layer.node, readers.get(name, [])
        pool = producers.get(layer.data)
        weight = graph.constants[layer.weight]
        plain = (
            node.op == "Conv"
            and pool is not None
            and pool.op == "GlobalAveragePool"
            and weight.ndim == 4
            and weight.shape[2:] == (1, 1)
            and node.whole("group", 1) == 1
            and not any(node.wholes("pads"))
        )
        if not plain or len(after) != 1 or name in graph.output_names():
            continue
        if after[0].op != "Flatten" or after[0].whole("axis", 1) != 1:
            continue
        flat, matrix = f"{layer.data}.flat", f"{layer.weight}.matrix"
        if {flat, matrix} & taken:
            continue
        constants[matrix] = weight.reshape(weight.shape[:2])
        inputs = (flat, matrix, layer.bias) if layer.bias else (flat, matrix)
        swapped[name] = (
            Node(op="Flatten", inputs=(layer.data,), outputs=(flat,), attributes={"axis": 1}),
        )
        swapped[after[0].name] = (
            Node(op="Gemm", inputs=inputs, outputs=after[0].outputs, attributes={"transB": 1}),
        )
    if not swapped:
        return graph
    made = replace(graph, constants=constants)
    return made.rebuilt(lambda node: swapped.get(node.name, (node,))).live()


def shape_biases(graph: Graph) -> Graph:
    """Return the graph with the biases behind products of known sizes, (N,), as (1, 1, N).

    Where it knows all sizes ONNX Runtime makes a Gemm of a product of more axes than two and its
    bias too, before it looks for integers: an encoder in integers then took five times as long.
    Of a bias with more than one axis it makes none, and multiplies on integers.
    """
    readers, known = graph.readers(), infer_shapes(graph)
    taken, constants = graph.names(), dict(graph.constants)
    shaped: dict[str, Node] = {}
    for layer in layers_of(graph).values():
        name, after = layer.node.name, readers.get(layer.node.name, [])
        data = known.get(layer.data)
        if layer.node.op != "MatMul" or data is None or len(data.shape) < 3:
            continue
        if len(after) != 1 or after[0].op != "Add" or not _is_whole(data.shape):
            continue
        bias = next((other for other in after[0].inputs if other != name), "")
        array = graph.constants.get(bias)
        if array is None or array.dtype != np.float32 or array.ndim != 1:
            continue
        wide = fresh_name(taken, f"{bias}.shaped")
        constants[wide] = array.reshape((1,) * (len(data.shape) - 1) + array.shape)
        shaped[after[0].name] = replace(after[0], inputs=(name, wide))
    if not shaped:
        return graph
    made = replace(graph, constants=constants)
    return made.rebuilt(lambda node: (shaped.get(node.name, node),)).live()


def _is_whole(shape: tuple[int | str | None, ...]) -> bool:
    return all(isinstance(size, int) for size in shape)
