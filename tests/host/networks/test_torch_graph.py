"""A graph in torch computes what ONNX Runtime computes, has gradients, and comes back."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.host.networks.torch_cases import CASES, Case, graph_of, title

from onhand.core.errors import EngineError, InputError
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import read_onnx

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch", reason="computes in torch")

from onhand.host.networks.torch_call import Call  # noqa: E402
from onhand.host.networks.torch_graph import TorchGraph, tensors_of, weight_names  # noqa: E402
from onhand.host.networks.torch_ops import OPERATORS  # noqa: E402


def fed(case: Case) -> dict[str, Array]:
    """What a case's graph is fed."""
    return {f"x{i}": array for i, array in enumerate(case.fed)}


@pytest.mark.parametrize("case", CASES, ids=title)
def test_an_operator_computes_what_onnx_runtime_computes(case: Case) -> None:
    """Numbers agree within rounding of float32; whole numbers and dtypes exactly."""
    graph = graph_of(case)
    names = graph.output_names()
    wanted = GraphRunner(graph, threads=1, names=names).run(fed(case))

    with torch.no_grad():
        made = TorchGraph(graph).eval()(tensors_of(fed(case)))

    for name in names:
        found = made[name].numpy()
        assert found.shape == wanted[name].shape
        if "Quantize" not in case.op:
            assert found.dtype == wanted[name].dtype
        near = 2e-5 if wanted[name].dtype.kind == "f" else 0.0
        np.testing.assert_allclose(found, wanted[name].astype(np.float64), rtol=near, atol=near)


def test_every_operator_is_compared() -> None:
    """An operator without a case is one that nobody has tried."""
    untried = {"Acos", "ArgMin", "Atan", "CastLike", "IsInf", "ThresholdedRelu"}

    assert set(OPERATORS) - {case.op for case in CASES} == untried


@given(
    x=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20),
    scale=st.floats(0.001953125, 1.0, width=32),
    zero=st.integers(-128, 127),
)
def test_codes_are_exactly_those_of_onnx_runtime(x: list[float], scale: float, zero: int) -> None:
    """Half to even, saturated, for any scale and zero point; also half-way between two codes."""
    number = np.float32(scale)
    numbers = np.array([*x, *(number * np.arange(-4.5, 5)).tolist()], dtype=np.float32)
    graph = graph_of(
        Case("QuantizeLinear", (numbers,), (np.array(number), np.array(zero, dtype=np.int8)))
    )
    wanted = GraphRunner(graph, threads=1, names=["y0"]).run({"x0": numbers})["y0"]

    made = TorchGraph(graph)(tensors_of({"x0": numbers}))["y0"]

    np.testing.assert_array_equal(made.detach().numpy(), wanted)


def network(**constants: Array) -> Graph:
    """Two layers with a bound between them: x (N, 3) -> y (N, 2)."""
    made: dict[str, Array] = {
        "one.weight": np.array([[1, 2, 3], [-1, 0, 1]], dtype=np.float32),
        "one.bias": np.array([0.5, -0.5], dtype=np.float32),
        "low": np.array(0, dtype=np.float32),
        "high": np.array(6, dtype=np.float32),
        "two.weight": np.eye(2, dtype=np.float32),
        "sizes": np.array([0, 2], dtype=np.int64),
    }
    nodes = (
        Node(op="Gemm", inputs=("x", "one.weight", "one.bias"), outputs=("a",),
             attributes={"transB": 1}),
        Node(op="Clip", inputs=("a", "low", "high"), outputs=("b",)),
        Node(op="MatMul", inputs=("b", "two.weight"), outputs=("c",)),
        Node(op="Reshape", inputs=("c", "sizes"), outputs=("y",)),
    )  # fmt: skip
    return Graph(
        nodes=nodes,
        constants=made | constants,
        inputs=(Value(name="x", dtype=np.dtype("f"), shape=("N", 3)),),
        outputs=(Value(name="y", dtype=np.dtype("f"), shape=("N", 2)),),
        opset=17,
    )


X = {"x": np.array([[1, 1, 1], [0, -1, 2]], dtype=np.float32)}


def test_weights_are_what_training_may_change() -> None:
    """Bounds, sizes and numbers are constants too, and none of its business."""
    assert weight_names(network()) == ("one.weight", "one.bias", "two.weight")


@pytest.mark.parametrize("low", [-1e4, float(np.finfo(np.float32).min), -np.inf])
def test_a_mask_is_no_weight(low: float) -> None:
    """What keeps tokens from seeing others must stay as it is."""
    mask = np.where(np.tri(3, dtype=bool), 0, low).astype(np.float32)

    graph = graph_of(Case("Add", (mask,), (mask,)))

    assert weight_names(graph) == ()


def test_statistics_and_scales_are_no_weights() -> None:
    """They follow from data, or belong to codes."""
    norm = next(case for case in CASES if case.op == "BatchNormalization")
    codes = graph_of(Case("QuantizeLinear", (X["x"],), (np.array(0.1, dtype=np.float32),)))

    assert weight_names(graph_of(norm)) == ("c0", "c1")
    assert weight_names(codes) == ()


def test_values_inside_are_given_when_asked_for() -> None:
    """A value inside comes beside the outputs; by hand."""
    made = TorchGraph(network())(tensors_of(X), also=["a", "x"])

    assert made["a"].tolist() == [[6.5, -0.5], [4.5, 1.5]]
    assert made["y"].tolist() == [[6.0, 0.0], [4.5, 1.5]]
    assert torch.equal(made["x"], torch.from_numpy(X["x"]))


def test_a_step_of_training_comes_back_as_a_graph() -> None:
    """What an optimizer changes is in the new graph; all else is the very same array."""
    graph = network()
    module = TorchGraph(graph)
    module.train_only(["two.weight"])
    module(tensors_of(X))["y"].sum().backward()
    with torch.no_grad():
        weight = module.weight("two.weight")
        assert weight.grad is not None
        weight.sub_(weight.grad, alpha=0.1)

    trained = module.to_graph()

    assert {n for n, a in trained.constants.items() if a is not graph.constants[n]} == {
        "two.weight"
    }
    by_hand = np.eye(2) - 0.1 * np.array([[10.5, 10.5], [1.5, 1.5]])
    new = trained.constants["two.weight"].astype(np.float64)
    np.testing.assert_allclose(new, by_hand, rtol=1e-5)
    np.testing.assert_array_equal(graph.constants["two.weight"], np.eye(2))


def test_names_that_torch_cannot_have_are_made_safe() -> None:
    """Dots, and words that a module uses itself; each constant keeps a parameter of its own."""
    graph = graph_of(Case("Gemm", (X["x"],), (np.eye(3, dtype=np.float32), np.ones(3, dtype="f"))))
    odd = {"c0": "train", "c1": "a.b"}
    graph = replace(
        graph.renamed(odd), constants={odd[name]: a for name, a in graph.constants.items()}
    )

    module = TorchGraph(graph)

    assert dict(module.names) == {"train": "train_", "a.b": "a_b"}
    assert module(tensors_of({"x0": X["x"]}))["y0"].shape == (2, 3)


@pytest.mark.parametrize(
    ("op", "attributes", "shape"),
    [
        ("Conv", {"pads": (1, 0), "auto_pad": "NOTSET"}, (1, 2, 5)),
        ("LayerNormalization", {}, (2, 3)),
        ("Softmax", {}, (2, 3)),
        ("AveragePool", {"kernel_shape": (2,), "pads": (1, 0)}, (1, 2, 5)),
        ("Gelu", {}, (2, 3)),
    ],
)
def test_gradients_are_those_of_the_computation(
    op: str, attributes: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    """They agree with finite differences in float64."""
    rng = np.random.default_rng(2)
    more = {"Conv": (rng.normal(size=(3, 2, 2)),), "LayerNormalization": (rng.normal(size=3),)}
    x = rng.normal(size=shape)
    graph = graph_of(Case(op, (x,), more.get(op, ()), {**attributes}, opset=20))
    module = TorchGraph(graph)

    def run(tensor: "Tensor", *_: "Tensor") -> "Tensor":
        made: Tensor = module({"x0": tensor})["y0"]
        return made

    weights = [p for p in module.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(run, (torch.from_numpy(x).requires_grad_(), *weights))


@pytest.mark.parametrize("kind", ["NOTSET", "SAME_UPPER"])
def test_a_strided_convolution_of_each_channel_trains_as_with_strides(kind: str) -> None:
    """The way round strides that training takes gives the same numbers and gradients."""
    rng = np.random.default_rng(3)
    x, kernel, bias = (rng.normal(size=size) for size in ((2, 4, 7, 6), (4, 1, 3, 3), (4,)))
    given = {"group": 4, "strides": (2, 3), "auto_pad": kind}
    if kind == "NOTSET":
        given["pads"] = (1, 1, 1, 1)
    module = TorchGraph(graph_of(Case("Conv", (x,), (kernel, bias), given)))
    ours, theirs = (torch.from_numpy(x).requires_grad_() for _ in range(2))
    weight = torch.from_numpy(kernel).requires_grad_()
    # 7 rows in steps of 2 overlap by one on each side; 6 columns in steps of 3 fit.
    padding = (1, 1) if kind == "NOTSET" else (1, 0)

    made = module({"x0": ours})["y0"]
    wanted = torch.nn.functional.conv2d(
        theirs, weight, torch.from_numpy(bias), (2, 3), padding, groups=4
    )
    made.square().sum().backward()
    wanted.square().sum().backward()

    torch.testing.assert_close(made, wanted)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(module.weight("c0").grad, weight.grad)


def test_rounding_passes_gradients_inside_the_range_alone() -> None:
    """Of x: 1 / scale inside, 0 outside. Of a scale: as for learned step sizes, by hand."""
    x = np.array([0.26, 20.0], dtype=np.float32)
    scale = np.array(0.1, dtype=np.float32)
    zero = np.array(0, dtype=np.int8)
    module = TorchGraph(graph_of(Case("QuantizeLinear", (x,), (scale, zero))))
    module.train_only(["c0"])
    fed = torch.from_numpy(x.copy()).requires_grad_()

    back = module({"x0": fed})["y0"] * module.weight("c0")
    back.sum().backward()

    assert fed.grad is not None
    assert fed.grad.tolist() == pytest.approx([1.0, 0.0])
    gradient = module.weight("c0").grad
    assert gradient is not None
    # round(2.6) - 2.6 inside, the last code outside.
    assert gradient.item() == pytest.approx(0.4 + 127, rel=1e-5)


def test_batch_statistics_are_taken_and_kept() -> None:
    """In training with the option, the batch is normalised and the running mean moves."""
    rng = np.random.default_rng(3)
    x = rng.normal(2.0, 3.0, size=(8, 2, 4, 4)).astype(np.float32)
    ones, zeros = np.ones(2, dtype=np.float32), np.zeros(2, dtype=np.float32)
    case = Case("BatchNormalization", (x,), (ones, zeros, zeros, ones), {"momentum": 0.9})
    module = TorchGraph(graph_of(case), batch_statistics=True).train()

    made = module(tensors_of({"x0": x}))["y0"]

    np.testing.assert_allclose(made.detach().mean((0, 2, 3)).numpy(), 0, atol=1e-5)
    mean = module.to_graph().constants["c2"].astype(np.float64)
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 2, 3)), rtol=1e-5)
    module.eval()(tensors_of({"x0": x}))
    np.testing.assert_array_equal(module.to_graph().constants["c2"], mean)


def test_an_unknown_operator_is_named() -> None:
    """All of them at once, before anything runs."""
    graph = network()
    strange = (
        Node(op="Hardly", inputs=("y",), outputs=("z",)),
        Node(op="Conv", inputs=("z", "w"), outputs=("q",), domain="com.example"),
    )

    with pytest.raises(InputError, match=r"no operator Hardly, com\.example\.Conv"):
        TorchGraph(replace(graph, nodes=(*graph.nodes, *strange)))


def test_a_missing_input_and_a_missing_value_are_named() -> None:
    """One sentence each."""
    module = TorchGraph(network())

    with pytest.raises(InputError, match="nothing is fed to the input 'x'"):
        module({})
    with pytest.raises(InputError, match="makes no value 'nowhere'"):
        module(tensors_of(X), also=["nowhere"])
    with pytest.raises(InputError, match="no constant 'sizes' of floating point"):
        module.weight("sizes")
    with pytest.raises(EngineError, match=r"cannot compute Gemm 'a' of inputs \[\(2, 4\)"):
        module({"x": torch.zeros(2, 4)})


@pytest.mark.parametrize(
    "case",
    [
        Case("Resize", (np.zeros((1, 1, 4, 4), dtype="f"),), attributes={"antialias": 1}),
        Case("MaxPool", (np.zeros((1, 1, 4), dtype="f"),), outputs=2),
        Case("Cast", (X["x"],), attributes={"to": 17}),
        Case("CumSum", (X["x"],), (np.array(0),), {"exclusive": 1}),
    ],
    ids=title,
)
def test_what_an_operator_cannot_do_is_said(case: Case) -> None:
    """Nothing is computed otherwise than it is meant."""
    graph = replace(
        network(),
        nodes=(Node(op=case.op, inputs=("x0", "c0"), outputs=("y", "i")[: case.outputs],
                    attributes=case.attributes),),
        inputs=(Value(name="x0", dtype=np.dtype("f"), shape=()),),
        constants={"c0": np.array(0)},
    )  # fmt: skip

    with pytest.raises(InputError, match=f"{case.op} 'y': .* is not supported in torch"):
        TorchGraph(graph)(tensors_of({"x0": case.fed[0]}))


def test_a_real_network_computes_the_same(assets: Path) -> None:
    """MobileNetV1: scores agree with ONNX Runtime within rounding, and training reaches all."""
    place = assets / "vision-imagenet-onnx-derived"
    graph = read_onnx(place / "mobilenet_v1_0.25_128_qat_dequant_fp32.onnx")
    x: Array = np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype(np.float32)
    wanted = GraphRunner(graph, threads=1).run({"input": x})["output"]
    module = TorchGraph(graph)

    made = module(tensors_of({"input": x}))["output"]
    made.sum().backward()

    np.testing.assert_allclose(made.detach().numpy(), wanted.astype(float), atol=1e-3)
    assert all(module.weight(name).grad is not None for name in weight_names(graph))


def test_a_gelu_of_five_operators_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as in ONNX Runtime; what is inside is still there for who asks."""
    case = replace(
        graph_of(CASES[0]),
        nodes=(
            Node(op="Div", inputs=("x", "root"), outputs=("scaled",)),
            Node(op="Erf", inputs=("scaled",), outputs=("erf",)),
            Node(op="Add", inputs=("erf", "one"), outputs=("shifted",)),
            Node(op="Mul", inputs=("x", "half"), outputs=("halved",)),
            Node(op="Mul", inputs=("halved", "shifted"), outputs=("y",)),
        ),
        constants={
            name: np.array(number, dtype=np.float32)
            for name, number in (("root", np.sqrt(2)), ("one", 1), ("half", 0.5))
        },
        inputs=(Value(name="x", dtype=np.dtype(np.float32), shape=("N", 7)),),
        outputs=(Value(name="y", dtype=np.dtype(np.float32), shape=("N", 7)),),
        opset=17,
    )
    x = {"x": np.linspace(-4, 4, 21, dtype=np.float32).reshape(3, 7)}
    wanted = GraphRunner(case, threads=1, names=("y", "erf")).run(x)
    module = TorchGraph(case)
    ran: list[str] = []

    def erf(call: Call) -> "Tensor":
        ran.append(call.node.name)
        return call.tensor(0).erf()

    monkeypatch.setitem(OPERATORS, "Erf", erf)

    short = module(tensors_of(x))
    assert not ran
    whole = module(tensors_of(x), also=("erf",))
    assert ran

    for made in (short, whole):
        np.testing.assert_allclose(made["y"].numpy(), wanted["y"], atol=2e-6)
    np.testing.assert_allclose(whole["erf"].numpy(), wanted["erf"], atol=2e-6)
    assert module.to_graph().nodes == case.nodes
