"""Gradients of matrix products, read from the very matrices of the forward pass."""

from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import MICROSOFT, attributes_of
from onhand.host.learning.rules import Gradients, Rules, number_of, only, whole_of
from onhand.host.learning.tape import Shape, Tape, called

__all__ = ["RULES"]


def _matmul(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """MatMul and FusedMatMul of any ranks.

    Raises:
        SourceError: if FusedMatMul exchanges batch axes.
    """
    if whole_of(node, "transBatchA", 0) or whole_of(node, "transBatchB", 0):
        raise SourceError(f"{called(node)}: transBatchA and transBatchB have no rule")
    left, right = node.input
    if 1 in (len(tape.shape(left)), len(tape.shape(right))):
        return _vector_product(tape, node, only(node, given), needs)
    crossed = (bool(whole_of(node, "transA", 0)), bool(whole_of(node, "transB", 0)))
    alpha = number_of(node, "alpha", 1.0)
    passed = only(node, given)
    if len(tape.shape(left)) > 2 and len(tape.shape(right)) == 2 and not crossed[0]:
        return _rows_by_matrix(tape, node, passed, needs, crossed[1], alpha)
    found: list[str | None] = [None, None]
    shapes = _product_shapes(tape, node)
    for i in (0, 1):
        if needs[i]:
            product = _of_operand(tape, node, passed, i, crossed, alpha)
            found[i] = tape.sum_to(product, shapes[i], node.input[i])
    return found


def _of_operand(
    tape: Tape, node: NodeProto, passed: str, which: int, crossed: tuple[bool, bool], alpha: float
) -> str:
    """Multiply the gradient by the other operand, so that the result is not to be transposed."""
    left, right = list(node.input)[:2]
    if which == 0 and crossed[0]:
        return tape.fused_matmul(right, passed, trans_a=crossed[1], trans_b=True, alpha=alpha)
    if which == 0:
        return tape.fused_matmul(passed, right, trans_b=not crossed[1], alpha=alpha)
    if crossed[1]:
        return tape.fused_matmul(passed, left, trans_a=True, trans_b=crossed[0], alpha=alpha)
    return tape.fused_matmul(left, passed, trans_a=not crossed[0], alpha=alpha)


def _rows_by_matrix(
    tape: Tape, node: NodeProto, passed: str, needs: Sequence[bool], crossed: bool, alpha: float
) -> Gradients:
    """Treat all axes but the last as one: the matrix's gradient is then a single product."""
    left, right = node.input
    found: list[str | None] = [None, None]
    if needs[0]:
        found[0] = tape.fused_matmul(passed, right, trans_b=not crossed, alpha=alpha)
    if needs[1]:
        inputs = _rows(tape, left, tape.shape(left)[-1])
        outputs = _rows(tape, passed, tape.shape(right)[0 if crossed else 1])
        pair = (outputs, inputs) if crossed else (inputs, outputs)
        found[1] = tape.fused_matmul(*pair, trans_a=True, alpha=alpha)
    return found


def _rows(tape: Tape, name: str, width: int | str) -> str:
    """Reshape to (rows, width)."""
    if isinstance(width, int):
        return tape.add("Reshape", name, tape.integers([-1, width]))
    last = tape.add("Shape", name, start=-1)
    sizes = tape.add("Concat", tape.integers([-1]), last, axis=0)
    return tape.add("Reshape", name, sizes)


def _product_shapes(tape: Tape, node: NodeProto) -> tuple[Shape, Shape]:
    """Return the shapes of the operands' gradients before a broadcast is undone."""
    batch = tape.shape(node.output[0])[:-2]
    left, right = (tape.shape(name) for name in list(node.input)[:2])
    return (*batch, *left[-2:]), (*batch, *right[-2:])


def _vector_product(tape: Tape, node: NodeProto, passed: str, needs: Sequence[bool]) -> Gradients:
    """MatMul of a vector: as of a matrix of one row or column.

    Raises:
        SourceError: if it is a FusedMatMul, or both are vectors of unequal known sizes.
    """
    if node.op_type != "MatMul":
        raise SourceError(f"{called(node)}: the product of a vector has a rule for MatMul only")
    left, right = node.input
    n_left, n_right = len(tape.shape(left)), len(tape.shape(right))
    found: list[str | None] = [None, None]
    if n_left == 1 and n_right == 1:
        for i, other in ((0, right), (1, left)):
            found[i] = tape.add("Mul", passed, other) if needs[i] else None
        return found
    if n_right == 1:
        column = tape.add("Unsqueeze", passed, tape.integers([-1]))  # (..., M, 1)
        if needs[0]:
            found[0] = tape.add("Mul", column, right)
        if needs[1]:
            shape = tape.shape(left)
            found[1] = tape.sum_to(tape.add("Mul", column, left), shape, right)
        return found
    row = tape.add("Unsqueeze", passed, tape.integers([-2]))  # (..., 1, N)
    shape = tape.shape(right)
    if needs[0]:
        along = tape.add("MatMul", right, tape.add("Unsqueeze", passed, tape.integers([-1])))
        flat = tape.add("Squeeze", along, tape.integers([-1]))  # (..., K)
        found[0] = tape.sum_to(flat, shape[:-1], left)
    if needs[1]:
        upright = tape.add("Unsqueeze", left, tape.integers([-1]))  # (K, 1)
        found[1] = tape.add("Mul", upright, row)
    return found


def _gemm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    crossed = (bool(whole_of(node, "transA", 0)), bool(whole_of(node, "transB", 0)))
    alpha, beta = number_of(node, "alpha", 1.0), number_of(node, "beta", 1.0)
    passed = only(node, given)
    found: list[str | None] = [
        _of_operand(tape, node, passed, i, crossed, alpha) if needs[i] else None for i in (0, 1)
    ]
    if len(node.input) > 2:
        found.append(None)
        if needs[2]:
            summed = tape.sum_to(passed, tape.shape(node.output[0]), node.input[2])
            scale = tape.number(beta, like=node.output[0])
            found[2] = summed if beta == 1.0 else tape.add("Mul", summed, scale)
    return found


def _einsum(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Exchange an operand's letters and the result's.

    Raises:
        SourceError: if the equation has an ellipsis, a letter twice in one term, no result, or a
            letter that is summed within one operand alone.
    """
    written = attributes_of(node).get("equation", b"")
    equation = written.decode().replace(" ", "") if isinstance(written, bytes) else ""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    found: list[str | None] = []
    for i, term in enumerate(terms):
        others = [*terms[:i], *terms[i + 1 :]]
        around = "".join([result, *others])
        plain = arrow and "." not in equation and len(set(term)) == len(term)
        if not plain or len(set(result)) < len(result) or not set(term) <= set(around):
            raise SourceError(f"{called(node)}: the equation {equation!r} has no rule")
        if needs[i]:
            swapped = f"{','.join([result, *others])}->{term}"
            inputs = [only(node, given), *(n for j, n in enumerate(node.input) if j != i)]
            found.append(tape.add("Einsum", *inputs, equation=swapped))
        else:
            found.append(None)
    return found


RULES: Final[Rules] = {
    ("", "Einsum"): _einsum,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    (MICROSOFT, "FusedMatMul"): _matmul,
}
