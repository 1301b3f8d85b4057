"""A memory on its way to the disk and back."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.learning.memory.arrays import memory_of, read_memory
from onhand.device.learning.memory.store import Memory

Arrays = dict[str, np.ndarray]


def texts(lengths: list[int], *, balanced: bool = True, budget: int = 5000) -> Memory:
    """Return a memory of examples of some lengths."""
    memory, rng = Memory(budget, balanced=balanced), np.random.default_rng(3)
    for i, length in enumerate(lengths):
        item: dict[str, np.ndarray] = {
            "tokens": rng.integers(0, 99, length).astype(np.int32),
            "chances": rng.random((length, 2)).astype(np.float16),
            "labels": np.array(i % 3, np.int64),
        }
        memory.offer(item, i % 3, rng.random())
    return memory


@given(
    lengths=st.lists(st.integers(1, 20), max_size=12),
    balanced=st.booleans(),
    budget=st.integers(300, 3000),
)
def test_what_is_read_is_what_was_kept(lengths: list[int], balanced: bool, budget: int) -> None:
    """Every example, in its order, and what will happen to the next one."""
    memory = texts(lengths, balanced=balanced, budget=budget)

    again = read_memory(memory_of(memory), budget_bytes=budget, balanced=balanced)

    assert again.size_bytes == memory.size_bytes
    assert again.groups == memory.groups
    for old, new in zip(memory.slots, again.slots, strict=True):
        assert (old.group, old.priority, old.size_bytes) == (
            new.group,
            new.priority,
            new.size_bytes,
        )
        for name, array in old.item.items():
            assert new.item[name].dtype == array.dtype
            np.testing.assert_array_equal(new.item[name], array)


def test_a_smaller_budget_keeps_what_fits_it() -> None:
    """The one setting that may change between two processes."""
    memory = texts([8] * 12)

    again = read_memory(memory_of(memory), budget_bytes=memory.size_bytes // 2, balanced=True)

    assert 0 < len(again) < len(memory)
    assert again.size_bytes <= memory.size_bytes // 2


def change(name: str, made: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    """Return what puts another array in one's place."""
    return lambda arrays: arrays | {name: made(arrays[name])}


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return what writes a value over an array's first."""

    def changed(array: np.ndarray) -> np.ndarray:
        made = array.copy()
        made.reshape(-1)[0] = value
        return made

    return changed


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda a: {n: x for n, x in a.items() if n != "slots.group"}, "slots.group is missing"),
        (lambda a: {n: x for n, x in a.items() if n != "shapes.tokens"}, "shapes of tokens"),
        (lambda a: a | {"else": np.zeros(1, np.float32)}, "no array 'else'"),
        (
            lambda a: {n: x for n, x in a.items() if "." in n and n[:4] in ("slot", "grou")},
            "0 arrays",
        ),
        (change("slots.priority", with_value(np.nan)), "not finite"),
        (change("slots.priority", with_value(2.0)), "from 0 to 1"),
        (change("slots.priority", lambda x: x[1:]), "one from 0 to 1"),
        (change("slots.group", with_value(7)), "in no group"),
        (change("groups.key", with_value(1)), "one row each"),
        (change("groups.ceiling", with_value(-1)), "ceilings"),
        (change("groups.ceiling", with_value(0)), "in no group"),
        (change("item.chances", with_value(np.inf)), "not finite"),
        (change("item.tokens", lambda x: x[1:]), "its shapes say"),
        (change("item.tokens", lambda x: x.astype(np.complex64)), "not a list of numbers"),
        (change("shapes.tokens", with_value(-1)), "not valid"),
        (change("shapes.tokens", with_value(2**40)), "not valid"),
        (change("shapes.tokens", lambda x: x.astype(np.float64)), "not valid"),
        (change("shapes.chances", lambda x: np.full((len(x), 6), 40)), "its shapes say"),
    ],
)
def test_attack_a_damaged_memory_is_refused(spoil: Callable[[Arrays], Arrays], why: str) -> None:
    """Whatever is changed in it, nothing is taken from it."""
    arrays = spoil(memory_of(texts([4, 5, 6, 7])))

    with pytest.raises(InputError, match=why):
        read_memory(arrays, budget_bytes=5000, balanced=True)


def test_an_empty_memory_is_read_too() -> None:
    """As it is before anything was learned."""
    again = read_memory(memory_of(Memory(100, balanced=True)), budget_bytes=100, balanced=True)

    assert len(again) == 0
