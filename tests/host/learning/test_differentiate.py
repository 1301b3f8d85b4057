"""The walk back through a graph: sums of gradients, what is left out, refusals, whole graphs."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto, helper
from tests.host.learning.gradients import agree, compare, graph, kinds, normal, run, session
from torch.nn import functional

from onhand.core.errors import InputError, SourceError
from onhand.host.learning.differentiate import differentiate


def node(kind: str, inputs: list[str], *outputs: str, **options: Any) -> NodeProto:
    return helper.make_node(kind, inputs, list(outputs), **options)


def test_a_loss_of_one_number_starts_with_one() -> None:
    """By hand: the gradient of sum(x^2) is 2 x."""
    forward = graph(
        [node("Mul", ["x", "x"], "square"), node("ReduceSum", ["square"], "y", keepdims=0)],
        {"x": ["N"]},
        {},
    )
    model = differentiate(forward, loss="y", wrt=["x"])

    found = run(model, {"x": np.array([1, -2, 3], dtype=np.float32)})

    assert found["y"] == 14.0
    assert found["grad.x"].tolist() == [2.0, -4.0, 6.0]
    assert [value.name for value in model.graph.output] == ["y", "grad.x"]


def test_the_given_model_is_left_as_it_is() -> None:
    """The gradient graph is a copy."""
    forward = graph([node("Relu", ["x"], "y")], {"x": [3]}, {})
    before = forward.SerializeToString(deterministic=True)

    differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})

    assert forward.SerializeToString(deterministic=True) == before


def test_a_tensor_used_several_times_gets_the_sum() -> None:
    """Gradients that meet are added, also of one node that reads a tensor twice."""
    nodes = [
        node("Exp", ["x"], "e"),
        node("Mul", ["e", "x"], "p"),
        node("Add", ["p", "e"], "q"),
        node("Add", ["q", "q"], "y"),
    ]

    compare(nodes, {"x": normal(6)}, lambda x: 2 * (torch.exp(x) * x + torch.exp(x)))


def test_a_deep_chain() -> None:
    """Three hundred layers need no recursion."""
    nodes = [
        node(("Tanh", "Neg", "Sigmoid")[i % 3], [f"h{i}" if i else "x"], f"h{i + 1}")
        for i in range(299)
    ]
    nodes.append(node("Identity", ["h299"], "y"))

    def expected(x: torch.Tensor) -> torch.Tensor:
        for i in range(299):
            x = (torch.tanh, torch.neg, torch.sigmoid)[i % 3](x)
        return x

    compare(nodes, {"x": normal(4)}, expected)


def test_frozen_branches_cost_nothing() -> None:
    """Only what leads from the trainable to the loss gets gradient nodes."""
    nodes = [
        node("Exp", ["frozen"], "f"),
        node("Sin", ["x"], "unread"),
        node("Mul", ["f", "x"], "y"),
    ]
    model = compare(
        nodes,
        {"x": normal(3), "frozen": normal(3)},
        lambda x, frozen: x * torch.exp(frozen),
        wrt=["x"],
    )

    assert kinds(model) == ["Exp", "Sin", "Mul", "Mul"]


def test_an_initializer_can_be_learned() -> None:
    """Its gradient has its name and shape."""
    forward = graph(
        [node("MatMul", ["x", "w"], "y")], {"x": ["B", 2], "up": ["B", 3]}, {"w": normal(2, 3)}
    )
    model = differentiate(forward, loss="y", wrt=["w"], starts={"y": "up"})
    x, up = normal(4, 2), normal(4, 3)

    agree(run(model, {"x": x, "up": up})["grad.w"], x.T @ up)


def test_one_gradient_of_two_tensors() -> None:
    """Both terms of a sum have the same gradient, under two names."""
    compare([node("Add", ["a", "b"], "y")], {"a": normal(3), "b": normal(3)}, lambda a, b: a + b)


def test_integers_stop_the_walk() -> None:
    """What was chosen by comparing has no gradient, and needs no rule."""
    nodes = [
        node("ArgMax", ["x"], "best", axis=-1, keepdims=0),
        node("Gather", ["table", "best"], "rows"),
        node("ReduceSum", ["x"], "total", keepdims=0),
        node("Mul", ["rows", "total"], "y"),
    ]

    compare(
        nodes,
        {"x": normal(3, 4), "table": normal(4, 2)},
        lambda x, table: table[x.argmax(-1)] * x.sum(),
    )


def test_a_slope_of_zero_everywhere_leads_nowhere() -> None:
    """Rounding has no gradient to give."""
    forward = graph(
        [node("Round", ["x"], "r"), node("ReduceSum", ["r"], "y", keepdims=0)], {"x": [3]}, {}
    )

    with pytest.raises(InputError, match="'x': nothing of the graph leads"):
        differentiate(forward, loss="y", wrt=["x"])


def test_an_unknown_operator_is_refused_by_name() -> None:
    """The sentence names node and operator."""
    forward = graph([node("Det", ["x"], "y", name="corner")], {"x": [3, 3]}, {})

    with pytest.raises(SourceError, match=r"node 'corner' \(Det\): this operator has no rule"):
        differentiate(forward, loss="y", wrt=["x"])


def test_a_branch_that_reads_what_is_learned_is_refused() -> None:
    """A graph within a node may read a tensor that is none of the node's inputs."""
    branch = helper.make_graph(
        [node("Exp", ["h"], "inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [3])],
    )
    nodes = [
        node("Neg", ["x"], "h"),
        node("If", ["yes"], "chosen", then_branch=branch, else_branch=branch),
        node("Add", ["chosen", "h"], "y"),
    ]
    forward = graph(nodes, {"x": [3]}, {"yes": np.array(True)})

    with pytest.raises(SourceError, match=r"\(If\): this operator has no rule"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_an_old_opset_is_refused() -> None:
    """Softmax meant something else once."""
    forward = graph([node("Softmax", ["x"], "y")], {"x": [3]}, {}, opset=12)

    with pytest.raises(SourceError, match="opset 12; gradients need 17"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_an_unknown_operator_beside_the_way_is_none_of_our_business() -> None:
    """A frozen part may hold any operator."""
    nodes = [node("Det", ["frozen"], "d"), node("Mul", ["d", "x"], "y")]

    compare(
        nodes,
        {"x": normal(3), "frozen": normal(2, 2)},
        lambda x, frozen: torch.det(frozen) * x,
        wrt=["x"],
    )


def test_what_does_not_fit_is_refused() -> None:
    """Unknown names, names given twice, integers, a loss of several numbers."""
    forward = graph(
        [node("Relu", ["x"], "h"), node("Gather", ["h", "i"], "y")],
        {"x": [3], "i": [2]},
        {},
        whole=["i"],
    )

    for loss, wrt, sentence in (
        ("y", ["z"], "'z' is no input"),
        ("y", ["h"], "'h' is no input"),
        ("z", ["x"], "no tensor 'z'"),
        ("y", ["x", "x"], "each but once"),
        ("y", [], "each but once"),
        ("y", ["i"], "'i' is not of floats"),
        ("y", ["x"], r"shape \(2,\), must be one number"),
    ):
        with pytest.raises(InputError, match=sentence):
            differentiate(forward, loss=loss, wrt=wrt)


def test_an_unknown_rank_is_refused() -> None:
    """Where the rank of a result cannot be inferred, its name is said."""
    nodes = [node("Odd", ["x"], "h", domain="com.microsoft"), node("Add", ["h", "x"], "y")]
    forward = graph(nodes, {"x": [3]}, {})

    with pytest.raises(SourceError, match=r"tensor 'y'.*rank"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    """An operator of a set that the graph does not import."""
    forward = graph([node("Odd", ["x"], "y", domain="else.where")], {"x": [3]}, {})

    with pytest.raises(SourceError, match=r"shapes cannot be inferred.*else.where"):
        differentiate(forward, loss="y", wrt=["x"])


def test_external_weights_are_never_read() -> None:
    """A file that is not there does not matter; its place is kept."""
    forward = graph([node("MatMul", ["x", "w"], "y")], {"x": ["B", 4]}, {})
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "nowhere.safetensors"), ("offset", "8"), ("length", "64")):
        weight.external_data.add(key=key, value=value)
    forward.graph.initializer.append(weight)

    model = differentiate(forward, loss="y", wrt=["x"], starts={"y": "y"})

    assert model.graph.initializer[0] == weight
    assert kinds(model) == ["MatMul", "FusedMatMul"]


def attention(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Attention of two heads of four, with a residual."""
    B, T, _ = x.shape
    q, k, v = (x @ w).reshape(B, T, 3, 2, 4).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(q, k, v)
    return x + attended.transpose(1, 2).reshape(B, T, 8) @ out


def test_attention_of_any_batch_and_length() -> None:
    """One session, several sizes: the gradients of a whole block are PyTorch's."""
    nodes = [
        node("MatMul", ["x", "w"], "qkv"),
        node("Split", ["qkv", "thirds"], "q", "k", "v", axis=-1),
    ]
    for part in "qkv":
        nodes += [
            node("Reshape", [part, "heads"], f"{part}.heads"),
            node("Transpose", [f"{part}.heads"], f"{part}.t", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Transpose", ["k.t"], "k.tt", perm=[0, 1, 3, 2]),
        node("MatMul", ["q.t", "k.tt"], "scores"),
        node("Mul", ["scores", "half"], "scaled"),
        node("Softmax", ["scaled"], "chances", axis=-1),
        node("MatMul", ["chances", "v.t"], "mixed"),
        node("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "flat"], "joined"),
        node("MatMul", ["joined", "out"], "projected"),
        node("Add", ["x", "projected"], "y"),
    ]
    constants = {
        "thirds": np.array([8, 8, 8]),
        "heads": np.array([0, 0, 2, 4]),
        "flat": np.array([0, 0, 8]),
        "half": np.array(0.5, dtype=np.float32),
    }
    inputs: dict[str, list[int | str | None]] = {
        "x": ["B", "T", 8], "w": [8, 24], "out": [8, 8], "up": ["B", "T", 8]
    }  # fmt: skip
    forward = graph(nodes, inputs, constants)
    model = differentiate(forward, loss="y", wrt=["x", "w", "out"], starts={"y": "up"})
    opened = session(model)

    assert kinds(model).count("Shape") == 0
    for B, T in ((1, 1), (2, 5), (3, 2)):
        arrays = {"x": normal(B, T, 8), "w": normal(8, 24), "out": normal(8, 8)}
        tensors = {n: torch.from_numpy(a).requires_grad_() for n, a in arrays.items()}
        up = normal(B, T, 8)
        y = attention(**tensors)
        expected = torch.autograd.grad(y, list(tensors.values()), torch.from_numpy(up))
        found = opened.run(["y", "grad.x", "grad.w", "grad.out"], arrays | {"up": up})

        agree(found[0], y.detach().numpy())
        for mine, theirs in zip(found[1:], expected, strict=True):
            agree(mine, theirs.numpy())
