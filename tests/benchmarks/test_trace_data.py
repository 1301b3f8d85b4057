"""Recorded arrivals: read, stretched, and the best that a cache can do with them."""

import json
from pathlib import Path

import pytest
from benchmarks.trace_data import Arrival, at_rate, best_hit_rate, read_azure, read_mooncake


def arrivals(*blocks: tuple[int, ...]) -> list[Arrival]:
    return [Arrival(float(i), names, 1) for i, names in enumerate(blocks)]


def test_mooncake_says_what_is_shared(tmp_path: Path) -> None:
    """Milliseconds, hashes, and answers a thirty-second as long."""
    row = {"timestamp": 1500, "input_length": 900, "output_length": 320, "hash_ids": [4, 7]}
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")

    assert read_mooncake(tmp_path / "t.jsonl", 1) == [Arrival(1.5, (4, 7), 10)]


def test_azure_shares_nothing(tmp_path: Path) -> None:
    """Every block has a name of its own; times are from the first on."""
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:48.6805900,1025,1\n"
    )

    assert read_azure(tmp_path / "t.csv", 9) == [
        Arrival(0.0, (0,), 1),
        Arrival(2.0, (1, 2, 3), 1),
    ]


def test_arrivals_are_stretched_to_a_rate() -> None:
    """So many a second on average, as far apart as before in proportion."""
    found = at_rate([Arrival(0, (), 1), Arrival(1, (), 1), Arrival(4, (), 1)], 0.5)

    assert [one.at_s for one in found] == [0, 1, 4]
    assert [one.at_s for one in at_rate(found, 2)] == [0, 0.25, 1]


def test_the_best_of_an_endless_cache() -> None:
    """Each prompt's longest beginning that came before; its last token is always computed."""
    found = best_hit_rate(arrivals((1, 2), (1, 2), (1, 3), (2,)), most_tokens=None)

    assert found == pytest.approx((31 + 16 + 15) / (7 * 16))
    assert best_hit_rate([], most_tokens=None) == 0


def test_the_best_of_a_small_cache() -> None:
    """The longest unused go, from their ends on."""
    rows = arrivals((1, 2), (3,), (1, 2))

    assert best_hit_rate(rows, most_tokens=48) == pytest.approx(31 / 80)
    assert best_hit_rate(rows, most_tokens=32) == pytest.approx(16 / 80)
    assert best_hit_rate(rows, most_tokens=0) == 0
