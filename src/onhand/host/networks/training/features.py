"""Values inside teacher and student that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph, Value
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["Pair", "attention_pairs", "feature_pairs"]

_MOST = 4
# What ends a block; the many values between add little.
_ENDS: Final = {"Add", "Clip", "Gelu", "HardSwish", "LayerNormalization", "Mul", "Relu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A value of the teacher and one of the student.

    Attributes:
        theirs: the teacher's name of it.
        ours: the student's.
        axis: where its channels are.
        widths: channels of the student's and of the teacher's; None where that is not known.
    """

    theirs: str
    ours: str
    axis: int = 1
    widths: tuple[int, int] | None = None


def feature_pairs(
    teacher: Graph, student: Graph, *, named: Sequence[str], project: bool
) -> tuple[Pair, ...]:
    """Find values to be made alike.

    Args:
        teacher: the teacher.
        student: the student.
        named: "name" or "teacher's:student's"; empty for up to four ends of blocks that have the
            same name in both, spread over the depth.
        project: whether channels may differ: a trained matrix goes between.

    Returns:
        The pairs, in the student's order.

    Raises:
        InputError: if a name is unknown, shapes differ, or nothing belongs together.
    """
    of_teacher, of_student = infer_shapes(teacher), infer_shapes(student)
    if named:
        return tuple(_named(text, of_teacher, of_student, project=project) for text in named)
    outputs = set(student.output_names())
    found = [
        pair
        for node in student.nodes
        if node.op in _ENDS and node.name not in outputs and node.name in of_teacher
        if node.name in of_student
        if (pair := _pair(of_teacher[node.name], of_student[node.name], project=project))
    ]
    if not found:
        raise InputError(
            "no value inside teacher and student has the same name and shape; name some with "
            "features = [\"teacher's:student's\"]"
        )
    step = max(1, len(found) / _MOST)
    # The last of each stretch: the end of the network is among them.
    return tuple(
        found[min(len(found), round((i + 1) * step)) - 1] for i in range(min(_MOST, len(found)))
    )


def attention_pairs(teacher: Graph, student: Graph) -> tuple[Pair, ...]:
    """Find maps of attention: of transformers, else the activations of convolutions.

    Args:
        teacher: the teacher.
        student: the student; its channels and heads may be fewer.

    Returns:
        Up to four pairs of (B, C, H, W).

    Raises:
        InputError: if there is none.
    """
    of_teacher, of_student = infer_shapes(teacher), infer_shapes(student)
    for ends in ({"Softmax"}, _ENDS):
        found = [
            Pair(theirs=node.name, ours=node.name)
            for node in student.nodes
            if node.op in ends and node.name in of_teacher and node.name in of_student
            and _same_places(of_teacher[node.name], of_student[node.name])
        ]  # fmt: skip
        if found:
            step = max(1, len(found) / _MOST)
            return tuple(found[round((i + 1) * step) - 1] for i in range(min(_MOST, len(found))))
    raise InputError("no map of attention has the same name and shape in teacher and student")


def _same_places(theirs: Value, ours: Value) -> bool:
    sizes = [value.shape for value in (theirs, ours)]
    if any(len(shape) != 4 or shape[-1] in {1, None} for shape in sizes):
        return False
    return sizes[0][2:] == sizes[1][2:]


def _named(
    text: str, of_teacher: dict[str, Value], of_student: dict[str, Value], *, project: bool
) -> Pair:
    # A name may hold colons itself.
    parts = (text, text) if text in of_student else text.rpartition(":")[::2]
    for name, known, whose in (
        (parts[0], of_teacher, "teacher"),
        (parts[1], of_student, "student"),
    ):
        if name not in known:
            raise InputError(f"features: the {whose} has no value {name!r}")
    theirs, ours = of_teacher[parts[0]], of_student[parts[1]]
    found = _pair(theirs, ours, project=project)
    if found is None:
        hint = "" if project else "; project = true puts a trained matrix between"
        raise InputError(
            f"features: {text!r} is {theirs.shape} in the teacher, {ours.shape} in the student"
            f"{hint}"
        )
    return found


def _pair(theirs: Value, ours: Value, *, project: bool) -> Pair | None:
    if len(theirs.shape) != len(ours.shape) or len(ours.shape) < 2:
        return None
    if theirs.dtype.kind != "f" or ours.dtype.kind != "f":
        return None
    axis = 1 if len(ours.shape) in {2, 4} else len(ours.shape) - 1
    for i, (a, b) in enumerate(zip(theirs.shape, ours.shape, strict=True)):
        # Sizes with names are those of batches and texts: of both, the same.
        if i and i != axis and isinstance(a, int) and isinstance(b, int) and a != b:
            return None
    first, second = theirs.shape[axis], ours.shape[axis]
    if not isinstance(first, int) or not isinstance(second, int):
        return None
    if first != second and not project:
        return None
    widths = (second, first) if first != second else None
    return Pair(theirs=theirs.name, ours=ours.name, axis=axis, widths=widths)
