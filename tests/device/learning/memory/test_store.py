"""What a memory keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.learning.memory.arrays import memory_of
from onhand.device.learning.memory.store import GROUP_BYTES, Item, Memory, size_of


def item(value: int = 0, *, size: int = 4) -> Item:
    """Return an example of some bytes."""
    return {"x": np.full(size, value % 256, np.uint8)}


def filled(
    groups: list[int], *, budget: int, balanced: bool, seed: int = 0, size: int = 4
) -> Memory:
    """Return a memory that one example of each group in a list was offered to."""
    memory, rng = Memory(budget, balanced=balanced), np.random.default_rng(seed)
    for i, group in enumerate(groups):
        memory.offer(item(i, size=size), group, rng.random())
    return memory


def test_every_example_is_kept_as_often_as_any_other() -> None:
    """10 of 50, 200 times: chi-square with 49 degrees of freedom is below its 99.9 % point."""
    kept = np.zeros(50)
    for seed in range(200):
        memory = filled(
            [0] * 50, budget=GROUP_BYTES + 10 * size_of(item()), balanced=False, seed=seed
        )
        for slot in memory.slots:
            kept[slot.item["x"][0]] += 1
    expected = kept.sum() / 50

    assert kept.sum() == 200 * 10
    # Without replacement counts vary less, by 1 - 10 / 50.
    assert (np.square(kept - expected) / expected).sum() / 0.8 < 85.4


def test_a_balanced_memory_samples_each_class_uniformly() -> None:
    """Of a class of 25 the early are kept as often as the late."""
    kept = np.zeros(25)
    for seed in range(200):
        groups = [0] * 25 + [1] * 25
        memory = filled(
            groups, budget=2 * GROUP_BYTES + 10 * size_of(item()), balanced=True, seed=seed
        )
        for slot in memory.slots:
            if slot.group == 0:
                kept[slot.item["x"][0]] += 1
    expected = kept.sum() / 25

    assert kept.sum() == 200 * 5
    # 24 degrees of freedom: the 99.9 % point.
    assert (np.square(kept - expected) / expected).sum() / 0.8 < 51.2


@given(
    sizes=st.lists(st.integers(1, 60), max_size=40),
    budget=st.integers(120, 600),
    balanced=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_budget_is_never_exceeded(
    sizes: list[int], budget: int, balanced: bool, seed: int
) -> None:
    """By what is counted, nor by the arrays that go to the disk."""
    memory, rng = Memory(budget, balanced=balanced), np.random.default_rng(seed)
    for i, size in enumerate(sizes):
        memory.offer(item(i, size=size), i % 3, rng.random())

        assert memory.size_bytes <= budget
        assert sum(array.nbytes for array in memory_of(memory).values()) <= memory.size_bytes


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_balanced_memory_holds_as_much_of_each_class(counts: list[int], seed: int) -> None:
    """A class has less than another's only if no more of it was offered, or by one example."""
    groups = [group for group, n in enumerate(counts) for _ in range(n)]
    rng = np.random.default_rng(seed)
    rng.shuffle(groups)
    budget = len(counts) * GROUP_BYTES + 30 * size_of(item())
    found = filled(groups, budget=budget, balanced=True, seed=seed).counts()

    most = max(found.values())
    assert all(found[group] in (n, most, most - 1) for group, n in enumerate(counts))


def test_classes_shrink_as_more_of_them_come() -> None:
    """Ten examples of one class become five of each of two."""
    memory, rng = (
        Memory(2 * GROUP_BYTES + 10 * size_of(item()), balanced=True),
        np.random.default_rng(0),
    )
    for _ in range(10):
        memory.offer(item(), 0, rng.random())
    before = memory.counts()
    for _ in range(10):
        memory.offer(item(), 1, rng.random())

    assert before == {0: 10}
    assert memory.counts() == {0: 5, 1: 5}


def test_a_uniform_memory_keeps_classes_in_proportion() -> None:
    """It may lose a rare class, which is why the other kind exists."""
    memory = filled([0] * 95 + [1] * 5, budget=GROUP_BYTES + 40 * size_of(item()), balanced=False)

    assert memory.counts()[0] > 30


def test_large_examples_are_sampled_like_small_ones() -> None:
    """Whether an example stays does not depend on its own size, but through the budget."""
    memory, rng = Memory(4000, balanced=False), np.random.default_rng(1)
    for i in range(800):
        memory.offer(item(i, size=8 if i % 2 else 24), 0, rng.random())
    large = sum(len(slot.item["x"]) == 24 for slot in memory.slots)

    assert 0.3 < large / len(memory) < 0.7


def test_what_is_drawn_is_different_and_the_same_for_a_seed() -> None:
    """No example twice in one draw, and no more than there are."""
    memory = filled([0] * 30, budget=10_000, balanced=False)
    first = memory.draw(20, np.random.default_rng(5))

    assert len(set(first)) == 20
    assert first == memory.draw(20, np.random.default_rng(5))
    assert len(memory.draw(99, np.random.default_rng(5))) == 30
    assert Memory(100, balanced=False).draw(3, np.random.default_rng(0)) == []


def test_an_example_larger_than_the_memory_is_refused() -> None:
    """It would never be kept, and nobody would know."""
    with pytest.raises(InputError, match="raise memory_bytes"):
        Memory(100, balanced=False).offer(item(size=200), 0, 0.5)


def test_examples_of_another_kind_are_refused() -> None:
    """They could not be put in one batch."""
    memory = filled([0], budget=1000, balanced=False)

    with pytest.raises(InputError, match="was offered to a memory of"):
        memory.offer({"y": np.zeros(4, np.uint8)}, 0, 0.1)
    with pytest.raises(InputError, match="cannot become"):
        memory.replace(0, {"x": np.zeros(4, np.float32)})


def test_a_larger_replacement_pushes_others_out() -> None:
    """The budget holds after it too."""
    memory = filled([0] * 10, budget=GROUP_BYTES + 10 * size_of(item()), balanced=False)
    memory.replace(0, item(size=60))
    memory.shrink()

    assert memory.size_bytes <= memory.budget_bytes
    assert len(memory) < 10


def test_the_revision_grows_with_every_change_only() -> None:
    """A refused example changes nothing that is on the disk."""
    memory = filled([0] * 50, budget=GROUP_BYTES + 5 * size_of(item()), balanced=False)
    before = memory.revision

    memory.offer(item(), 0, 0.9999)
    assert memory.revision == before
    memory.offer(item(), 0, 0.0)
    assert memory.revision > before
