"""The nearest vectors: all of them where they are few, most of them where they are many."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.device.serving.caches.nearest import Nearest

WIDTH = 8


def unit(rng: np.random.Generator, n: int) -> FloatArray:
    vectors = rng.standard_normal((n, WIDTH)).astype(np.float32)
    made: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99),
    steps=st.lists(st.booleans(), min_size=1, max_size=60),
    exact_rows=st.sampled_from([0, 5, 1000]),
)
def test_what_is_there_is_found(seed: int, steps: list[bool], exact_rows: int) -> None:
    """After any additions and removals, with cells and without."""
    rng = np.random.default_rng(seed)
    near = Nearest(WIDTH, exact_rows=exact_rows)
    known: dict[int, FloatArray] = {}
    for number, is_added in enumerate(steps):
        if is_added or not known:
            known[number] = unit(rng, 1)[0]
            near.add(number, known[number])
        else:
            gone = int(rng.choice(list(known)))
            near.remove(gone)
            del known[gone]

    assert len(near) == len(known)
    for number, vector in known.items():
        best = near.search(vector, count=1)
        assert best[0][0] == number
        assert best[0][1] > 0.999


def test_the_nearest_come_first() -> None:
    """As a plain product with all vectors orders them."""
    rng = np.random.default_rng(0)
    vectors, asked = unit(rng, 200), unit(rng, 1)[0]
    near = Nearest(WIDTH)
    for number, vector in enumerate(vectors):
        near.add(number, vector)
    found = near.search(asked, count=5)

    assert [number for number, _ in found] == np.argsort(vectors @ asked)[::-1][:5].tolist()
    assert Nearest(WIDTH).search(asked, count=5) == []


def test_many_are_sorted_into_cells() -> None:
    """And what lies close is found among them nearly always."""
    rng = np.random.default_rng(1)
    vectors = unit(rng, 900)
    near = Nearest(WIDTH, exact_rows=400)
    for number, vector in enumerate(vectors):
        near.add(number, vector)
    asked = vectors + 0.05 * unit(rng, 900)
    found = [near.search(one / np.linalg.norm(one), count=1)[0][0] for one in asked]

    assert near.n_cells > 1
    assert np.mean(np.array(found) == np.arange(900)) > 0.9
