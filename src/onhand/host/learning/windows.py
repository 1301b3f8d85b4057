"""Where the windows of a convolution or a pooling lie, and how to spread numbers over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import attributes_of
from onhand.host.learning.rules import wholes_of
from onhand.host.learning.tape import Tape, called

__all__ = ["FAR", "Window", "fitted", "spread", "window_of"]

FAR: Final = 2**31 - 1
"""Beyond any size: the end of a cut that goes on to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Windows over the spatial axes, one number for each of them.

    Attributes:
        kernel: numbers that a window holds.
        strides: steps from a window to the next.
        dilations: steps from a number of a window to the next.
        begins: padding before the first number.
        ends: padding after the last.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def spans(self) -> list[int]:
        """Steps from a window's first number to its last."""
        return [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]

    @property
    def dense(self) -> bool:
        """Whether there is a window at every step."""
        return all(stride == 1 for stride in self.strides)


def window_of(tape: Tape, node: NodeProto, kernel: Sequence[int | str]) -> Window:
    """Return where a node's windows lie.

    Args:
        tape: knows the input's shape.
        node: a convolution or pooling of its first input.
        kernel: of each spatial axis.

    Raises:
        SourceError: if that is known only when the graph runs.
    """
    known = [size for size in kernel if isinstance(size, int)]
    if len(known) < len(kernel):
        raise SourceError(f"{called(node)}: the size of its kernel must be known")
    ones = [1] * len(known)
    strides, dilations = wholes_of(node, "strides", ones), wholes_of(node, "dilations", ones)
    mode = attributes_of(node).get("auto_pad", b"NOTSET")
    if mode in {b"SAME_UPPER", b"SAME_LOWER"}:
        spans = [d * (k - 1) for d, k in zip(dilations, known, strict=True)]
        totals = _same_padding(tape, node, strides, spans)
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        begins, ends = (less, more) if mode == b"SAME_UPPER" else (more, less)
    else:
        pads = wholes_of(node, "pads", [0, 0] * len(known)) if mode == b"NOTSET" else None
        begins, ends = (pads[: len(known)], pads[len(known) :]) if pads else ([0] * len(known),) * 2
    return Window(
        kernel=tuple(known),
        strides=tuple(strides),
        dilations=tuple(dilations),
        begins=tuple(begins),
        ends=tuple(ends),
    )


def _same_padding(
    tape: Tape, node: NodeProto, strides: Sequence[int], spans: Sequence[int]
) -> list[int]:
    """Return the padding that gives one window for each stride begun.

    Raises:
        SourceError: if it depends on a size that is not known.
    """
    totals: list[int] = []
    sizes = tape.shape(node.input[0])[2:]
    for size, stride, span in zip(sizes, strides, spans, strict=True):
        if stride == 1:
            totals.append(span)
        elif isinstance(size, int):
            totals.append(max((-(-size // stride) - 1) * stride + span + 1 - size, 0))
        else:
            raise SourceError(
                f"{called(node)}: its padding depends on a size that is not known; state the "
                "size, or give pads"
            )
    return totals


def spread(
    tape: Tape, node: NodeProto, gradient: str, weight: str, window: Window, *, groups: int = 1
) -> str:
    """Add each number of a gradient, times a kernel, to the window that it came from.

    Args:
        tape: the tape.
        node: the convolution or pooling: from its first input to its first result.
        gradient: (B, C, ...) of the result's spatial sizes.
        weight: (C, inputs of a group, *kernel).
        window: where the windows lie.
        groups: of channels.

    Returns:
        A tensor of the input's spatial sizes.
    """
    sizes, outs = tape.shape(node.input[0])[2:], tape.shape(node.output[0])[2:]
    attributes: dict[str, Any] = {
        "dilations": list(window.dilations),
        "group": groups,
        "strides": list(window.strides),
    }
    pads = [*window.begins, *window.ends]
    rests = [
        size - ((out - 1) * stride + span + 1 - begin - end)
        if isinstance(size, int) and isinstance(out, int)
        else (0 if stride == 1 else -1)
        for size, out, stride, span, begin, end in zip(
            sizes, outs, window.strides, window.spans, window.begins, window.ends, strict=True
        )
    ]
    if all(0 <= rest < stride for rest, stride in zip(rests, window.strides, strict=True)):
        if any(rests):
            attributes["output_padding"] = rests
        return tape.add("ConvTranspose", gradient, weight, pads=pads, **attributes)
    whole = tape.add("ConvTranspose", gradient, weight, **attributes)
    return fitted(tape, whole, node.input[0], window)


def fitted(tape: Tape, whole: str, target: str, window: Window) -> str:
    """Cut a padded tensor to another's spatial sizes; what no window reached is zero.

    Args:
        tape: the tape.
        whole: (B, C, ...), beginning at the first padded number.
        target: a tensor of the wanted spatial sizes.
        window: its padding at the beginnings is cut off.
    """
    begins = tape.integers([0, 0, *(-begin for begin in window.begins)])
    sizes = tape.add("Shape", target, start=2)
    rest = tape.add("Sub", sizes, tape.add("Shape", whole, start=2))
    ends = tape.add("Add", rest, tape.integers(window.begins))
    pads = tape.add("Concat", begins, tape.integers([0, 0]), ends, axis=0)
    return tape.add("Pad", whole, pads)
