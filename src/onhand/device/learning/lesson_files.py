"""The files of a bundle's lesson, checked before any engine parses them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import LESSON, MAX_LESSON_BYTES, Lesson, Trainable, parse_lesson
from onhand.core.onnxfile import check_tensors, read_graph
from onhand.core.onnxgraph import DeclaredArray, declared_arrays
from onhand.core.safetensors import open_safetensors
from onhand.core.sparse_graph import part_of_graph
from onhand.device.learning.rounding import scale_name
from onhand.device.networks.answers import read_labels

__all__ = [
    "can_learn",
    "class_names",
    "read_lesson",
    "read_lesson_graph",
    "read_scales",
    "read_start",
    "read_values",
]

_NUMBERS = ".safetensors"


def can_learn(bundle: Bundle) -> bool:
    """Say whether a bundle holds a lesson."""
    return LESSON in bundle.manifest.files


def read_lesson(bundle: Bundle) -> Lesson:
    """Read what a bundle can learn.

    Args:
        bundle: a verified bundle.

    Returns:
        The lesson; its files are in the bundle.

    Raises:
        InputError: if the bundle holds no lesson.
        BundleCorrupt: if the lesson is not valid, or names what the manifest does not list.
    """
    entry = bundle.manifest.files.get(LESSON)
    if entry is None:
        raise InputError(
            f"{bundle.root}: cannot learn: it holds no {LESSON}; build it again with --learnable"
        )
    if entry.size > MAX_LESSON_BYTES:
        raise BundleCorrupt(f"{bundle.root}: {LESSON}: over {MAX_LESSON_BYTES} bytes")
    try:
        content = bundle.path(LESSON).read_bytes()
    except OSError as error:
        raise BundleCorrupt(f"{bundle.root}: {LESSON} cannot be read: {error}") from error
    lesson = parse_lesson(content, where=str(bundle.root))
    others = [name for name in (lesson.trunk, lesson.answers) if name is not None]
    named = [lesson.graph, lesson.start, *others]
    for name in named:
        if name not in bundle.manifest.files:
            raise BundleCorrupt(
                f"{bundle.root}: {LESSON} names {name!r}, which is not among the bundle's files"
            )
    if lesson.variant not in bundle.manifest.variants:
        raise BundleCorrupt(
            f"{bundle.root}: {LESSON} reads the weights of {lesson.variant!r}, which is no variant"
        )
    return lesson


def class_names(bundle: Bundle, lesson: Lesson) -> tuple[str, ...]:
    """Return the names of the classes that a bundle's network tells apart as it was built.

    Args:
        bundle: a verified bundle of a network.
        lesson: of it.

    Returns:
        The network's labels, or those of the lesson's new head; none where nobody named them.

    Raises:
        BundleCorrupt: if the labels cannot be read.
    """
    return read_labels(bundle) or lesson.classes


def read_lesson_graph(
    bundle: Bundle, lesson: Lesson, name: str
) -> tuple[bytes, dict[str, DeclaredArray], dict[str, DeclaredArray]]:
    """Read the graph of a lesson, or its trunk.

    Args:
        bundle: a verified bundle.
        lesson: what `read_lesson` returned.
        name: the graph's file.

    Returns:
        content: an ONNX file whose external tensors lie in the bundle's weights files.
        inputs: by name.
        outputs: by name.

    Raises:
        BundleCorrupt: if it is not ONNX, or reads bytes that it may not.
    """
    path = bundle.path(name)
    content = part_of_graph(read_graph(path), bundle, lesson.variant)
    allowed = [file for file in bundle.manifest.files if file.endswith(_NUMBERS)]
    check_tensors(content, bundle.sizes(allowed), where=str(path))
    inputs, outputs = declared_arrays(content)
    return content, _by_name(inputs), _by_name(outputs)


def _by_name(arrays: Sequence[DeclaredArray]) -> dict[str, DeclaredArray]:
    return {info.name: info for info in arrays}


def read_start(bundle: Bundle, lesson: Lesson) -> dict[str, FloatArray]:
    """Read the trainables' starting values.

    Raises:
        BundleCorrupt: if one is missing, of another dtype or shape, or not finite.
    """
    path = bundle.path(lesson.start)
    values = read_values(path)
    for name, made in lesson.trainables.items():
        found = values.get(name)
        if found is None or found.shape != made.shape:
            shape = "missing" if found is None else f"of shape {found.shape}"
            raise BundleCorrupt(f"{path}: {name!r} is {shape}, {LESSON} says {made.shape}")
    return {name: values[name] for name in lesson.trainables}


def read_scales(bundle: Bundle, lesson: Lesson) -> dict[str, FloatArray]:
    """Read the scales of the trainables' starting values, of those that answer as integers.

    Args:
        bundle: a verified bundle.
        lesson: of it.

    Returns:
        Trainable's name -> () or (C,) float32; none for a trainable whose scales are not kept.

    Raises:
        BundleCorrupt: if the file cannot be read.
    """
    coded = [name for name, made in lesson.trainables.items() if made.codes is not None]
    if not coded:
        return {}
    values = read_values(bundle.path(lesson.start))
    return {name: values[scale_name(name)] for name in coded if scale_name(name) in values}


def read_values(path: Path) -> dict[str, FloatArray]:
    """Read the tensors of a file of trainables, the caller's own.

    Args:
        path: a safetensors file.

    Returns:
        Name -> float32.

    Raises:
        BundleCorrupt: if it cannot be read, or one is of another dtype or not finite.
    """
    try:
        file = open_safetensors(path)
    except OSError as error:
        raise BundleCorrupt(f"{path}: cannot be read: {error}") from error
    values: dict[str, FloatArray] = {}
    for name, spec in file.tensors.items():
        if spec.dtype != "F32":
            raise BundleCorrupt(f"{path}: {name!r} is {spec.dtype}, must be F32")
        values[name] = file.view(name).astype(np.float32, copy=True)
        if not np.isfinite(values[name]).all():
            raise BundleCorrupt(f"{path}: {name!r} holds numbers that are not finite")
    return values


def check_values(values: Mapping[str, FloatArray], trainables: Mapping[str, Trainable]) -> int:
    """Check the values of trainables against a lesson.

    Args:
        values: by name.
        trainables: likewise.

    Returns:
        Classes that were added: the same number for every trainable that grows.

    Raises:
        InputError: if one is missing, unknown, or of another dtype or shape.
    """
    if odd := sorted(values.keys() ^ trainables.keys()):
        kind = "is missing" if odd[0] in trainables else "is not one that is learned"
        raise InputError(f"value {odd[0]!r} {kind}")
    grown: dict[str, int] = {}
    for name, made in trainables.items():
        value = values[name]
        if not isinstance(value, np.ndarray):
            raise InputError(f"value {name!r} is a {type(value).__name__}, no array")
        if value.dtype != np.float32:
            raise InputError(f"value {name!r} is {value.dtype}, must be float32")
        fits = value.shape == made.shape
        if made.grows and value.ndim == len(made.shape) and value.shape[1:] == made.shape[1:]:
            grown[name] = value.shape[0] - made.shape[0]
            fits = grown[name] >= 0
        if not fits:
            least = ", or more classes" if made.grows else ""
            raise InputError(f"value {name!r} is {value.shape}, must be {made.shape}{least}")
    if len(set(grown.values())) > 1:
        raise InputError(f"the classes added differ: {grown}")
    return next(iter(grown.values()), 0)
