"""What was learned as plain tensors in a folder: for whatever has no layout that others share.

    learned.safetensors   trainables by the names that the lesson has for them, float32
    learned.json          what they are: the lesson's kind, and the names of all classes

A folder may hold only some of a lesson's trainables: beside an adapter in PEFT's layout lies the
head of a network that has none in its checkpoint.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import Lesson
from onhand.core.outside import object_of, parse_json, shown
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.device.learning.base import Values

__all__ = ["DESCRIBED", "TENSORS", "Written", "is_written", "read_written", "write_learned"]

TENSORS: Final = "learned.safetensors"
DESCRIBED: Final = "learned.json"
FORMAT: Final = 1
_MOST_BYTES, _MOST_CLASSES = 2**24, 2**16


@dataclass(frozen=True, slots=True)
class Written:
    """What a folder holds.

    Attributes:
        values: trainable's name -> array, float32 and finite; some or all of a lesson's.
        classes: names of all classes; empty where nobody named them.
    """

    values: dict[str, FloatArray]
    classes: tuple[str, ...]


def is_written(place: Path) -> bool:
    """Return whether a folder holds what `write_learned` wrote."""
    return (place / DESCRIBED).is_file()


def write_learned(folder: Path, values: Values, lesson: Lesson, *, classes: tuple[str, ...]) -> int:
    """Write values into a folder; the same ones give the same bytes.

    Args:
        folder: where to.
        values: trainable's name -> array.
        lesson: what they are.
        classes: names of all classes.

    Returns:
        Bytes of both files.
    """
    table = {"classes": list(classes), "format": FORMAT, "kind": lesson.kind}
    content = json.dumps(table, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"
    (folder / DESCRIBED).write_bytes(content)
    declared = {
        name: TensorSpec(dtype="F32", shape=values[name].shape)
        for name in lesson.trainables
        if name in values
    }
    with SafetensorsWriter(folder / TENSORS, declared) as writer:
        for name in declared:
            writer.write(name, np.ascontiguousarray(values[name], dtype=np.float32))
        writer.close()
    return len(content) + (folder / TENSORS).stat().st_size


def read_written(place: Path, lesson: Lesson) -> Written:
    """Read a folder that `write_learned` wrote, here or elsewhere.

    Args:
        place: the folder.
        lesson: what its values are for; shapes are for whoever uses them to check.

    Raises:
        InputError: if it is damaged, of another kind, or holds what the lesson has not.
    """
    path = place / DESCRIBED
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"over {_MOST_BYTES} bytes")
        table = object_of(parse_json(content), "what was learned", {"classes", "format", "kind"})
        if table.get("format") != FORMAT:
            raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
        if table.get("kind") != lesson.kind:
            raise InputError(f"is of kind {shown(table.get('kind'))}, the bundle's {lesson.kind!r}")
        classes = _classes(table.get("classes"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Written(values=_values(place / TENSORS, lesson), classes=classes)


def _classes(value: object) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else None
    if listed is None or len(listed) > _MOST_CLASSES:
        raise InputError(f"classes must be a list of up to {_MOST_CLASSES} names")
    for name in listed:
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or "\n" in name:
            raise InputError(f"{shown(name)} is no name of a class")
    if len(set(listed)) != len(listed):
        raise InputError("classes names one twice")
    return tuple(listed)


def _values(path: Path, lesson: Lesson) -> dict[str, FloatArray]:
    try:
        file = open_safetensors(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing") from error
    except (BundleCorrupt, OSError) as error:
        raise InputError(f"{error}") from error
    found: dict[str, FloatArray] = {}
    for name, spec in file.tensors.items():
        if name not in lesson.trainables:
            raise InputError(f"{path}: {shown(name)} is nothing that this bundle learns")
        if spec.dtype != "F32":
            raise InputError(f"{path}: {shown(name)} is {spec.dtype}, must be F32")
        found[name] = np.array(file.view(name), dtype=np.float32)
        if not np.isfinite(found[name]).all():
            raise InputError(f"{path}: {shown(name)} holds a NaN or an infinity")
    return found
