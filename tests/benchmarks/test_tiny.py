"""The figures of the benchmark of MLPerf Tiny's networks."""

from collections.abc import Callable

import numpy as np
from benchmarks.tiny import far, judged, take_turns

from onhand.core.arrays import FloatArray


def test_answers_are_judged_by_hand() -> None:
    """Accuracy is compared example by example, with float and with the reference."""
    rows = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 2, 3])
    answers = {"float": rows[[0, 1, 2, 0]], "reference int8": rows[[0, 0, 2, 3]]}

    found = judged(rows[[0, 1, 0, 3]], answers, labels, task="image-classification")

    assert {name: figure["mean"] for name, figure in found.items()} == {
        "agreement": 0.5, "accuracy": 0.75, "accuracy_over_float": 0.0,
        "accuracy_over_reference_int8": 0.0,
    }  # fmt: skip
    over = found["accuracy_over_float"]
    assert over["low"] < 0 < over["high"]
    assert found["agreement"]["low"] < 0.5 < found["agreement"]["high"]


def test_vectors_are_judged_by_their_error() -> None:
    """What a network without classes loses is a share of the length of its answer."""
    wanted = np.array([[3, 4], [0, 2]], np.float32)
    answers = {"float": wanted, "reference int8": wanted}
    found = judged(wanted * np.float32(1.5), answers, None, task="features")

    assert found["relative_error"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert far(wanted + 1, wanted)["largest_difference"] == 1.0


def test_ways_take_turns() -> None:
    """Each is called in every round, and its quartiles are in order."""
    calls: list[str] = []

    def way(name: str) -> Callable[[FloatArray], FloatArray]:
        def run(x: FloatArray) -> FloatArray:
            calls.append(name)
            return x

        return run

    ways = {name: way(name) for name in "ab"}
    found = take_turns(ways, np.zeros((1, 1), np.float32), rounds=3, budget_s=0.0)

    assert calls == ["a", "a", "b", "b"] * 4
    for figure in found.values():
        assert 0 < figure["low"] <= figure["median"] <= figure["high"]
        assert figure["rounds"] == 3
