"""Several operators become one, and the answers stay."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.fusing.siblings import merge_convolutions, merge_products
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.samples import Samples

TOLERANCE = 1e-5  # float32 sums of at most 64 numbers near 1, in another order


def number(value: float) -> Array:
    """A constant of no dimensions."""
    return np.array(value, dtype=np.float32)


def chain(
    steps: str, constants: dict[str, Array] | None = None, *, opset: int = 17, width: int = 8
) -> Graph:
    """A graph from lines such as "d = Sub(x, mean)"; x is (2, 3, width), y comes out."""
    nodes = []
    made = {"half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "zero": 0.0,
            "sixth": 1 / 6, "root2": math.sqrt(2), "cubic": 0.044715,
            "scale": math.sqrt(2 / math.pi), "epsilon": 1e-5}  # fmt: skip
    for line in steps.strip().splitlines():
        output, call = (part.strip() for part in line.split("=", 1))
        op, inputs = call.rstrip(")").split("(", 1)
        attributes: dict[str, tuple[int, ...] | float] = {}
        if op == "ReduceMean":
            attributes = {"axes": (-1,)}
        if op == "HardSigmoid":
            attributes = {"alpha": 1 / 6, "beta": 0.5}
        nodes.append(
            Node(
                op=op,
                inputs=tuple(name.strip() for name in inputs.split(",")),
                outputs=(output,),
                attributes=attributes,
            )
        )
    float32 = np.dtype(np.float32)
    return Graph(
        nodes=tuple(nodes),
        constants={name: number(value) for name, value in made.items()} | (constants or {}),
        inputs=(Value(name="x", dtype=float32, shape=(2, 3, width)),),
        outputs=(Value(name="y", dtype=float32, shape=(2, 3, width)),),
        opset=opset,
    ).live()


def run(graph: Graph, **feeds: Array) -> dict[str, NDArray[np.float32]]:
    """What ONNX Runtime answers."""
    rng = np.random.default_rng(0)
    sizes = {v.name: [s for s in v.shape if isinstance(s, int)] for v in graph.inputs}
    given = feeds or {name: rng.normal(size=s).astype(np.float32) for name, s in sizes.items()}
    made = GraphRunner(graph, threads=1).run(given)
    return {name: array.astype(np.float32) for name, array in made.items()}


def apply(fuse: Fuse, graph: Graph) -> PassResult:
    """The pass, with nothing to calibrate with."""
    bench = Workbench(original=graph, calibration=Samples(feeds=[]), task="features", threads=1)
    return fuse.apply(graph, bench)


def assert_same(before: Graph, after: Graph) -> None:
    """Both graphs answer alike."""
    expected, found = run(before), run(after)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=TOLERANCE, atol=TOLERANCE)


EXACT = {
    "factor at the end": "d = Div(x, root2)\ne = Erf(d)\na = Add(e, one)\np = Mul(x, a)\n"
    "y = Mul(p, half)",
    "factor first": "d = Div(x, root2)\ne = Erf(d)\na = Add(one, e)\np = Mul(half, x)\n"
    "y = Mul(p, a)",
    "factor inside": "d = Div(x, root2)\ne = Erf(d)\na = Add(e, one)\np = Mul(a, half)\n"
    "y = Mul(x, p)",
}
TANH = {
    "power": "c = Pow(x, three)\nm = Mul(c, cubic)\ns = Add(x, m)\nr = Mul(s, scale)\n"
    "t = Tanh(r)\na = Add(t, one)\nh = Mul(x, half)\ny = Mul(h, a)",
    "products": "q = Mul(x, x)\nc = Mul(q, x)\nm = Mul(cubic, c)\ns = Add(m, x)\n"
    "r = Mul(scale, s)\nt = Tanh(r)\na = Add(one, t)\np = Mul(a, x)\ny = Mul(half, p)",
}
HARD_SWISH = {
    "HardSigmoid": "h = HardSigmoid(x)\ny = Mul(h, x)",
    "divided last": "a = Add(x, three)\nc = Clip(a, zero, six)\np = Mul(x, c)\ny = Div(p, six)",
    "divided first": "a = Add(x, three)\nc = Clip(a, zero, six)\np = Div(c, six)\ny = Mul(x, p)",
    "multiplied": "a = Add(three, x)\nc = Clip(a, zero, six)\np = Mul(x, c)\ny = Mul(p, sixth)",
}
CENTRED = "m = ReduceMean(x)\nd = Sub(x, m)\n"
SPREAD = "v = ReduceMean(q)\na = Add(v, epsilon)\ns = Sqrt(a)\n"
NORMS = {
    "power": CENTRED + "q = Pow(d, two)\n" + SPREAD + "n = Div(d, s)\ng = Mul(n, gamma)\n"
    "y = Add(g, beta)",
    "product, reciprocal": CENTRED + "q = Mul(d, d)\n" + SPREAD + "r = Reciprocal(s)\n"
    "n = Mul(d, r)\ng = Mul(gamma, n)\ny = Add(beta, g)",
    "centred twice": CENTRED + "m2 = ReduceMean(x)\nd2 = Sub(x, m2)\nq = Pow(d2, two)\n" + SPREAD
    + "n = Div(d, s)\ng = Mul(n, gamma)\ny = Add(g, beta)",
    "no scale": CENTRED + "q = Pow(d, two)\n" + SPREAD + "y = Div(d, s)",
    "pools": CENTRED.replace("ReduceMean", "GlobalAveragePool") + "q = Mul(d, d)\n"
    + SPREAD.replace("ReduceMean", "GlobalAveragePool") + "y = Div(d, s)",
    "no bias": CENTRED + "q = Pow(d, two)\n" + SPREAD + "n = Div(d, s)\ny = Mul(n, gamma)",
}  # fmt: skip


def vectors(width: int = 8) -> dict[str, Array]:
    """Scale and bias of a norm."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=width).astype(np.float32) for name in ("gamma", "beta")}


@pytest.mark.parametrize("steps", EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize(("opset", "domain"), [(20, ""), (17, "com.microsoft")])
def test_exact_gelu_becomes_one_operator(steps: str, opset: int, domain: str) -> None:
    """However its factors stand."""
    graph = chain(steps, opset=opset)

    result = apply(Fuse(operators="onnxruntime"), graph)

    assert [(node.op, node.domain) for node in result.graph.nodes] == [("Gelu", domain)]
    assert_same(graph, result.graph)


@pytest.mark.parametrize("steps", TANH.values(), ids=TANH.keys())
@pytest.mark.parametrize(("opset", "op"), [(20, "Gelu"), (17, "FastGelu")])
def test_gelu_with_tanh_becomes_one_operator(steps: str, opset: int, op: str) -> None:
    """And not the exact one."""
    graph = chain(steps, opset=opset)

    result = apply(Fuse(operators="onnxruntime"), graph)

    assert [node.op for node in result.graph.nodes] == [op]
    assert_same(graph, result.graph)


def test_an_older_opset_keeps_gelu_and_says_so() -> None:
    """ONNX has Gelu from opset 20 on."""
    graph = chain(EXACT["factor first"])

    result = apply(Fuse(), graph)

    assert result.graph.nodes == graph.nodes
    assert "opset 20" in result.kept["y"]


@pytest.mark.parametrize("steps", HARD_SWISH.values(), ids=HARD_SWISH.keys())
def test_hard_swish_becomes_one_operator(steps: str) -> None:
    """Its four usual forms."""
    graph = chain(steps)

    result = apply(Fuse(), graph)

    assert [node.op for node in result.graph.nodes] == ["HardSwish"]
    assert_same(graph, result.graph)


def test_silu_becomes_one_operator_of_onnx_runtime() -> None:
    """But only where those are allowed."""
    graph = chain("s = Sigmoid(x)\ny = Mul(s, x)")

    assert apply(Fuse(), graph).graph.nodes == graph.nodes

    result = apply(Fuse(operators="onnxruntime"), graph)

    assert [node.op for node in result.graph.nodes] == ["QuickGelu"]
    assert_same(graph, result.graph)


@pytest.mark.parametrize("steps", NORMS.values(), ids=NORMS.keys())
def test_layer_norm_becomes_one_operator(steps: str) -> None:
    """Whether squares are powers or products, and roots divide or multiply."""
    graph = chain(steps, vectors())

    result = apply(Fuse(), graph)

    assert [node.op for node in result.graph.nodes] == ["LayerNormalization"]
    assert_same(graph, result.graph)


def test_a_norm_over_other_axes_is_kept() -> None:
    """LayerNormalization would count the last axis as well."""
    graph = chain(NORMS["power"], vectors())
    graph = graph.rebuilt(
        lambda n: [replace(n, attributes={"axes": (1,)}) if n.op == "ReduceMean" else n]
    )

    result = apply(Fuse(), graph)

    assert result.graph.nodes == graph.nodes
    assert "axes (1,)" in result.kept["y"]


def test_a_root_mean_square_norm_needs_opset_23() -> None:
    """RMSNormalization came with it."""
    steps = "q = Mul(x, x)\n" + SPREAD + "n = Div(x, s)\ny = Mul(n, gamma)"
    old = chain(steps, vectors())

    assert "opset 23" in apply(Fuse(), old).kept["y"]

    new = chain(steps, vectors() | {"axes": np.array([-1])}, opset=23)
    new = new.rebuilt(
        lambda n: [
            replace(n, inputs=(*n.inputs, "axes"), attributes={}) if n.op == "ReduceMean" else n
        ]
    )
    new = replace(new, constants={**new.constants, "axes": np.array([-1])})
    result = apply(Fuse(), new)

    assert [node.op for node in result.graph.nodes] == ["RMSNormalization"]
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * vectors()["gamma"]
    np.testing.assert_allclose(run(result.graph, x=x)["y"], expected, rtol=1e-4, atol=1e-5)


def test_what_others_read_stays() -> None:
    """The sum inside a Gelu is an output as well, so it must still be computed."""
    graph = chain(EXACT["factor at the end"], opset=20)
    float32 = np.dtype(np.float32)
    extra = Value(name="a", dtype=float32, shape=(2, 3, 8))
    graph = replace(graph, outputs=(*graph.outputs, extra))

    result = apply(Fuse(), graph)

    assert result.graph.nodes == graph.nodes
    assert result.kept == {"y": "'a' inside it is an output"}


@pytest.mark.parametrize("wrong", ["half", "one", "root2"])
def test_other_numbers_are_no_gelu(wrong: str) -> None:
    """A factor that is off by a thousandth makes another function."""
    graph = chain(EXACT["factor at the end"], opset=20)
    changed = {**graph.constants, wrong: number(float(graph.constants[wrong]) * 1.001)}
    graph = replace(graph, constants=changed)

    assert apply(Fuse(), graph).graph.nodes == graph.nodes


@settings(deadline=None, max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    bias=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 9),
)
def test_products_side_by_side_become_one(
    sizes: list[int], bias: bool, relu: bool, seed: int
) -> None:
    """With their sums and activations; one alone stays as it is."""
    rng = np.random.default_rng(seed)
    nodes, constants, outputs = [], {}, []
    for i, size in enumerate(sizes):
        constants[f"w{i}"] = rng.normal(size=(4, size)).astype(np.float32)
        constants[f"b{i}"] = rng.normal(size=size).astype(np.float32)
        last = f"m{i}"
        nodes.append(Node(op="MatMul", inputs=("x", f"w{i}"), outputs=(last,)))
        if bias:
            nodes.append(Node(op="Add", inputs=(f"b{i}", last), outputs=(f"s{i}",)))
            last = f"s{i}"
        if relu:
            nodes.append(Node(op="Relu", inputs=(last,), outputs=(f"r{i}",)))
            last = f"r{i}"
        outputs.append(Value(name=last, dtype=np.dtype(np.float32), shape=(2, size)))
    x = Value(name="x", dtype=np.dtype(np.float32), shape=(2, 4))
    graph = Graph(
        nodes=tuple(nodes), constants=constants, inputs=(x,), outputs=tuple(outputs), opset=17
    ).live()

    result = merge_products(graph)

    expected = len(graph.nodes) if len(sizes) == 1 else 2 + bias + relu
    assert len(result.graph.nodes) == expected
    assert_same(graph, result.graph)


def convolutions(**second: tuple[int, ...]) -> Graph:
    """Two convolutions of x with Relu; the second one's attributes differ as given."""
    rng = np.random.default_rng(0)
    same: dict[str, tuple[int, ...]] = {"pads": (1, 1, 1, 1), "strides": (1, 1)}
    float32 = np.dtype(np.float32)
    return Graph(
        nodes=(
            Node(op="Conv", inputs=("x", "w0"), outputs=("c0",), attributes=same),
            Node(op="Conv", inputs=("x", "w1", "b1"), outputs=("c1",), attributes=same | second),
            Node(op="Relu", inputs=("c0",), outputs=("r0",)),
            Node(op="Relu", inputs=("c1",), outputs=("r1",)),
        ),
        constants={
            "w0": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
            "w1": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
            "b1": rng.normal(size=5).astype(np.float32),
        },
        inputs=(Value(name="x", dtype=float32, shape=(2, 3, 6, 6)),),
        outputs=tuple(
            Value(name=f"r{i}", dtype=float32, shape=(2, 4 + i, None, None)) for i in range(2)
        ),
        opset=17,
    )


def test_convolutions_side_by_side_become_one() -> None:
    """A missing bias is zeros, and the activation is done once."""
    graph = convolutions()

    result = apply(Fuse(convolutions=True), graph)

    assert [node.op for node in result.graph.nodes] == ["Conv", "Relu", "Split"]
    assert set(result.changed) == {"c0", "c1"}
    assert_same(graph, result.graph)


def test_convolutions_of_other_strides_stay_apart() -> None:
    """They look at other places."""
    graph = convolutions(strides=(2, 2))

    assert merge_convolutions(graph).graph.nodes == graph.nodes


def test_a_weight_that_two_read_is_not_copied() -> None:
    """Two convolutions of one weight are no reason to store it twice."""
    graph = convolutions().rebuilt(
        lambda n: [replace(n, inputs=("x", "w0")) if n.op == "Conv" else n]
    )

    result = merge_convolutions(graph)

    assert set(result.kept) == {"c0", "c1"}
    assert result.graph.nodes == graph.nodes


def test_unknown_operators_are_refused() -> None:
    """With the words that are known."""
    with pytest.raises(
        InputError, match="operators is 'tensorrt', must be standard or onnxruntime"
    ):
        Fuse(operators="tensorrt")
