"""Gradients of convolutions over any number of spatial axes."""

import itertools
from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.depthwise import depthwise_kernels
from onhand.host.learning.graph_shapes import attributes_of
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Tape, called
from onhand.host.learning.windows import FAR, Window, spread, window_of

__all__ = ["RULES"]

_Pair = tuple[str, str]


def _conv(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    passed, groups = only(node, given), whole_of(node, "group", 1)
    window = window_of(tape, node, tape.shape(node.input[1])[2:])
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = _of_input(tape, node, passed, window, groups)
    if needs[1]:
        wide, narrow = (node.input[0],) * 2, (passed, node.output[0])
        found[1] = _of_kernels(tape, node, wide, narrow, window, groups)
    if len(needs) > 2 and needs[2]:
        found[2] = _of_bias(tape, node, passed)
    return found


def _of_input(tape: Tape, node: NodeProto, passed: str, window: Window, groups: int) -> str:
    """Convolve the gradient with the kernels turned round, or transpose the convolution.

    The first can be where there is a window at every step. Over frozen kernels it takes four
    fifths to a fifth of the time, the less the more groups there are; over learned ones as long.
    """
    outputs, inputs = tape.shape(node.input[1])[:2]
    n_begins = [span - b for span, b in zip(window.spans, window.begins, strict=True)]
    n_ends = [span - e for span, e in zip(window.spans, window.ends, strict=True)]
    single = inputs == 1 and outputs == groups
    if not window.dense or min(n_begins + n_ends) < 0 or not (groups == 1 or single):
        return spread(tape, node, passed, node.input[1], window, groups=groups)
    kernels = _turned(tape, node.input[1], window)
    if groups == 1:
        rank = len(window.kernel) + 2
        kernels = tape.add("Transpose", kernels, perm=[1, 0, *range(2, rank)])
    return tape.add(
        "Conv",
        passed,
        kernels,
        dilations=list(window.dilations),
        group=groups,
        pads=[*n_begins, *n_ends],
    )


def _turned(tape: Tape, kernels: str, window: Window) -> str:
    """Reverse the spatial axes of kernels."""
    axes = [2 + i for i, size in enumerate(window.kernel) if size > 1]
    if not axes:
        return kernels
    n = len(axes)
    bounds = [tape.integers(values) for values in ([-1] * n, [-FAR] * n, axes, [-1] * n)]
    return tape.add("Slice", kernels, *bounds)


def _of_kernels(
    tape: Tape, node: NodeProto, wide: _Pair, narrow: _Pair, window: Window, groups: int
) -> str:
    """Multiply what has one number for each window by what each kernel number met there.

    With M = B times the windows: (groups, outputs, M) by (groups, inputs * kernel, M)^T. A
    convolution with batch and channels exchanged does the same in two to three times the time.

    Args:
        tape: the tape.
        node: the convolution, with kernels (outputs, inputs of a group, *kernel).
        wide: what the windows lie in, and a tensor of the graph that has its shape.
        narrow: what has a number for each window, and a tensor that has its shape.
        window: where the windows lie.
        groups: of channels.

    Raises:
        SourceError: if the number of channels is not known.
    """
    shape = tape.shape(node.input[1])
    known = [size for size in shape if isinstance(size, int)]
    if len(known) < len(shape):
        raise SourceError(f"{called(node)}: the shape of its kernels must be known")
    n_outputs, n_inputs = known[:2]
    rank, reached = len(shape), _reached(tape, wide, narrow, window)
    if n_inputs == 1 and n_outputs == groups and max(window.kernel) > 1:
        row = tape.shape(narrow[1])[-1]
        return depthwise_kernels(tape, reached, narrow[0], window, shape=known, row=row)
    first = [1, 0, *range(2, rank)]
    met = tape.add("Transpose", reached, perm=first)  # (C, B, ...)
    slices = [
        tape.add("Reshape", piece, tape.integers([groups, n_inputs, 1, -1]))
        for piece in _pieces(tape, met, window)
    ]
    columns = tape.add("Concat", *slices, axis=2) if len(slices) > 1 else slices[0]
    flat = tape.integers([groups, n_inputs * len(slices), -1])
    columns = tape.add("Reshape", columns, flat)  # (groups, inputs * kernel, M)
    numbers = tape.add("Transpose", narrow[0], perm=first)  # (N, B, ...)
    rows = tape.add("Reshape", numbers, tape.integers([groups, n_outputs // groups, -1]))
    product = tape.fused_matmul(rows, columns, trans_b=True)
    return tape.add("Reshape", product, tape.integers(known))


def _reached(tape: Tape, wide: _Pair, narrow: _Pair, window: Window) -> str:
    """Return what the windows lie in, padded, and cut where the last window ends."""
    x, likes = wide[0], (wide[1], narrow[1])
    sizes, outs = (tape.shape(like)[2:] for like in likes)
    rests: list[int] | None = []
    for size, out, stride, span, begin, end in zip(
        sizes, outs, window.strides, window.spans, window.begins, window.ends, strict=True
    ):
        if isinstance(size, int) and isinstance(out, int):
            rest = size + begin + end - ((out - 1) * stride + span + 1)
        else:
            rest = 0 if stride == 1 else -1
        rests = None if rests is None or rest < 0 else [*rests, rest]
    if rests is not None:
        ends = [end - rest for end, rest in zip(window.ends, rests, strict=True)]
        pads = [0, 0, *window.begins, 0, 0, *ends]
        return tape.add("Pad", x, tape.integers(pads)) if any(pads) else x
    # The last window's end is known when the graph runs: (outs - 1) * stride + span + 1.
    windows = tape.add("Shape", likes[1], start=2)
    steps = tape.add("Mul", windows, tape.integers(window.strides))
    extra = [
        span + 1 - stride - begin
        for span, stride, begin in zip(window.spans, window.strides, window.begins, strict=True)
    ]
    ends_at = tape.add("Add", steps, tape.integers(extra))
    ends_of = tape.add("Sub", ends_at, tape.add("Shape", likes[0], start=2))
    begins = tape.integers([0, 0, *window.begins])
    widths = tape.add("Concat", begins, tape.integers([0, 0]), ends_of, axis=0)
    return tape.add("Pad", x, widths)


def _pieces(tape: Tape, met: str, window: Window) -> list[str]:
    """Cut out, for each number of a kernel, what it met: (C, B, windows)."""
    n = len(window.kernel)
    axes, steps = tape.integers(range(2, 2 + n)), tape.integers(window.strides)
    if not any(window.spans) and window.dense:
        return [met]
    pieces: list[str] = []
    for place in itertools.product(*(range(size) for size in window.kernel)):
        starts = [d * i for d, i in zip(window.dilations, place, strict=True)]
        ends = [
            start - span if start < span else FAR
            for start, span in zip(starts, window.spans, strict=True)
        ]
        bounds = (tape.integers(starts), tape.integers(ends), axes, steps)
        pieces.append(tape.add("Slice", met, *bounds))
    return pieces


def _transposed(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """ConvTranspose: a convolution the other way round.

    Raises:
        SourceError: if its padding is automatic, or follows from a wanted shape.
    """
    options = attributes_of(node)
    mode = options.get("auto_pad", b"NOTSET")
    if mode not in {b"NOTSET", b"VALID"} or "output_shape" in options:
        raise SourceError(f"{called(node)}: auto_pad and output_shape have no rule; give pads")
    passed, groups = only(node, given), whole_of(node, "group", 1)
    window = window_of(tape, node, tape.shape(node.input[1])[2:])
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = tape.add(
            "Conv",
            passed,
            node.input[1],
            dilations=list(window.dilations),
            group=groups,
            pads=[*window.begins, *window.ends],
            strides=list(window.strides),
        )
    if needs[1]:
        wide, narrow = (passed, node.output[0]), (node.input[0],) * 2
        found[1] = _of_kernels(tape, node, wide, narrow, window, groups)
    if len(needs) > 2 and needs[2]:
        found[2] = _of_bias(tape, node, passed)
    return found


def _of_bias(tape: Tape, node: NodeProto, passed: str) -> str:
    others = [0, *range(2, len(tape.shape(node.output[0])))]
    return tape.add("ReduceSum", passed, tape.integers(others), keepdims=0)


RULES: Final[Rules] = {("", "Conv"): _conv, ("", "ConvTranspose"): _transposed}
