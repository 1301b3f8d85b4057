"""What the benchmark of decoding makes of its samples."""

from typing import Any

import pytest
from benchmarks.decode_figures import (
    compared,
    cost_of_context,
    cost_of_rows,
    plain,
    summary,
    table,
)
from benchmarks.decode_rounds import Samples, fitting


def engine(*, decode: list[float], first: float, energy: float) -> dict[str, list[float]]:
    """One engine's samples, as undisturbed rounds give them."""
    return {
        "decode_tokens_per_s": decode,
        "prefill_tokens_per_s": [10 * one for one in decode],
        "first_token_s": [first] * len(decode),
        "energy_j_per_token": [energy] * len(decode),
    }


def samples() -> Samples:
    """Three rounds: llama.cpp decodes faster than genai, genai starts sooner and takes less."""
    return {
        "onhand:native": engine(decode=[30.0, 40.0, 60.0], first=2.0, energy=3.0),
        "onhand:onnx": engine(decode=[15.0, 20.0, 30.0], first=4.0, energy=6.0),
        "llama": engine(decode=[20.0, 20.0, 20.0], first=4.0, energy=6.0),
        "genai": engine(decode=[10.0, 10.0, 10.0], first=1.0, energy=2.0),
    }


def found() -> dict[str, Any]:
    """What a run measures."""
    names = list(samples())
    return {
        "samples": samples(),
        "energy": {"source": "estimate", "how": "watts"},
        "read_bandwidth": [1000.0],
        "bytes_per_token": 10,
        "peak_memory_bytes": dict.fromkeys(names, 1e6),
        "open_s": dict.fromkeys(names, 1.0),
        "verify": {"onhand:native": {1: [1.0], 2: [1.5]}, "llama": {1: [2.0], 2: [4.0]}},
        "contexts": {"onhand:native+int8": {0: [0.001], 512: [0.002]}},
    }


def test_the_best_peer_has_the_highest_speed_and_the_lowest_cost() -> None:
    """Ratios are ours over theirs, round by round; another engine of ours is no peer."""
    made = compared(samples())

    assert made["decode_tokens_per_s"]["onhand:native"] == 40.0
    assert made["decode_ratio_vs_best"] == made["decode_ratio_vs_llama_cpp"] == 2.0
    assert made["decode_ratio_vs_best_quartiles"] == [1.5, 3.0]
    assert made["decode_ratio_vs_onnx"] == 2.0
    assert made["first_token_ratio_vs_best"] == made["first_token_ratio_vs_genai"] == 2.0
    assert made["energy_ratio_vs_best"] == 1.5


def test_one_round_without_peers_has_no_best() -> None:
    """The quartiles of one value are that value."""
    made = compared({"onhand:native": {"decode_tokens_per_s": [30.0]}})

    assert made == {"decode_tokens_per_s": {"onhand:native": 30.0}}


def test_prefill_in_bf16_has_ratios_of_its_own() -> None:
    """Beside those of the exact way, which stay; of no other figure, and it is no peer."""
    exact = compared(samples())
    faster = engine(decode=[30.0, 40.0, 60.0], first=2.0, energy=3.0)
    faster["prefill_tokens_per_s"] = [600.0, 800.0, 1200.0]

    made = compared(samples() | {"onhand:native+bf16": faster})

    assert made["prefill_ratio_vs_best"] == exact["prefill_ratio_vs_best"] == 2.0
    assert made["prefill_ratio_vs_native_bf16"] == 0.5
    assert made["prefill_bf16_ratio_vs_best"] == made["prefill_bf16_ratio_vs_llama_cpp"] == 4.0
    assert made["prefill_bf16_ratio_vs_best_quartiles"] == [3.0, 6.0]
    assert made["prefill_bf16_ratio_vs_native"] == 2.0
    assert "prefill_bf16_ratio_vs_native_bf16" not in made
    assert "decode_bf16_ratio_vs_best" not in made


def test_disturbed_rounds_are_compared_on_their_own() -> None:
    """They have the same keys, and leave those of the quiet rounds alone."""
    speeds = {"decode_tokens_per_s": [5.0], "prefill_tokens_per_s": [50.0]}
    disturbed = {
        "onhand:native": speeds,
        "llama": {key: [one[0] / 5] for key, one in speeds.items()},
    }
    made = summary(found() | {"disturbed": disturbed})

    assert made["decode_ratio_vs_best"] == 2.0
    assert made["disturbed"]["decode_ratio_vs_best"] == 5.0
    assert made["disturbed"]["decode_ratio_vs_best_quartiles"] == [5.0, 5.0]
    assert made["disturbed"]["samples"] == disturbed
    assert "samples" not in plain(made)["disturbed"]


def test_curves_are_relative_to_their_first_point() -> None:
    """Rows to one row, contexts to the shortest, which are in milliseconds as well."""
    assert cost_of_rows({2: [3.0, 3.0, 9.0], 1: [2.0]}) == {2: 1.5, 1: 1.0}
    assert cost_of_context({0: [0.002], 512: [0.003]}) == {
        0: {"ms": pytest.approx(2.0), "relative": 1.0},
        512: {"ms": pytest.approx(3.0), "relative": pytest.approx(1.5)},
    }
    assert cost_of_context({}) == {}


def test_a_context_fits_with_room_for_one_more_token() -> None:
    """A model of 8192 tokens is not measured behind 8192 others."""
    assert fitting([0, 4096, 8191, 8192], 8192) == [0, 4096, 8191]


def test_the_table_shows_every_figure() -> None:
    """Speeds, first tokens, energy and its source, curves, and what was left out."""
    run = found()
    made = summary(run)
    text = table({**run, **made, "shape": "small", "threads": 2, "group": 32, "notes": ["no peer"]})

    assert "decode    40.0, prefill   400.0 tokens/s, first token 2.00 s, 3000.0 mJ" in text
    assert "cost_of_rows_llama_cpp: 1: 1.00, 2: 2.00" in text
    assert "cost_of_context_native_int8: 0: 1.00 ms (1.00), 512: 2.00 ms (2.00)" in text
    assert "from estimate: watts" in text
    assert "half of the cores busy" not in text
    assert "no peer" in text
