"""Compares gradients that our rules append to a graph with PyTorch's."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onhand.host.learning.differentiate import differentiate

Arrays = Mapping[str, np.ndarray]
Compute = Callable[..., torch.Tensor]
OPSET = 21
# float32 sums of a few hundred terms, beside PyTorch's in another order.
CLOSE = 3e-5
generator = np.random.default_rng(0)


def normal(*shape: int, seed: int | None = None) -> np.ndarray:
    """Random float32 numbers; without a seed the next of one stream."""
    source = generator if seed is None else np.random.default_rng(seed)
    return source.standard_normal(shape).astype(np.float32)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    constants: Arrays,
    *,
    outputs: Sequence[str] = ("y",),
    whole: Sequence[str] = (),
    opset: int = OPSET,
) -> ModelProto:
    """Return a model; inputs are float32, but for those in `whole`, int64."""
    proto = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name in whole else TensorProto.FLOAT, shape
            )
            for name, shape in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(proto, opset_imports=imports, ir_version=10)


def session(model: ModelProto) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = model.SerializeToString()
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"])


def run(model: ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """Run a model once."""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, dict(feeds)), strict=True))


def open_shapes(arrays: Arrays, *, apart: bool) -> dict[str, list[int | str | None]]:
    """Name every size over one: by its number, or each by a name of its own."""
    return {
        name: [
            f"{name}.{i}" if apart else (f"d{size}" if size > 1 else size)
            for i, size in enumerate(array.shape)
        ]
        for name, array in arrays.items()
    }


def shapes(arrays: Arrays) -> dict[str, Sequence[int | str | None]]:
    """State every size."""
    return {name: array.shape for name, array in arrays.items()}


def agree(found: np.ndarray, expected: np.ndarray, *, close: float = CLOSE) -> None:
    """Fail unless two arrays are equal but for rounding, beside their largest number."""
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=close)


def compare(
    nodes: Sequence[NodeProto],
    arrays: Arrays,
    compute: Compute,
    *,
    wrt: Sequence[str] | None = None,
    constants: Arrays | None = None,
    stated: Mapping[str, Sequence[int | str | None]] | None = None,
    opset: int = OPSET,
    close: float = CLOSE,
) -> ModelProto:
    """Compare result and gradients of a graph with PyTorch's; returns the graph.

    Args:
        nodes: compute "y".
        arrays: what is fed: float32, or int64 for what is looked up.
        compute: the same in PyTorch, called with the arrays in their order.
        wrt: what y is differentiated for; all float32 arrays if None.
        constants: initializers of the graph that PyTorch is not given.
        stated: shapes of the inputs; known ones if None.
        opset: of the graph.
        close: largest difference beside the largest number.
    """
    wrt = [n for n, a in arrays.items() if a.dtype == np.float32] if wrt is None else list(wrt)
    tensors = {n: torch.from_numpy(a.copy()).requires_grad_(n in wrt) for n, a in arrays.items()}
    y = compute(*tensors.values())
    upstream = normal(*y.shape, seed=1)
    expected = torch.autograd.grad(y, [tensors[n] for n in wrt], torch.from_numpy(upstream))

    inputs = {**(stated or shapes(arrays)), "upstream": [None] * upstream.ndim}
    whole = [n for n, a in arrays.items() if a.dtype == np.int64]
    forward = graph(nodes, inputs, constants or {}, whole=whole, opset=opset)
    model = differentiate(forward, loss="y", wrt=wrt, starts={"y": "upstream"})
    found = run(model, {**arrays, "upstream": upstream})

    agree(found["y"], y.detach().numpy(), close=close)
    for name, gradient in zip(wrt, expected, strict=True):
        agree(found[f"grad.{name}"], gradient.numpy(), close=close)
    return model


def compare_open(
    nodes: Sequence[NodeProto],
    arrays: Arrays,
    compute: Compute,
    *,
    constants: Arrays | None = None,
    wrt: Sequence[str] | None = None,
) -> None:
    """Compare with sizes stated, with names shared by equal sizes, and with nothing known."""
    for stated in (
        shapes(arrays),
        open_shapes(arrays, apart=False),
        open_shapes(arrays, apart=True),
    ):
        compare(nodes, arrays, compute, constants=constants, wrt=wrt, stated=stated)


def kinds(model: ModelProto) -> list[str]:
    """Return the operators of a model, in order."""
    return [node.op_type for node in model.graph.node]
