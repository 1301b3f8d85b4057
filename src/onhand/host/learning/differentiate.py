"""Reverse-mode differentiation of ONNX graphs: one rule for each operator.

The rules are in the modules `rules_*`. PyTorch is not asked: it is what the results are compared
with.

Source:
    Griewank and Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, chapter 3.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto

from onhand.core.errors import InputError, SourceError
from onhand.host.learning import (
    rules_activations,
    rules_codes,
    rules_conv,
    rules_elementwise,
    rules_gather,
    rules_norms,
    rules_products,
    rules_quantized,
    rules_reductions,
    rules_shapes,
    rules_windows,
)
from onhand.host.learning.rules import Rules
from onhand.host.learning.tape import FLOATS, Tape, called

__all__ = ["OLDEST_OPSET", "RULES", "differentiate"]

OLDEST_OPSET: Final = 17

RULES: Final[Rules] = {
    **rules_activations.RULES,
    **rules_codes.RULES,
    **rules_conv.RULES,
    **rules_elementwise.RULES,
    **rules_gather.RULES,
    **rules_norms.RULES,
    **rules_products.RULES,
    **rules_quantized.RULES,
    **rules_reductions.RULES,
    **rules_shapes.RULES,
    **rules_windows.RULES,
}
"""(domain, operator) -> its rule."""
_FLAT: Final = frozenset({"Ceil", "Floor", "Round", "Shape", "Sign", "Size"})
"""Operators whose slope is zero wherever they have one."""


def differentiate(
    model: ModelProto,
    *,
    loss: str,
    wrt: Sequence[str],
    starts: Mapping[str, str] | None = None,
) -> ModelProto:
    """Append to a graph the gradients of its loss.

    Only nodes that lead from `wrt` to the loss get gradient nodes, so a frozen tensor costs
    nothing. Weights are never read: they may be stored outside.

    Args:
        model: the forward graph, topologically sorted, of opset 17 or later; batch and length
            may be open. It is left as it is.
        loss: a tensor of one number.
        wrt: graph inputs or initializers, each once.
        starts: tensor -> the tensor of the graph that is the loss's gradient for it, where the
            graph computes that itself; what lies between these tensors and the loss is then not
            looked at. None to start from the loss.

    Returns:
        The graph with outputs `grad.NAME`, of the shape of each of `wrt`.

    Raises:
        InputError: if a name is not in the graph, is given twice or is not of floats, or nothing
            leads from it to the loss.
        SourceError: if an operator on the way has no rule, a rank cannot be inferred, or the
            opset is older.
    """
    _check_names(model.graph, loss, wrt, starts or {})
    opset = next((i.version for i in model.opset_import if i.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        raise SourceError(f"the graph is of opset {opset}; gradients need {OLDEST_OPSET} or later")
    tape = Tape(model)
    reached = _reached(tape, wrt)
    gradients = dict(starts) if starts else {loss: _one(tape, loss)}
    _walk_back(tape, reached, gradients)
    if lost := [name for name in wrt if name not in gradients]:
        raise InputError(f"{lost[0]!r}: nothing of the graph leads from it to the loss {loss!r}")
    return tape.finish(
        {f"grad.{name}": gradients[name] for name in wrt},
        like={f"grad.{name}": name for name in wrt},
    )


def _walk_back(tape: Tape, reached: set[str], gradients: dict[str, str]) -> None:
    """Go through the nodes from the last to the first, and fill `gradients`.

    Raises:
        SourceError: if an operator on the way has no rule.
    """
    for node in reversed(list(tape.model.graph.node)):
        given = [gradients.get(out) if out else None for out in node.output]
        needs = [name in reached for name in node.input]
        if reached.isdisjoint(_read_by(node)) or all(gradient is None for gradient in given):
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        rule = RULES.get((domain, node.op_type))
        if rule is None:
            raise SourceError(
                f"{called(node)}: this operator has no rule of differentiation; freeze what lies "
                "before it, or build the graph from operators that have one"
            )
        found = rule(tape, node, given, needs)
        for name, gradient, need in zip(node.input, found, needs, strict=True):
            if not need or gradient is None:
                continue
            before = gradients.get(name)
            gradients[name] = gradient if before is None else tape.add("Add", before, gradient)


def _reached(tape: Tape, wrt: Sequence[str]) -> set[str]:
    """Return the tensors that depend on `wrt` and may have a gradient.

    Raises:
        InputError: if one of `wrt` may have none.
    """
    reached = {name for name in wrt if _carries(tape, name)}
    if whole := [name for name in wrt if name not in reached]:
        raise InputError(f"{whole[0]!r} is not of floats, and has no gradient")
    for node in tape.model.graph.node:
        inputs = reached.intersection(_read_by(node))
        if node.op_type in _FLAT or not inputs:
            continue
        # Codes carry gradients from where numbers are rounded to where they are numbers again.
        codes = node.op_type == "QuantizeLinear" or any(not _carries(tape, n) for n in inputs)
        reached.update(out for out in node.output if out and (codes or _carries(tape, out)))
    return reached


def _read_by(node: NodeProto) -> set[str]:
    """Return what a node reads, the graphs within it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            names.update(*(_read_by(each) for each in inner.node))
    return names


def _carries(tape: Tape, name: str) -> bool:
    """Whether a tensor may have a gradient: it is of floats, or nothing is known of it."""
    kind = tape.kinds.get(name)
    return kind is None or kind.element in {0, *FLOATS}


def _one(tape: Tape, loss: str) -> str:
    """Return the gradient of the loss for itself.

    Raises:
        InputError: if the loss is not one number.
    """
    shape = tape.shape(loss)
    if any(size != 1 for size in shape):
        raise InputError(f"the loss {loss!r} has shape {shape}, must be one number")
    return tape.constant(np.ones([1] * len(shape), tape.dtype(loss)))


def _check_names(
    graph: GraphProto, loss: str, wrt: Sequence[str], starts: Mapping[str, str]
) -> None:
    """Refuse names that the graph does not have.

    Raises:
        InputError: naming the first of them.
    """
    outside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    inside = outside | {out for node in graph.node for out in node.output}
    if len(set(wrt)) != len(wrt) or not wrt:
        raise InputError("what the loss is differentiated for must be named, and each but once")
    for name in wrt:
        if name not in outside:
            raise InputError(f"{name!r} is no input or initializer of the graph")
    for name in (loss, *starts, *starts.values()):
        if name not in inside:
            raise InputError(f"the graph has no tensor {name!r}")
