"""Figures for a device that is not here: scaled, and called estimates."""

from dataclasses import replace

import pytest

from onhand.core.measurement import Measurement, Unit
from onhand.core.profile import DeviceProfile
from onhand.host.transfer import figures_for, is_same_device

HERE = DeviceProfile(
    name="desk",
    system="linux",
    machine="x86_64",
    processor="Desk 9",
    physical_cores=8,
    usable_threads=8,
    instruction_sets=("avx2",),
    memory_bytes=2**34,
    read_bandwidth=(1e10, 4e10),
    watts=40.0,
    watts_source="a label",
)
BOARD = replace(
    HERE,
    name="board",
    machine="aarch64",
    processor="Board 1",
    physical_cores=2,
    usable_threads=2,
    read_bandwidth=(2e9, 4e9),
    watts=5.0,
)
FIGURES: dict[str, tuple[float, Unit]] = {
    "size_bytes": (1e6, "byte"),
    "peak_memory_bytes": (1e8, "byte"),
    "perplexity_increase": (0.01, "fraction"),
    "time_to_first_token_s": (0.1, "s"),
    "prefill_tokens_per_s": (800.0, "1/s"),
    "decode_tokens_per_s": (100.0, "1/s"),
    "energy_j_per_token": (0.4, "joule"),
}


def figures() -> dict[str, Measurement]:
    """Measured on the desk."""
    return {
        name: Measurement(
            name=name, value=value, unit=unit, samples=5, spread=value / 10, how="onhand bench"
        )
        for name, (value, unit) in FIGURES.items()
    }


def test_on_the_same_device_nothing_changes() -> None:
    """Another name or other watts make no other machine; another processor does."""
    assert is_same_device(replace(HERE, name="mine", watts=1.0), HERE)
    assert not is_same_device(BOARD, HERE)
    assert figures_for(replace(HERE, name="mine"), HERE, figures()) == figures()


def test_times_are_scaled_by_what_bounds_them() -> None:
    """By hand: a tenth of the bandwidth, a quarter of the threads, an eighth of the watts."""
    found = figures_for(BOARD, HERE, figures())

    values = {name: figure.value for name, figure in found.items()}
    assert values == pytest.approx({
        "size_bytes": 1e6,
        "peak_memory_bytes": 1e8,
        "perplexity_increase": 0.01,
        "time_to_first_token_s": 0.4,
        "prefill_tokens_per_s": 200.0,
        "decode_tokens_per_s": 10.0,
        "energy_j_per_token": 0.4 * 10 / 8,
    })
    assert found["decode_tokens_per_s"].spread == pytest.approx(1.0)


def test_what_was_scaled_is_an_estimate_and_says_from_where() -> None:
    """What was measured stays a measurement."""
    found = figures_for(BOARD, HERE, figures())

    measured = {"size_bytes", "peak_memory_bytes", "perplexity_increase"}
    assert {name for name, figure in found.items() if not figure.estimated} == measured
    assert found["decode_tokens_per_s"].how == (
        "onhand bench  # measured on desk, scaled to board by read bandwidth"
    )
    assert found["prefill_tokens_per_s"].how.endswith("by number of threads")


def test_a_device_of_unknown_bandwidth_is_scaled_by_threads() -> None:
    """The next best that is known."""
    found = figures_for(replace(BOARD, read_bandwidth=()), HERE, figures())

    assert found["decode_tokens_per_s"].value == pytest.approx(25.0)
