"""A memory of examples: a uniform sample of all that were offered, or of each class, within bytes.

Each example draws a priority from 0 to 1 when it is offered, and those with the lowest stay. When
a group is over its share, the one with its highest priority goes, and whatever comes later must
be below that. So what is kept is a uniform sample of what was offered, at any moment, also where
examples differ in size, and groups can shrink as more of them come.

Source:
    Sampling by random keys: Efraimidis and Spirakis 2006, "Weighted random sampling with a
    reservoir", with equal weights; for examples of one size it samples as algorithm R does
    (Vitter 1985, "Random sampling with a reservoir").
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from onhand.core.errors import InputError

__all__ = ["GROUP_BYTES", "ITEM_BYTES", "Group", "Item", "Memory", "Slot", "kinds_of", "size_of"]

Item = Mapping[str, np.ndarray]
"""One example: name -> array, without a batch's dimension."""
ITEM_BYTES: Final = 16
"""What an example takes beside its arrays: its group and its priority."""
GROUP_BYTES: Final = 16
"""What a group takes: its number and its ceiling."""
_DIM_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Slot:
    """An example that is kept.

    Attributes:
        item: its arrays.
        group: its class, or whatever the memory is balanced over.
        priority: from 0 to 1.
        size_bytes: of its arrays and of what is kept about it.
    """

    item: Item
    group: int
    priority: float
    size_bytes: int


@dataclass(slots=True)
class Group:
    """What is known of a group.

    Attributes:
        ceiling: the lowest priority that did not stay.
        size_bytes: of its examples that are kept.
        order: their priorities, ascending, and their serial numbers in the memory.
    """

    ceiling: float = 1.0
    size_bytes: int = 0
    order: list[tuple[float, int]] = field(default_factory=list, compare=False)


class Memory:
    """Examples within a budget of bytes. One thread at a time.

    Args:
        budget_bytes: ceiling of `size_bytes`, and so of the arrays of its durable form.
        balanced: whether the largest group gives way, so that each holds as much as the others;
            else the memory is a uniform sample of all that was offered.
    """

    def __init__(self, budget_bytes: int, *, balanced: bool) -> None:
        self.budget_bytes, self.balanced = budget_bytes, balanced
        self.slots: list[Slot] = []
        self.groups: dict[int, Group] = {}
        self.size_bytes = 0
        self.revision = 0
        self._serials: list[int] = []  # of each slot
        self._places: dict[int, int] = {}  # serial -> where its slot is
        self._next = 0
        self._kinds: tuple[tuple[str, str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.slots)

    def offer(self, item: Item, group: int, priority: float) -> bool:
        """Take an example, unless its priority is too high.

        Args:
            item: the same names, types and numbers of dimensions as all others.
            group: its class.
            priority: uniform from 0 to 1, drawn for this example.

        Returns:
            Whether it is kept now.

        Raises:
            InputError: if its arrays are not like those that are kept, or it alone is larger than
                the budget.
        """
        size, kinds = size_of(item), kinds_of(item)
        if size + GROUP_BYTES > self.budget_bytes:
            raise InputError(
                f"an example of {size} bytes does not fit a memory of {self.budget_bytes}: raise "
                "memory_bytes, or keep it with precision uint8"
            )
        if self.slots and kinds != self._kinds:
            raise InputError(f"an example of {kinds} was offered to a memory of {self._kinds}")
        if priority >= self.ceiling(group):
            return False
        self.revision += 1
        key = self.key(group)
        if key not in self.groups:
            self.groups[key] = Group()
            self.size_bytes += GROUP_BYTES
        serial = self.add(Slot(item, group, priority, size))
        self.shrink()
        return serial in self._places

    def add(self, slot: Slot) -> int:
        """Put an example in, whatever its priority and size; its group is there already.

        Args:
            slot: the example.

        Returns:
            Its serial number, which no other example has.
        """
        serial, self._next = self._next, self._next + 1
        group = self.groups[self.key(slot.group)]
        bisect.insort(group.order, (slot.priority, serial))
        group.size_bytes += slot.size_bytes
        self.size_bytes += slot.size_bytes
        self._places[serial] = len(self.slots)
        if not self.slots:
            self._kinds = kinds_of(slot.item)
        self.slots.append(slot)
        self._serials.append(serial)
        return serial

    def shrink(self, *, most: int | None = None) -> None:
        """Let go of examples until the rest is within the budget.

        Args:
            most: examples that stay; None for as many as the budget holds.
        """
        while self.slots and (
            self.size_bytes > self.budget_bytes or (most is not None and len(self) > most)
        ):
            # The group that takes most; of equals, the lowest number.
            key = min(self.groups, key=lambda key: (-self.groups[key].size_bytes, key))
            group = self.groups[key]
            group.ceiling, serial = group.order.pop()
            place = self._places.pop(serial)
            group.size_bytes -= self.slots[place].size_bytes
            self.size_bytes -= self.slots[place].size_bytes
            # The order is part of the state: what is drawn later depends on it.
            last, last_serial = self.slots.pop(), self._serials.pop()
            if last_serial != serial:
                self.slots[place], self._serials[place] = last, last_serial
                self._places[last_serial] = place

    def replace(self, place: int, item: Item) -> None:
        """Put other arrays in an example's place; if they are larger, `shrink` comes next.

        Args:
            place: of the example in `slots`.
            item: its arrays; names, types and numbers of dimensions as before.

        Raises:
            InputError: if they are of other names, types or numbers of dimensions.
        """
        old = self.slots[place]
        if kinds_of(item) != kinds_of(old.item):
            raise InputError(f"{kinds_of(old.item)} cannot become {kinds_of(item)}")
        size = size_of(item)
        self.slots[place] = Slot(item, old.group, old.priority, size)
        self.groups[self.key(old.group)].size_bytes += size - old.size_bytes
        self.size_bytes += size - old.size_bytes
        self.revision += 1

    def draw(self, n: int, rng: np.random.Generator) -> list[int]:
        """Return the places of up to `n` different examples, in a random order."""
        if not self.slots or n <= 0:
            return []
        chosen = rng.choice(len(self.slots), size=min(n, len(self.slots)), replace=False)
        return [int(place) for place in chosen]

    def counts(self) -> dict[int, int]:
        """Return how many examples of each group are kept."""
        found: dict[int, int] = {}
        for slot in self.slots:
            found[slot.group] = found.get(slot.group, 0) + 1
        return dict(sorted(found.items()))

    def ceiling(self, group: int) -> float:
        """Return the priority from which on an example of a class is not kept."""
        key = self.key(group)
        return self.groups[key].ceiling if key in self.groups else 1.0

    def key(self, group: int) -> int:
        """Return the group that gives way for an example of a class."""
        return group if self.balanced else 0


def kinds_of(item: Item) -> tuple[tuple[str, str, int], ...]:
    """Return the names of an example's arrays, their types and numbers of dimensions, sorted."""
    return tuple(sorted((name, array.dtype.str, array.ndim) for name, array in item.items()))


def size_of(item: Item) -> int:
    """Return how many bytes an example takes."""
    arrays = sum(array.nbytes + _DIM_BYTES * array.ndim for array in item.values())
    return arrays + ITEM_BYTES
