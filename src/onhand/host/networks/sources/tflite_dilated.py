"""Dilated convolutions that older converters wrote as three operators."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.sources.tflite_file import TfliteFile, TfliteOperator

__all__ = ["join_dilated"]

_TO_BATCH: Final = 38
_FROM_BATCH: Final = 37
_CONVOLUTIONS: Final = {3, 4}


def join_dilated(file: TfliteFile) -> tuple[TfliteOperator, ...]:
    """Return a file's operators, with SpaceToBatch, convolution and BatchToSpace as one.

    SpaceToBatch by (b, b) puts every b-th place beside one another: a plain convolution then is one
    with dilation b of the padded picture, and BatchToSpace cuts off what the padding made too much.

    Args:
        file: the file.

    Returns:
        The operators; those that stand otherwise stay three.

    Source:
        arXiv:1511.07122; the operators: tf.space_to_batch_nd of TensorFlow's documentation.
    """
    readers: dict[int, list[int]] = {}
    for number, operator in enumerate(file.operators):
        for index in operator.inputs:
            readers.setdefault(index, []).append(number)
    joined: dict[int, TfliteOperator] = {}
    gone: set[int] = set()
    for number, operator in enumerate(file.operators):
        chain = _chain(file, readers, number, operator)
        if chain is not None:
            middle, end, whole = chain
            # In the convolution's place: its weights may come after the first of the three.
            joined[middle] = whole
            gone |= {number, end}
    kept = (joined.get(i, operator) for i, operator in enumerate(file.operators) if i not in gone)
    return tuple(kept)


def _chain(
    file: TfliteFile, readers: dict[int, list[int]], number: int, operator: TfliteOperator
) -> tuple[int, int, TfliteOperator] | None:
    """Return where a chain goes on, where it ends, and what it is as one operator."""
    if operator.code != _TO_BATCH:
        return None
    middle = _only_reader(file, readers, operator)
    end = None if middle is None else _only_reader(file, readers, file.operators[middle])
    if middle is None or end is None:
        return None
    convolution, last = file.operators[middle], file.operators[end]
    if convolution.code not in _CONVOLUTIONS or last.code != _FROM_BATCH:
        return None
    if convolution.inputs[0] != operator.outputs[0] or last.inputs[0] != convolution.outputs[0]:
        return None
    spreads, gathers = list(_numbers(file, operator)), list(_numbers(file, last))
    if len(spreads) != 6 or len(gathers) != 6 or spreads[:2] != gathers[:2]:
        return None
    # (begin, end) of the height, then of the width, less what is cut off.
    top, bottom, left, right = (a - b for a, b in zip(spreads[2:], gathers[2:], strict=True))
    if min(top, bottom, left, right) < 0 or min(spreads[:2]) < 1:
        return None
    whole = replace(
        convolution,
        inputs=(operator.inputs[0], *convolution.inputs[1:]),
        outputs=last.outputs,
        block=(spreads[0], spreads[1]),
        pads=(top, left, bottom, right),
    )
    return middle, end, whole


def _only_reader(
    file: TfliteFile, readers: dict[int, list[int]], operator: TfliteOperator
) -> int | None:
    if len(operator.outputs) != 1 or operator.outputs[0] in file.outputs:
        return None
    found = readers.get(operator.outputs[0], [])
    return found[0] if len(found) == 1 else None


def _numbers(file: TfliteFile, operator: TfliteOperator) -> Iterator[int]:
    """Yield what an operator's constants hold: block, then paddings or what is cut off."""
    for index in operator.inputs[1:]:
        array = file.tensors[index].data if index >= 0 else None
        if array is None or array.dtype.kind != "i" or array.size > 6:
            return
        yield from (int(number) for number in np.ravel(array))
