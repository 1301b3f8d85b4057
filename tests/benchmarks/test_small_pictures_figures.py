"""The figures of the benchmark of small pictures."""

import pytest

pytest.importorskip("PIL", reason="reads pictures")

from benchmarks.small_pictures import EAGER, PLAIN, WHOLE, quickest, ratios, table, told, variants


def test_each_network_counts_in_its_quickest_engine() -> None:
    """By hand: 3 against 1 and 4 against 2 in the engines of the least medians, round by round."""
    times = {
        EAGER: {"torch": [8.0, 8.0]},
        PLAIN: {"onnx": [3.0, 4.0], "openvino": [3.0, 9.0]},
        WHOLE: {"onnx": [5.0, 5.0], "openvino": [1.0, 2.0]},
    }

    assert quickest(times[PLAIN]) == "onnx"
    assert ratios(times) == {EAGER: [5.0, 6.0, 7.0], PLAIN: [2.25, 2.5, 2.75]}
    lines = told({PLAIN: {}, WHOLE: {}}, times)
    assert [line.endswith("*") for line in lines[:5]] == [True, True, False, False, True]
    figures = {
        "accuracy": {"value": 0.8},
        "accuracy_loss": {"value": -0.001, "interval": [-0.002, 0.003]},
        "size_bytes": {"value": 2_474_000},
    }
    rows = table({PLAIN: {"figures": figures}}, times)
    assert rows[-1].startswith("| int8 | 80.00% | -0.10 (-0.20 to +0.30) | 2,474 | onnx | 3500.000")
    assert lines[-1].endswith(f"2.50 times (2.25 to 2.75) as fast as {PLAIN}")


def test_all_is_what_the_recipe_says() -> None:
    """And the others are parts of it."""
    made = variants()
    names = {name: [step.transform.name for step in steps] for name, steps in made.items()}

    assert names[WHOLE] == ["prune-channels", "distil", "fuse", "quantize"]
    assert names["pruned, int8"] == ["prune-channels", "fuse", "quantize"]
    assert names[PLAIN] == ["quantize"]
    assert names["as it is"] == []
