"""Matrix products against PyTorch."""

from typing import Any

import pytest
import torch
from onnx import helper
from tests.host.learning.gradients import compare, compare_open, graph, kinds, normal

from onhand.core.errors import SourceError
from onhand.host.learning.differentiate import differentiate


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (1, 6, 4, 5)),
        ((3, 4), (2, 4, 5)),
        ((1, 3, 4), (2, 4, 1)),
        ((4,), (4, 5)),
        ((4,), (2, 4, 5)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4,)),
        ((4,), (4,)),
    ],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Operands of any ranks, vectors and broadcast batches among them."""
    arrays = {"a": normal(*left), "b": normal(*right)}

    compare_open([helper.make_node("MatMul", ["a", "b"], ["y"])], arrays, torch_matmul)


def torch_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("batch", [((2,), ()), ((2, 1), (1, 3))])
def test_fused_matmul(trans_a: int, trans_b: int, batch: tuple[tuple[int, ...], ...]) -> None:
    """Operands that are read crosswise, with a factor."""
    left = normal(*batch[0], *((4, 3) if trans_a else (3, 4)))
    right = normal(*batch[1], *((5, 4) if trans_b else (4, 5)))
    node = helper.make_node(
        "FusedMatMul",
        ["a", "b"],
        ["y"],
        domain="com.microsoft",
        transA=trans_a,
        transB=trans_b,
        alpha=0.5,
    )

    def expected(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((a.mT if trans_a else a) @ (b.mT if trans_b else b))

    compare_open([node], {"a": left, "b": right}, expected)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (5,), (3, 1)])
def test_gemm(trans_a: int, trans_b: int, bias: tuple[int, ...] | None) -> None:
    """All forms of Gemm, its bias broadcast."""
    arrays = {"a": normal(4, 3) if trans_a else normal(3, 4)}
    arrays["b"] = normal(5, 4) if trans_b else normal(4, 5)
    if bias is not None:
        arrays["c"] = normal(*bias)
    options: dict[str, Any] = {"transA": trans_a, "transB": trans_b, "alpha": 0.7, "beta": 1.3}

    def expected(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        product = 0.7 * ((a.T if trans_a else a) @ (b.T if trans_b else b))
        return product if c is None else product + 1.3 * c

    compare_open([helper.make_node("Gemm", list(arrays), ["y"], **options)], arrays, expected)


def test_rows_by_a_matrix_need_one_product_each() -> None:
    """The matrix is read as it lies: nothing is transposed."""
    model = compare(
        [helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transB=1)],
        {"x": normal(2, 3, 4), "w": normal(5, 4)},
        lambda x, w: x @ w.T,
        stated={"x": ["B", "T", 4], "w": [5, 4]},
    )

    assert kinds(model).count("Transpose") == 0
    assert kinds(model).count("FusedMatMul") == 2
    assert kinds(model).count("MatMul") == 1


def test_a_frozen_matrix_gets_no_gradient() -> None:
    """Only what is asked for is computed."""
    model = compare(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": normal(2, 3, 4), "w": normal(4, 5)},
        torch_matmul_of_x,
        wrt=["x"],
    )

    assert kinds(model) == ["MatMul", "FusedMatMul"]


def torch_matmul_of_x(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def test_exchanged_batch_axes_are_refused() -> None:
    """A form of FusedMatMul without a rule is named."""
    node = helper.make_node(
        "FusedMatMul", ["a", "b"], ["y"], name="odd", domain="com.microsoft", transBatchA=1
    )
    forward = graph([node], {"a": [2, 3, 4], "b": [2, 4, 5]}, {})

    with pytest.raises(SourceError, match=r"'odd' \(com.microsoft.FusedMatMul\).*transBatch"):
        differentiate(forward, loss="y", wrt=["a"], starts={"y": "a"})


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
        ("bik, kj -> jib", (2, 3, 4), (4, 5)),
        ("i,j->ij", (3,), (4,)),
    ],
)
def test_einsum(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Products named by letters, in any order."""
    compare_open(
        [helper.make_node("Einsum", ["a", "b"], ["y"], equation=equation)],
        {"a": normal(*left), "b": normal(*right)},
        lambda a, b: torch.einsum(equation, a, b),
    )


@pytest.mark.parametrize("equation", ["...ij,...jk->...ik", "ii,ij->j", "ik,j->ij", "ij,jk"])
def test_an_equation_without_a_rule_is_refused(equation: str) -> None:
    """The equation is said."""
    forward = graph(
        [helper.make_node("Einsum", ["a", "b"], ["y"], equation=equation)],
        {"a": [3, 3], "b": [3] if ",j-" in equation else [3, 3]},
        {},
    )

    with pytest.raises(SourceError, match=r"Einsum\): the equation '.*' has no rule"):
        differentiate(forward, loss="y", wrt=["a"], starts={"y": "a"})
