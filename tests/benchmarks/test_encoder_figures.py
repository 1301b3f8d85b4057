"""The figures of the encoders' benchmark."""

import numpy as np
import pytest
from benchmarks.encoder_figures import area, interval, quartiles, rows_of_pairs
from benchmarks.encoder_texts import Intents, judging_pairs, learned_texts, spread_out
from benchmarks.encoders import table
from hypothesis import given
from hypothesis import strategies as st


def test_the_area_by_hand() -> None:
    """One of the four pairs of a 1 and a 0 is the wrong way round, one is a tie."""
    scores, labels = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0, 1, 0, 1])

    assert area(scores, labels) == (1 + 0.5 + 1 + 1) / 4
    assert area(-scores, labels) == 0.5 / 4


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=20))
def test_the_area_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    """Ranks give what counting every pair gives."""
    ones = [score for score, one in rows if one]
    zeros = [score for score, one in rows if not one]
    if not ones or not zeros:
        return
    counted = sum((a > b) + (a == b) / 2 for a in ones for b in zeros)
    found = area(
        np.array([score for score, _ in rows], dtype=np.float64),
        np.array([int(one) for _, one in rows]),
    )

    assert found == pytest.approx(counted / (len(ones) * len(zeros)))


def test_an_interval_holds_the_figure() -> None:
    """It is the same each time, around the mean, and nothing where nothing varies."""
    values = np.arange(40.0)
    low, high = interval(40, lambda chosen: float(values[chosen].mean()))

    assert low < values.mean() < high
    assert (low, high) == interval(40, lambda chosen: float(values[chosen].mean()))
    assert interval(5, lambda _: 2.0) == (2.0, 2.0)


def test_places_are_spread_out() -> None:
    """As many as there are at most, from the first on."""
    assert spread_out(10, 4) == [0, 2, 5, 7]
    assert spread_out(3, 9) == [0, 1, 2]


def test_pairs_and_times_are_summed_up() -> None:
    """Cosines row by row, medians and quartiles, one line for each figure."""
    made = rows_of_pairs(
        np.array([[1, 0], [2, 2]], np.float32), np.array([[3, 0], [0, 1]], np.float32)
    )
    np.testing.assert_allclose(made, [1, np.sqrt(0.5)], rtol=1e-6)
    assert quartiles([1.0, 2.0, 3.0]) == {"median": 2.0, "q1": 1.5, "q3": 2.5}
    times = {
        "seconds": {"median": 0.004},
        "processor_seconds": {"median": 0.003},
        "times_as_fast": {"median": 1.5, "q1": 1.4, "q3": 1.6},
    }
    shown = table({
        "latency": {"1 threads": {"10 tokens": {"ours": times}}},
        "quality": {"ours": {"pair_auc": 0.91, "pair_auc_loss": [0.0, 0.0, 0.0]}},
    })
    assert "4.00    3.00  1.50 (1.40 to 1.60)" in shown
    assert "pair_auc 0.9100\n" in shown


def test_nothing_that_judges_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a question that a judging pair shares with others, or that is written otherwise."""
    intents = {"train": ["Card lost", "pay  a bill"], "test": ["card  LOST", "close it"]}
    monkeypatch.setattr(
        "benchmarks.encoder_texts.read_intents",
        lambda _, part: Intents(intents[part], ["a", "b"]),
    )
    pairs = [(f"question {i}", f"question {i + 1}", i % 2) for i in range(11)]

    judges = judging_pairs(pairs, 9)
    learned = learned_texts(pairs, 100)

    assert judges == [pairs[0], pairs[5], pairs[10]]
    assert sorted(learned) == sorted(["pay a bill", *(f"question {i}" for i in (2, 3, 4, 7, 8, 9))])
    assert learned_texts(pairs, 2) == learned_texts(pairs, 2)
    assert len(learned_texts(pairs, 2)) == 3
