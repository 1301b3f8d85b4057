"""What an encoder has learned, as an adapter of the checkpoint that it came from, and back.

Source:
    LoRA: arXiv:2106.09685. Layout: PEFT's `save_pretrained`
    (https://github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.adapter import CONFIG, Pairs, module_key, open_adapter, read_pair
from onhand.core.adapter_writing import render_config, write_pairs
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.lora_config import LoraConfig, parse_lora_config
from onhand.core.safetensors import SafetensorsFile, widen
from onhand.device.learning.base import Values
from onhand.device.learning.learned_files import is_written, read_written, write_learned
from onhand.device.learning.modules import Module, Modules, read_modules

__all__ = [
    "ReadAdapter",
    "check_classes",
    "named_modules",
    "read_network_adapter",
    "write_network_adapter",
]

_KEY: Final = re.compile(
    r"base_model\.model\.(?P<module>[\w.]+?)\.(?P<part>lora_A\.weight|lora_B\.weight|weight|bias)",
    re.ASCII,
)
_DTYPES: Final = ("F16", "BF16", "F32")
_HEAD: Final = ("head.weight", "head.bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAdapter:
    """An adapter of a checkpoint, as the bundle's own matrices need it.

    Attributes:
        pairs: tensor -> A (R, K) and B (N, R), the scale part of B.
        values: of trainables that stand in the place of a tensor: the head's, where there is one.
        classes: names of all classes; empty where nothing says.
    """

    pairs: Pairs
    values: dict[str, FloatArray]
    classes: tuple[str, ...]


def named_modules(bundle: Bundle, lesson: Lesson) -> Modules:
    """Return the checkpoint's layers that a bundle learns.

    Args:
        bundle: a verified bundle of a network.
        lesson: of it.

    Raises:
        InputError: if PEFT has no place for what it learns; it says what to do.
        BundleCorrupt: if what it says of its layers is not valid.
    """
    if lesson.rank == 0:
        raise InputError(
            f"{bundle.root} learns {lesson.kind}, for which PEFT has no layout: only what is of "
            "low rank (--learnable lora) is an adapter there; take --to safetensors"
        )
    modules = read_modules(bundle, lesson)
    if modules is None:
        raise InputError(
            f"{bundle.root}: PEFT names the layers of a checkpoint, and this network came from "
            "none whose layers are its matrices (the build's report says more); take --to "
            "safetensors"
        )
    return modules


def write_network_adapter(
    bundle: Bundle, lesson: Lesson, values: Values, folder: Path, *, classes: tuple[str, ...]
) -> tuple[int, int]:
    """Write what an encoder has learned as an adapter.

    Args:
        bundle: a verified bundle.
        lesson: of it.
        values: of every trainable.
        folder: an empty one.
        classes: names of all classes.

    Returns:
        matrices: of the bundle that it adds to.
        modules: of the checkpoint.

    Raises:
        InputError: if PEFT has no place for what it learns.
        BundleCorrupt: if what it says of its layers is not valid.
    """
    modules = named_modules(bundle, lesson)
    scale = lesson.alpha / lesson.rank
    sides: dict[str, dict[str, FloatArray]] = {}
    for name, made in lesson.trainables.items():
        sides.setdefault(made.tensor, {})[made.part] = values[name]
    pairs = {
        tensor: (parts["lora_A"], parts["lora_B"] * np.float32(scale))
        for tensor, parts in sides.items()
        if "lora_A" in parts
    }
    parts = modules.exported(pairs)
    head = modules.whole()
    wholes = {} if head is None else _head_out(head, values)
    config = render_config(
        dict.fromkeys(parts, lesson.rank),
        scale,
        targets=parts,
        task=modules.task,
        wholes=() if head is None else (head.name,),
    )
    write_pairs(folder, config, parts, scale=scale, wholes=wholes)
    mine = {name: values[name] for name in _HEAD if name in lesson.trainables}
    if mine:
        # Names of classes, and a head that the checkpoint does not have: PEFT passes over it.
        kept = mine if head is None else {}
        write_learned(folder, kept, lesson, classes=classes)
    return len(pairs), len(parts)


def _head_out(head: Module, values: Values) -> dict[str, FloatArray]:
    weight = values["head.weight"]
    found = {f"{head.name}.weight": weight if head.inputs is None else weight / head.inputs}
    if "head.bias" in values:
        found[f"{head.name}.bias"] = values["head.bias"]
    return found


def read_network_adapter(bundle: Bundle, lesson: Lesson, place: Path) -> ReadAdapter:
    """Read an adapter of the checkpoint that an encoder came from.

    Args:
        bundle: a verified bundle.
        lesson: of it.
        place: the adapter's folder, or its weights file.

    Returns:
        What it adds to the bundle's matrices.

    Raises:
        InputError: if it is damaged, for another model, or adds what the bundle cannot learn.
        BundleCorrupt: if what the bundle says of its layers is not valid.
    """
    modules = named_modules(bundle, lesson)
    content, file = open_adapter(place)
    where = str(file.path.with_name(CONFIG))
    config = parse_lora_config(content, where=where, may_replace=True)
    known = modules.of_low_rank()
    parts: dict[str, set[str]] = {}
    for tensor in sorted(file.tensors):
        match = _KEY.fullmatch(tensor)
        if match is None:
            raise InputError(f"{file.path}: {tensor!r} is no LoRA factor of a matrix, nor a head")
        parts.setdefault(match["module"], set()).add(match["part"])
    head = modules.whole()
    pairs: dict[str, tuple[FloatArray, FloatArray]] = {}
    values: dict[str, FloatArray] = {}
    for name, found in parts.items():
        plain = _known_as(name, known)
        if head is not None and name == head.name:
            values = _head_in(head, file, lesson)
        elif plain in known and found == {"lora_A.weight", "lora_B.weight"}:
            pairs[plain] = _pair_in(known[plain], name, file, config, lesson)
        elif plain in known:
            raise InputError(f"{file.path}: {name!r} has {', '.join(sorted(found))}, not its pair")
        else:
            raise InputError(
                f"{file.path}: it adds to {name!r}, which this bundle does not learn; it learns "
                f"{', '.join(list(known)[:3])}..."
            )
    folder = file.path.parent
    beside = read_written(folder, lesson) if is_written(folder) else None
    if beside is not None:
        values = beside.values | values
    return ReadAdapter(
        pairs=modules.imported(pairs), values=values, classes=beside.classes if beside else ()
    )


def _known_as(name: str, known: Mapping[str, Module]) -> str:
    """Return what a bundle calls a layer: models with a head have one more part before its name."""
    ends = {one.partition(".")[2]: one for one in known}
    if name in known:
        return name
    return ends.get(name, name.partition(".")[2])


def _pair_in(
    module: Module, name: str, file: SafetensorsFile, config: LoraConfig, lesson: Lesson
) -> tuple[FloatArray, FloatArray]:
    right = next(
        made.shape
        for made in lesson.trainables.values()
        if made.tensor == module.tensor and made.part == "lora_A"
    )
    second, first = read_pair(file, name, (module.n, right[1]), config)
    return first, second


def _head_in(head: Module, file: SafetensorsFile, lesson: Lesson) -> dict[str, FloatArray]:
    """Return the head's trainables.

    Raises:
        InputError: if a tensor is of another dtype or shape, or not finite.
    """
    found: dict[str, FloatArray] = {}
    for part in ("weight", "bias"):
        tensor, name = f"{module_key(head.name)}.{part}", f"head.{part}"
        if tensor not in file.tensors or name not in lesson.trainables:
            raise InputError(f"{file.path}: the head needs {tensor!r}, as the bundle's has it")
        spec = file.tensors[tensor]
        if spec.dtype not in _DTYPES:
            raise InputError(
                f"{file.path}: {tensor!r} is {spec.dtype}, must be {', '.join(_DTYPES)}"
            )
        found[name] = np.array(widen(file.view(tensor)), dtype=np.float32)
        if not np.isfinite(found[name]).all():
            raise InputError(f"{file.path}: {tensor!r} holds a NaN or an infinity")
    weight = found["head.weight"]
    K = lesson.trainables["head.weight"].shape[1]
    if weight.ndim != 2 or weight.shape[1] != K or found["head.bias"].shape != weight.shape[:1]:
        raise InputError(
            f"{file.path}: the head is {weight.shape} and {found['head.bias'].shape}, this bundle "
            f"needs {K} columns and a number for each row"
        )
    if head.inputs is not None:
        found["head.weight"] = weight * head.inputs
    return found


def check_classes(
    found: Mapping[str, FloatArray], lesson: Lesson, known: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names of the classes that values bring beside those that a bundle has.

    Args:
        found: of every trainable.
        lesson: of the bundle.
        known: names that the bundle has; empty where it has none.
        given: names of all classes, as they came with the values; empty for none.

    Raises:
        InputError: if names are missing, or are those of other classes.
    """
    grown = [(len(found[name]), one.shape[0]) for name, one in lesson.trainables.items()
             if one.grows]  # fmt: skip
    if not grown:
        return ()
    n, before = grown[0]
    known = known or tuple(str(number) for number in range(before))
    if given and given[: min(before, n)] != known[:before][:n]:
        raise InputError(
            f"its classes begin with {', '.join(given[:3])}, the bundle's with "
            f"{', '.join(known[:3])}: they are of another network"
        )
    if n <= before:
        return ()
    if len(given) != n:
        raise InputError(f"its head has {n} classes, the bundle {before}: nothing names the others")
    return given[before:]
