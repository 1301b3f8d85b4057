"""A memory as named arrays, for the disk, and back: everything that is read is checked."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.device.learning.memory.store import GROUP_BYTES, Group, Memory, Slot, size_of

__all__ = ["memory_of", "read_memory"]

_SLOTS, _GROUPS, _FIELD, _SHAPES = "slots.", "groups.", "item.", "shapes."
_MOST_SLOTS, _MOST_DIMS, _MOST_FIELDS = 2**24, 6, 64
_TYPES: Final = ("uint8", "int32", "int64", "float16", "float32")
_Arrays = Mapping[str, np.ndarray]


def memory_of(memory: Memory) -> dict[str, np.ndarray]:
    """Return a memory's content as arrays: of each name, all examples' values one after another.

    Args:
        memory: what is kept.

    Returns:
        "slots.*" and "groups.*" with one row for each; "item.NAME", flat, and "shapes.NAME"
        (N, dimensions) int64 for each array of an example.
    """
    slots, groups = memory.slots, sorted(memory.groups.items())
    made = {
        "slots.group": np.array([slot.group for slot in slots], np.int64),
        "slots.priority": np.array([slot.priority for slot in slots], np.float64),
        "groups.key": np.array([key for key, _ in groups], np.int64),
        "groups.ceiling": np.array([group.ceiling for _, group in groups], np.float64),
    }
    for name in sorted(slots[0].item) if slots else ():
        arrays = [slot.item[name] for slot in slots]
        made[_FIELD + name] = np.concatenate([array.reshape(-1) for array in arrays])
        shapes = np.array([array.shape for array in arrays], np.int64)
        made[_SHAPES + name] = shapes.reshape(len(slots), arrays[0].ndim)
    return made


def read_memory(arrays: _Arrays, *, budget_bytes: int, balanced: bool) -> Memory:
    """Return the memory that `memory_of` gave; within a smaller budget, what stays of it.

    Args:
        arrays: may come from a damaged disk.
        budget_bytes: of the memory.
        balanced: as the memory was.

    Returns:
        The memory.

    Raises:
        InputError: if an array is missing, unknown, of another type or size, or holds values
            that no memory has.
    """
    n, priorities, classes = _slots(arrays)
    memory = Memory(budget_bytes, balanced=balanced)
    memory.groups = _groups(arrays)
    memory.size_bytes = GROUP_BYTES * len(memory.groups)
    names = [name.removeprefix(_FIELD) for name in arrays if name.startswith(_FIELD)]
    if len(names) > _MOST_FIELDS or (n and not names):
        raise InputError(
            f"a memory's example has {len(names)} arrays, 1 to {_MOST_FIELDS} are read"
        )
    known = {f"{kind}{name}" for name in names for kind in (_FIELD, _SHAPES)}
    if odd := sorted(set(arrays) - known - set(_LISTS)):
        raise InputError(f"a memory has no array {odd[0]!r}")
    fields = {name: _pieces(arrays, name, n) for name in names}
    for i in range(n):
        key = memory.key(int(classes[i]))
        if key not in memory.groups or not priorities[i] < memory.groups[key].ceiling:
            raise InputError(f"a memory's example {i} is in no group that would hold it")
        item = {name: pieces[i] for name, pieces in fields.items()}
        memory.add(Slot(item, int(classes[i]), float(priorities[i]), size_of(item)))
    memory.shrink()
    return memory


_LISTS: Final = {
    "slots.group": np.int64,
    "slots.priority": np.float64,
    "groups.key": np.int64,
    "groups.ceiling": np.float64,
}


def _list(arrays: _Arrays, name: str) -> np.ndarray:
    """Return a list of numbers.

    Raises:
        InputError: if it is missing, of another type, too long or not finite.
    """
    found = arrays.get(name)
    if found is None or found.dtype != _LISTS[name] or found.ndim != 1 or len(found) > _MOST_SLOTS:
        raise InputError(f"a memory's {name} is missing, or is no list of {_LISTS[name].__name__}")
    if not np.isfinite(found).all():
        raise InputError(f"a memory's {name} holds a value that is not finite")
    return found


def _slots(arrays: _Arrays) -> tuple[int, np.ndarray, np.ndarray]:
    """Return how many examples there are, their priorities and their classes.

    Raises:
        InputError: if a list is not valid.
    """
    priorities, classes = _list(arrays, "slots.priority"), _list(arrays, "slots.group")
    if len(priorities) != len(classes) or ((priorities < 0) | (priorities >= 1)).any():
        raise InputError("a memory's priorities are not one from 0 to 1 for each example")
    return len(priorities), priorities, classes


def _groups(arrays: _Arrays) -> dict[int, Group]:
    """Return the groups.

    Raises:
        InputError: if a list is not valid.
    """
    keys, ceilings = _list(arrays, "groups.key"), _list(arrays, "groups.ceiling")
    if not len(keys) == len(ceilings) == len(np.unique(keys)):
        raise InputError("a memory's groups are not one row each")
    if ((ceilings < 0) | (ceilings > 1)).any():
        raise InputError("a memory's groups hold ceilings that are not from 0 to 1")
    pairs = zip(keys.tolist(), ceilings.tolist(), strict=True)
    return {key: Group(ceiling) for key, ceiling in pairs}


def _pieces(arrays: _Arrays, name: str, n: int) -> list[np.ndarray]:
    """Return one array for each example.

    Raises:
        InputError: if the values are not as many as the shapes say, or not finite.
    """
    flat, shapes = arrays[_FIELD + name], arrays.get(_SHAPES + name)
    if flat.dtype.name not in _TYPES or flat.ndim != 1:
        raise InputError(f"a memory's {name} is {flat.dtype} {flat.shape}, not a list of numbers")
    if (
        shapes is None
        or shapes.dtype != np.int64
        or shapes.ndim != 2
        or len(shapes) != n
        or shapes.shape[1] > _MOST_DIMS
        or ((shapes < 0) | (shapes > flat.size)).any()
    ):
        raise InputError(f"a memory's shapes of {name} are missing or not valid")
    if not np.isfinite(flat).all():
        raise InputError(f"a memory's {name} holds a value that is not finite")
    # Python's integers: a product of six sizes may not fit 64 bits.
    sizes = [int(np.prod(shape.astype(object))) for shape in shapes]
    if sum(sizes) != flat.size:
        raise InputError(f"a memory's {name} has {flat.size} values, its shapes say {sum(sizes)}")
    pieces = np.split(flat, np.cumsum(sizes, dtype=np.int64)[:-1]) if n else []
    # Copies: an example that goes must not keep the whole list alive.
    return [piece.reshape(shape).copy() for piece, shape in zip(pieces, shapes, strict=True)]
