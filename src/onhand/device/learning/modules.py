"""Which layers of its checkpoint a network's learned tensors belong to: `learn-modules.json`.

A build may join layers that read the same value, and scale channels: then a matrix of the bundle
is W' = diag(outputs) W diag(inputs) of the checkpoint's W, row by row. What adds B A to W' adds
diag(1 / outputs) B A diag(1 / inputs) to W.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.adapter import Pairs
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import Lesson
from onhand.core.outside import count, object_of, parse_json, shown, word

__all__ = ["MODULES", "TASKS", "Module", "Modules", "read_modules", "render_modules"]

MODULES: Final = "learn-modules.json"
"""The file of a bundle that says it; one without it has no checkpoint that names layers."""
TASKS: Final = ("FEATURE_EXTRACTION", "SEQ_CLS")
FORMAT: Final = 1
_MOST_BYTES: Final = 32 * 2**20
_MOST_MODULES, _MOST_SIZE = 2**14, 2**24
_KEYS: Final = {"first", "inputs", "is_whole", "module", "n", "outputs", "tensor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A layer of the checkpoint: some rows of a matrix of the bundle.

    Attributes:
        name: in the checkpoint, without ".weight".
        tensor: the bundle's, as a lesson's trainables name it.
        first: row of it that the layer begins at.
        n: rows.
        inputs: (K,) float32 that the build scaled the layer's inputs' columns by; None for ones.
        outputs: (n,) float32 that it scaled its rows by; None for ones.
        is_whole: whether it is learned whole: it is the head.
    """

    name: str
    tensor: str
    first: int
    n: int
    inputs: FloatArray | None = None
    outputs: FloatArray | None = None
    is_whole: bool = False

    def to_original(self, right: FloatArray, left: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return A and B of the checkpoint's layer for A (R, K) and B (n, R) of the bundle's."""
        if self.inputs is not None:
            right = right / self.inputs
        if self.outputs is not None:
            left = left / self.outputs[:, None]
        return right, left

    def to_bundle(self, right: FloatArray, left: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return A and B of the bundle's rows for those of the checkpoint's layer."""
        if self.inputs is not None:
            right = right * self.inputs
        if self.outputs is not None:
            left = left * self.outputs[:, None]
        return right, left


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """All layers that a lesson learns.

    Attributes:
        task: one of `TASKS`, as PEFT calls them.
        modules: in the order of the checkpoint's names.
    """

    task: str
    modules: Sequence[Module]

    def of_low_rank(self) -> dict[str, Module]:
        """Return name -> layer, of those that something of low rank is added to."""
        return {one.name: one for one in self.modules if not one.is_whole}

    def whole(self) -> Module | None:
        """Return the layer that is learned whole; None where there is none."""
        return next((one for one in self.modules if one.is_whole), None)

    def exported(self, pairs: Pairs) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Return module -> A and B, for tensor -> A (R, K) and B (N, R), the scale part of B."""
        found: dict[str, tuple[FloatArray, FloatArray]] = {}
        for name, module in self.of_low_rank().items():
            if module.tensor in pairs:
                right, left = pairs[module.tensor]
                rows = left[module.first : module.first + module.n]
                found[name] = module.to_original(right, rows)
        return found

    def imported(self, parts: Pairs) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Return tensor -> A (R, K) and B (N, R), for module -> A and B; the scale part of B.

        Layers that are one matrix here get rows of B, and columns of it, of their own.
        """
        sizes: dict[str, int] = {}
        for one in self.of_low_rank().values():
            sizes[one.tensor] = max(sizes.get(one.tensor, 0), one.first + one.n)
        made: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
        for name, (right, left) in parts.items():
            module = self.of_low_rank()[name]
            first, second = module.to_bundle(right, left)
            wide = np.zeros((sizes[module.tensor], second.shape[1]), dtype=np.float32)
            wide[module.first : module.first + module.n] = second
            made.setdefault(module.tensor, []).append((first.astype(np.float32), wide))
        return {
            tensor: (
                np.concatenate([first for first, _ in some]),
                np.concatenate([second for _, second in some], axis=1),
            )
            for tensor, some in made.items()
        }


def render_modules(modules: Modules) -> bytes:
    """Return the one byte string of a bundle's layers: sorted keys, final newline."""
    table = {
        "format": FORMAT,
        "modules": [
            {
                "first": one.first,
                "inputs": _listed(one.inputs),
                "is_whole": one.is_whole,
                "module": one.name,
                "n": one.n,
                "outputs": _listed(one.outputs),
                "tensor": one.tensor,
            }
            for one in modules.modules
        ],
        "task": modules.task,
    }
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _listed(array: FloatArray | None) -> list[float] | None:
    # The shortest text that is this float32 again.
    return None if array is None else [float(str(one)) for one in array.astype(np.float32)]


def read_modules(bundle: Bundle, lesson: Lesson) -> Modules | None:
    """Read which layers of its checkpoint a bundle learns.

    Args:
        bundle: a verified bundle of a network.
        lesson: of it.

    Returns:
        The layers; None where the bundle does not say.

    Raises:
        BundleCorrupt: if what it says is not valid.
    """
    entry = bundle.manifest.files.get(MODULES)
    if entry is None:
        return None
    where = f"{bundle.root}: {MODULES}"
    if entry.size > _MOST_BYTES:
        raise BundleCorrupt(f"{where}: over {_MOST_BYTES} bytes")
    try:
        return _modules(parse_json(bundle.path(MODULES).read_bytes()), lesson)
    except OSError as error:
        raise BundleCorrupt(f"{where} cannot be read: {error}") from error
    except InputError as error:
        raise BundleCorrupt(f"{where}: {error}") from error


def _modules(value: object, lesson: Lesson) -> Modules:
    table = object_of(value, "modules", {"format", "modules", "task"})
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    listed = table.get("modules")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_MODULES:
        raise InputError(f"modules must be a list of 1 to {_MOST_MODULES} layers")
    found = tuple(_module(entry, lesson) for entry in listed)
    if len({one.name for one in found}) != len(found):
        raise InputError("a layer is named twice")
    if sum(one.is_whole for one in found) > 1:
        raise InputError("two layers are learned whole")
    return Modules(task=word(table, "task", "modules", TASKS), modules=found)


def _module(value: object, lesson: Lesson) -> Module:
    """Return one layer.

    Raises:
        InputError: if it does not fit the lesson's tensors.
    """
    table = object_of(value, "layer", _KEYS)
    name, tensor, is_whole = (table.get(key) for key in ("module", "tensor", "is_whole"))
    if not isinstance(name, str) or not isinstance(tensor, str) or not 1 <= len(name) <= 200:
        raise InputError(f"{shown(name)} of {shown(tensor)} are no names")
    if not isinstance(is_whole, bool):
        raise InputError(f"is_whole of {shown(name)} must be true or false")
    shapes = {made.part: made.shape for made in lesson.trainables.values() if made.tensor == tensor}
    right, left = (shapes.get(p) for p in ("lora_A", "lora_B"))
    whole = shapes.get("whole")
    if is_whole and whole is not None and len(whole) == 2:
        N, K = whole
    elif not is_whole and right is not None and left is not None:
        N, K = left[0], right[1]
    else:
        raise InputError(f"{shown(name)}: {shown(tensor)} is not learned so")
    first = count(table, "first", name, least=0, most=_MOST_SIZE)
    n = count(table, "n", name, most=_MOST_SIZE)
    if first + n > N:
        raise InputError(f"{shown(name)}: rows {first} to {first + n} of {N}")
    return Module(
        name=name,
        tensor=tensor,
        first=first,
        n=n,
        inputs=_scales(table, "inputs", K),
        outputs=_scales(table, "outputs", n),
        is_whole=is_whole,
    )


def _scales(table: Mapping[str, object], key: str, size: int) -> FloatArray | None:
    listed = table.get(key)
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) != size:
        raise InputError(f"{key} must be {size} numbers")
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):
        raise InputError(f"{key} must be numbers")
    with np.errstate(over="ignore"):
        array = np.array(listed, dtype=np.float32)
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise InputError(f"{key} must be finite numbers above 0")
    return array
