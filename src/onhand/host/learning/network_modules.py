"""Which layers of an encoder's checkpoint its learned matrices are: found by name, and checked.

A build joins products that read one value, and scales channels (`smooth`, `equalize`): it never
says by how much, so that is found by comparing what it wrote with what it had read. Each matrix
must be its checkpoint's, but for a factor on each column and row and for rounding; the factors are
a least-squares fit, over hundreds of weights each.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.lesson import Trainable
from onhand.device.learning.modules import Module, Modules
from onhand.host.learning.network_edit import Opened
from onhand.host.learning.network_graph import few_bit_matrix, fixed_names, folded
from onhand.host.learning.network_head import stored_name
from onhand.host.learning.network_weights import matrices
from onhand.host.networks.graph import Graph, Node

__all__ = ["Checkpoint", "find_modules"]

_BEHIND: Final = re.compile(r"(?:_quantized|\.codes|\.q|\.all|\.\d+)$")
_WEIGHT: Final = ".weight"
# What 4 bits leave of a matrix differs by a tenth; another matrix differs by more than all of it.
_MOST_APART: Final = 0.3
# A fit with more factors counts where it explains this much more.
_BETTER: Final = 0.98
_ROUNDS: Final = 12
# What float32 rounds: nothing is left to explain.
_EXACT: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a bundle was made of, as far as its layers have names.

    Attributes:
        graph: the source's, whose constants are called as its checkpoint's tensors.
        prefix: of the layers' names in a model with a head; "" in one without.
        task: PEFT's word for what the model is for.
    """

    graph: Graph
    prefix: str
    task: str


def find_modules(checkpoint: Checkpoint, stored: Graph, opened: Opened) -> Modules | str:
    """Find the layers of a checkpoint that a lesson learns.

    Args:
        checkpoint: where the network came from.
        stored: the bundle's graph.
        opened: the same with its trainables.

    Returns:
        The layers; or why what is learned has no place in the checkpoint.

    Raises:
        EngineError: if ONNX Runtime cannot compute a weight.
    """
    tensors = {made.tensor for made in opened.trainables.values() if made.part == "lora_A"}
    if not tensors:
        return "what is learned is not of low rank"
    found: list[Module] = []
    ours = _stored_matrices(stored, tensors)
    for tensor in sorted(tensors):
        modules = _modules_of(checkpoint, tensor, ours[tensor])
        if isinstance(modules, str):
            return modules
        found += modules
    head = opened.trainables.get("head.weight")
    if head is not None and len(head.shape) == 2:
        whole = _head(checkpoint, head, opened.starts["head.weight"])
        if isinstance(whole, str):
            return whole
        found += whole
    return Modules(task=checkpoint.task, modules=tuple(found))


def _stored_matrices(graph: Graph, tensors: Collection[str]) -> dict[str, FloatArray]:
    """Return the (K, N) floats that stand behind tensors."""
    found: dict[str, FloatArray] = {}
    for node, _ in matrices(graph, fixed_names(graph)):
        tensor = stored_name(graph, node.inputs[1])
        if tensor in tensors and tensor not in found:
            found[tensor] = _matrix(graph, node)
    return found


def _matrix(graph: Graph, node: Node) -> FloatArray:
    if node.op == "MatMulNBits":
        return few_bit_matrix(graph, node)
    array: FloatArray = folded(graph, [node.inputs[1]])[node.inputs[1]]
    return array.T if node.whole("transB", 0) else array


def _modules_of(checkpoint: Checkpoint, tensor: str, ours: FloatArray) -> list[Module] | str:
    """Return the layers that one matrix of the bundle is made of, or why there are none."""
    names = _names_of(checkpoint.graph, tensor, ours.shape)
    if not names:
        return f"{tensor!r} is no matrix of the checkpoint, nor several beside each other"
    theirs = np.concatenate([checkpoint.graph.constants[name] for name in names], axis=1)
    fit = _fitted(ours, theirs)
    if isinstance(fit, str):
        return f"{tensor!r} {fit}"
    inputs, outputs = fit
    made: list[Module] = []
    first = 0
    for name in names:
        n = checkpoint.graph.constants[name].shape[1]
        part = None if outputs is None else outputs[first : first + n]
        made.append(
            Module(
                name=_called(checkpoint, name),
                tensor=tensor,
                first=first,
                n=n,
                inputs=inputs,
                outputs=part,
            )
        )
        first += n
    return made


def _names_of(graph: Graph, tensor: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the checkpoint's matrices that are one matrix here, in its order."""
    base = tensor
    while base not in graph.constants and _BEHIND.search(base):
        base = _BEHIND.sub("", base)
    known = graph.constants.get(base)
    if known is None or known.ndim != 2 or not base.endswith(_WEIGHT):
        return ()
    if known.shape == shape:
        return (base,)
    read = next((node.inputs[0] for node in graph.nodes if base in node.inputs), "")
    beside = [
        node.inputs[1]
        for node in graph.nodes
        if node.op == "MatMul" and node.inputs[0] == read and node.inputs[1] in graph.constants
    ]
    arrays = [graph.constants[name] for name in beside]
    if {array.shape[0] for array in arrays} != {shape[0]}:
        return ()
    return tuple(beside) if sum(array.shape[1] for array in arrays) == shape[1] else ()


def _head(checkpoint: Checkpoint, made: Trainable, start: FloatArray) -> list[Module] | str:
    """Return the layer that is the head; none where the bundle has a head of its own."""
    names = _names_of(checkpoint.graph, made.tensor, start.T.shape)
    if not names:
        return []
    fit = _fitted(start.T, checkpoint.graph.constants[names[0]])
    if isinstance(fit, str):
        return f"the head {made.tensor!r} {fit}"
    if fit[1] is not None:
        return f"the scores of the head {made.tensor!r} were scaled by the build"
    return [
        Module(
            name=_called(checkpoint, names[0]),
            tensor=made.tensor,
            first=0,
            n=len(start),
            inputs=fit[0],
            is_whole=True,
        )
    ]


def _called(checkpoint: Checkpoint, name: str) -> str:
    plain = name.removesuffix(_WEIGHT)
    is_head = plain.partition(".")[0] in {"classifier", "pre_classifier"}
    return plain if is_head else f"{checkpoint.prefix}{plain}"


def _fitted(
    ours: FloatArray, theirs: FloatArray
) -> tuple[FloatArray | None, FloatArray | None] | str:
    """Return factors on rows and columns that make one matrix of another, None for all ones.

    Args:
        ours: (K, N) of the bundle.
        theirs: (K, N) of the checkpoint.

    Returns:
        inputs (K,) and outputs (N,); or how far it is from any such product.
    """
    wanted, base = ours.astype(np.float64), theirs.astype(np.float64)
    ones = (np.ones(wanted.shape[0]), np.ones(wanted.shape[1]))
    trials: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
        "none": ones,
        "inputs": (_factors(wanted, base), ones[1]),
        "both": _both(wanted, base),
    }
    apart = {
        name: float(np.linalg.norm(wanted - base * s[:, None] * t))
        for name, (s, t) in trials.items()
    }
    size = max(float(np.linalg.norm(wanted)), 1e-12)
    chosen = "none"
    for name in ("inputs", "both"):
        if apart[chosen] > _EXACT * size and apart[name] < _BETTER * apart[chosen]:
            chosen = name
    share = apart[chosen] / size
    inputs, outputs = trials[chosen]
    if share > _MOST_APART or min(inputs.min(), outputs.min()) <= 0:
        return f"is {share:.0%} apart from its checkpoint's: the build changed it"
    return (
        None if chosen == "none" else inputs.astype(np.float32),
        outputs.astype(np.float32) if chosen == "both" else None,
    )


def _factors(wanted: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the (K,) factors on the rows of `base` that come nearest to `wanted`."""
    square = np.square(base).sum(axis=1)
    found: np.ndarray = np.where(
        square > 0, (wanted * base).sum(axis=1) / np.where(square > 0, square, 1.0), 1.0
    )
    return found


def _both(wanted: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factors on rows and on columns, in turn; those on columns are 1 on average."""
    columns = np.ones(wanted.shape[1])
    rows = np.ones(wanted.shape[0])
    for _ in range(_ROUNDS):
        rows = _factors(wanted, base * columns)
        columns = _factors(wanted.T, (base * rows[:, None]).T)
    mean = float(np.exp(np.log(np.maximum(np.abs(columns), 1e-12)).mean()))
    return rows * mean, columns / mean
