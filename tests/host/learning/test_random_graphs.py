"""Whole random graphs, differentiated and compared with PyTorch at several sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper
from tests.host.learning.gradients import agree, graph, normal, session
from torch.nn import functional

from onhand.host.learning.differentiate import differentiate

Tensor = torch.Tensor
Compute = Callable[..., Tensor]
D = 6
SIZES = ((1, 3), (2, 4), (3, 1))
LEAVES: dict[str, tuple[int, ...]] = {"matrix": (D, D), "row": (D,), "bias": (1, D), "one": (1,)}
"""Besides x (B, T, D)."""


@dataclass(frozen=True)
class Step:
    """Something that makes a tensor (B, T, D) of others.

    Attributes:
        nodes: (kind, inputs, outputs, options); "0" and "1" are what it takes, "y" what it makes.
        compute: the same in PyTorch.
        takes: "x" for any tensor (B, T, D) so far, or the name of a leaf.
    """

    nodes: Sequence[tuple[str, list[str], list[str], dict[str, object]]]
    compute: Compute
    takes: tuple[str, ...] = ("x",)


def alone(kind: str, compute: Compute, **options: object) -> Step:
    return Step([(kind, ["0"], ["y"], options)], compute)


def pair(kind: str, compute: Compute, other: str) -> Step:
    return Step([(kind, ["0", "1"], ["y"], {})], compute, ("x", other))


def attend(x: Tensor, y: Tensor) -> Tensor:
    return torch.softmax(0.5 * x @ y.mT, -1) @ x


STEPS: dict[str, Step] = {
    "add": pair("Add", torch.add, "x"),
    "subtract a row": pair("Sub", torch.sub, "row"),
    "times": Step(
        [("Mul", ["0", "1"], ["p"], {}), ("Tanh", ["p"], ["y"], {})],
        lambda x, y: torch.tanh(x * y),
        ("x", "x"),
    ),
    "times one": pair("Mul", torch.mul, "one"),
    "plus a bias": pair("Add", torch.add, "bias"),
    "matrix": pair("MatMul", torch.matmul, "matrix"),
    "matrix crosswise": Step(
        [("com.microsoft.FusedMatMul", ["0", "1"], ["y"], {"transB": 1, "alpha": 0.5})],
        lambda x, w: 0.5 * x @ w.T,
        ("x", "matrix"),
    ),
    "norm": Step(
        [("SimplifiedLayerNormalization", ["0", "1"], ["y"], {"axis": -1, "epsilon": 0.1})],
        lambda x, w: functional.rms_norm(x, (D,), w, 0.1),
        ("x", "row"),
    ),
    "gelu": alone("Gelu", functional.gelu),
    "silu": alone("com.microsoft.QuickGelu", functional.silu, alpha=1.0),
    "sigmoid": alone("Sigmoid", torch.sigmoid),
    "log softmax over the texts": alone(
        "LogSoftmax", lambda x: functional.log_softmax(x, 1), axis=1
    ),
    "less the mean": Step(
        [("ReduceMean", ["0", "axis.1"], ["m"], {}), ("Sub", ["0", "m"], ["y"], {})],
        lambda x: x - x.mean(1, keepdim=True),
    ),
    "attention": Step(
        [
            ("com.microsoft.FusedMatMul", ["0", "1"], ["s"], {"transB": 1, "alpha": 0.5}),
            ("Softmax", ["s"], ["p"], {"axis": -1}),
            ("MatMul", ["p", "0"], ["y"], {}),
        ],
        attend,
        ("x", "x"),
    ),
    "heads": Step(
        [
            ("Reshape", ["0", "heads"], ["h"], {}),
            ("Transpose", ["h"], ["t"], {"perm": [0, 2, 1, 3]}),
            ("Reshape", ["t", "whole"], ["y"], {}),
        ],
        lambda x: x.reshape(*x.shape[:2], 2, 3).transpose(1, 2).reshape(x.shape),
    ),
    "halves": Step(
        [
            ("Split", ["0", "thirds"], ["a", "b"], {"axis": -1}),
            ("Neg", ["b"], ["c"], {}),
            ("Concat", ["c", "a"], ["y"], {"axis": 2}),
        ],
        lambda x: torch.cat([-x[..., 2:], x[..., :2]], -1),
    ),
    "first row for all": Step(
        [("Gather", ["0", "first"], ["g"], {"axis": 1}), ("Add", ["g", "1"], ["y"], {})],
        lambda x, y: x[:, :1] + y,
        ("x", "x"),
    ),
    "cut and padded": Step(
        [
            ("Slice", ["0", "axis.1", "far", "axis.2"], ["s"], {}),
            ("Pad", ["s", "widths"], ["y"], {}),
        ],
        lambda x: functional.pad(x[..., 1:], (1, 0)),
    ),
}
CONSTANTS = {
    "axis.1": np.array([1]),
    "axis.2": np.array([2]),
    "far": np.array([99]),
    "first": np.array([0]),
    "heads": np.array([0, 0, 2, 3]),
    "thirds": np.array([2, 4]),
    "whole": np.array([0, -1, D]),
    "widths": np.array([0, 0, 1, 0, 0, 0]),
}
programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9)),
    min_size=2,
    max_size=9,
)
Program = list[tuple[str, int, int]]


def chosen(step: Step, places: Sequence[int], known: Sequence[str]) -> list[str]:
    """Return what a step takes: one of the tensors so far, or a leaf."""
    return [
        known[place % len(known)] if take == "x" else take
        for take, place in zip(step.takes, places, strict=False)
    ]


def nodes_of(program: Program) -> list[NodeProto]:
    """Return a graph from x to y."""
    nodes: list[NodeProto] = []
    known = ["x"]
    for i, (name, *places) in enumerate(program):
        step, out = STEPS[name], "y" if i + 1 == len(program) else f"h{i}"
        names = dict(zip("01", chosen(step, places, known), strict=False)) | {"y": out}
        for kind, inputs, outputs, options in step.nodes:
            domain, _, operator = kind.rpartition(".")
            names |= {made: f"{i}.{made}" for made in outputs if made != "y"}
            node = helper.make_node(
                operator,
                [names.get(given, given) for given in inputs],
                [names[made] for made in outputs],
                domain=domain,
            )
            node.attribute.extend(helper.make_attribute(k, v) for k, v in options.items())
            nodes.append(node)
        known.append(out)
    return nodes


def computed(program: Program, leaves: dict[str, Tensor]) -> Tensor:
    """Run a program in PyTorch."""
    known, made = ["x"], dict(leaves)
    for i, (name, *places) in enumerate(program):
        step = STEPS[name]
        made[f"h{i}"] = step.compute(*(made[taken] for taken in chosen(step, places, known)))
        known.append(f"h{i}")
    return made[known[-1]]


@settings(max_examples=25, deadline=None)
@given(program=programs)
def test_gradients_of_a_random_graph(program: Program) -> None:
    """Every leaf that the end depends on has PyTorch's gradient, at several sizes."""
    leaves = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(LEAVES.items())}
    tensors = {name: torch.from_numpy(leaf).requires_grad_() for name, leaf in leaves.items()}
    probe = computed(program, tensors | {"x": torch.ones(1, 2, D).requires_grad_()})
    found: Sequence[Tensor | None] = torch.autograd.grad(
        probe.sum(), list(tensors.values()), allow_unused=True
    )
    used = [name for name, one in zip(tensors, found, strict=True) if one is not None]
    inputs: dict[str, Sequence[int | str | None]] = {"x": ["B", "T", D], "up": ["B", "T", D]}
    forward = graph(nodes_of(program), inputs | LEAVES, CONSTANTS)
    opened = session(differentiate(forward, loss="y", wrt=["x", *used], starts={"y": "up"}))

    for B, T in SIZES:
        x, up = normal(B, T, D, seed=7), normal(B, T, D, seed=8)
        given_x = torch.from_numpy(x).requires_grad_()
        y = computed(program, tensors | {"x": given_x})
        wrt = [given_x, *(tensors[name] for name in used)]
        expected = torch.autograd.grad(y, wrt, torch.from_numpy(up))
        names = [f"grad.{name}" for name in ("x", *used)]
        ours = opened.run(["y", *names], leaves | {"x": x, "up": up})

        agree(ours[0], y.detach().numpy(), close=1e-4)
        scale = max(1e-3, *(float(one.abs().max()) for one in expected))
        for mine, theirs in zip(ours[1:], expected, strict=True):
            np.testing.assert_allclose(mine / scale, theirs.numpy() / scale, rtol=0, atol=1e-4)
