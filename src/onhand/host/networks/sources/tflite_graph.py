"""A LiteRT file's graph, with channels first inside, as a graph of ONNX operators."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from onhand.core.errors import EngineError, SourceError
from onhand.host.networks.clean import clean
from onhand.host.networks.cleaning.quiet import run_quietly
from onhand.host.networks.graph import Array, Graph, fresh_name
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.sources.layout import Shape, Tensor, Weaver
from onhand.host.networks.sources.tflite_dilated import join_dilated
from onhand.host.networks.sources.tflite_file import TfliteFile, TfliteOperator, TfliteTensor
from onhand.host.networks.sources.tflite_layers import LAYERS
from onhand.host.networks.sources.tflite_operators import OPERATORS
from onhand.host.networks.sources.tflite_shapes import MOVES
from onhand.host.networks.sources.tflite_step import FixedBatch, Step

__all__ = ["graph_from_tflite"]

_MOST_NUMBERS: Final = 2**26


def graph_from_tflite(file: TfliteFile, *, where: str) -> Graph:
    """Return what a file computes, in float32.

    Inputs and outputs keep the file's names, order of sizes and number; quantised ones become the
    real numbers that they stand for. The batch is open where the network treats each example
    alone, which is tried with random numbers.

    Args:
        file: the file, read.
        where: its name for messages.

    Returns:
        The graph, cleaned.

    Raises:
        SourceError: if an operator is unknown, does what nothing here knows, or contradicts the
            shapes of the file.
    """
    try:
        opened = clean(_Translation(file, where, is_open=True).graph())
        _check_sizes(opened, where)
        if _each_alone(opened):
            return opened
    except FixedBatch:
        pass
    try:
        graph = clean(_Translation(file, where, is_open=False).graph())
        _check_sizes(graph, where)
        _run(graph, np.random.default_rng(0), 1)
    except FixedBatch as error:
        raise SourceError(f"{where}: an operator changes the batch") from error
    except EngineError as error:
        raise SourceError(f"{where}: its operators contradict one another: {error}") from error
    return graph


def _check_sizes(graph: Graph, where: str) -> None:
    """Refuse a graph whose values would fill the memory: sizes of a small file may say anything."""
    for value in infer_shapes(graph).values():
        _check_size([size if isinstance(size, int) else 1 for size in value.shape], where)


def _check_size(shape: Sequence[int], where: str) -> None:
    n = math.prod(shape)
    if n > _MOST_NUMBERS:
        raise SourceError(
            f"{where}: a value of {n} numbers for one example, must be at most {_MOST_NUMBERS}"
        )


def _each_alone(graph: Graph) -> bool:
    """Whether two examples together give what each gives alone."""
    if not any(value.shape and isinstance(value.shape[0], str) for value in graph.inputs):
        return False
    try:
        both, fed = _run(graph, np.random.default_rng(0), 2)
        alone, _ = _run(graph, np.random.default_rng(0), 1, {n: a[1:] for n, a in fed.items()})
    except EngineError:
        return False
    # Sums are split differently over a batch: rounding differs.
    return all(
        left.shape[:1] == (2,)
        and np.allclose(left[1:], right, rtol=1e-3, atol=1e-4, equal_nan=True)
        for left, right in zip(both, alone, strict=True)
    )


def _run(
    graph: Graph, rng: np.random.Generator, batch: int, feeds: dict[str, Array] | None = None
) -> tuple[list[Array], dict[str, Array]]:
    """Return the outputs for random inputs, and these."""
    if feeds is None:
        feeds = {}
        for value in graph.inputs:
            shape = [size if isinstance(size, int) else batch for size in value.shape]
            feeds[value.name] = (
                rng.standard_normal(shape).astype(value.dtype)
                if value.dtype.kind == "f"
                else np.zeros(shape, dtype=value.dtype)
            )
    found = run_quietly(graph, feeds)
    return [found[name] for name in graph.output_names()], feeds


class _Translation:
    """One walk through a file's operators."""

    def __init__(self, file: TfliteFile, where: str, *, is_open: bool) -> None:
        self._file, self._where, self._is_open = file, where, is_open
        self._weaver = Weaver()
        self._tensors: dict[int, Tensor] = {}
        taken: set[str] = set()
        self._names = [fresh_name(taken, _name(t, i)) for i, t in enumerate(file.tensors)]
        self._weaver.reserve(sorted(taken))
        for index in file.inputs:
            tensor = file.tensors[index]
            self._tensors[index] = self._weaver.input(
                self._names[index], _dtype(tensor), self._shape(tensor, is_open=is_open)
            )

    def graph(self) -> Graph:
        """Translate all operators.

        Raises:
            SourceError: if nothing makes an output, or an operator is unknown or wrong.
        """
        for number, operator in enumerate(join_dilated(self._file)):
            self._translate(number, operator)
        outputs = []
        for index in self._file.outputs:
            tensor = self._tensors.get(index)
            if tensor is None or index in self._file.inputs:
                raise SourceError(f"{self._where}: no operator makes output {self._names[index]!r}")
            self._weaver.output(self._names[index], tensor)
            outputs.append((self._names[index], _dtype(self._file.tensors[index]), tensor.shape))
        return self._weaver.graph(outputs)

    def _translate(self, number: int, operator: TfliteOperator) -> None:
        op = OPERATORS.get(operator.code, f"number {operator.code}")
        where = f"{self._where}: operator {number}"
        rule = LAYERS.get(op) or MOVES.get(op)
        if rule is None:
            name = f"{operator.custom[:80]!r}, somebody's own" if op == "CUSTOM" else op
            raise SourceError(f"{where} is {name}: not known here")
        if not operator.outputs or not operator.inputs:
            raise SourceError(f"{where}: {op} reads or makes nothing; damaged?")
        inputs = [self._input(index, where) for index in operator.inputs]
        results = [self._file.tensors[index] for index in operator.outputs]
        is_open = any(t is not None and t.shape[:1] == (None,) for t in inputs) and op != "SHAPE"
        self._weaver.hint = self._names[operator.outputs[0]]
        step = Step(
            op=op,
            where=where,
            weaver=self._weaver,
            inputs=inputs,
            results=results,
            shapes=[self._shape(result, is_open=is_open) for result in results],
            options=operator.options,
            block=operator.block,
            pads=operator.pads,
        )
        try:
            made = rule(step)
            parts = made if isinstance(made, list) else [made]
            self._tensors |= dict(zip(operator.outputs, parts, strict=True))
        except (ArithmeticError, IndexError, ValueError) as error:
            # A damaged file contradicts itself in more ways than each rule can name.
            raise step.error(f"does not fit the shapes of the file: {error}") from error

    def _input(self, index: int, where: str) -> Tensor | None:
        if index < 0:
            return None
        if index not in self._tensors:
            array = self._file.tensors[index].real()
            if array is None:
                raise SourceError(f"{where} reads {self._names[index]!r}, which nothing makes")
            self._tensors[index] = self._weaver.constant(array)
        return self._tensors[index]

    def _shape(self, tensor: TfliteTensor, *, is_open: bool) -> Shape:
        _check_size(tensor.shape, self._where)
        if not is_open:
            return tensor.shape
        if tensor.shape[:1] != (1,):
            raise FixedBatch
        return (None, *tensor.shape[1:])


def _dtype(tensor: TfliteTensor) -> np.dtype[np.generic]:
    if tensor.is_quantized or tensor.dtype.kind == "f":
        return np.dtype(np.float32)
    return tensor.dtype


def _name(tensor: TfliteTensor, index: int) -> str:
    plain = "".join(c if c.isprintable() else "_" for c in tensor.name)[:150]
    return plain or f"tensor{index}"
