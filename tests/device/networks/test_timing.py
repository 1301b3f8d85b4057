"""Random inputs for networks, and runs timed in turn."""

import time

import numpy as np
import pytest
from tests.network_bundles import info

from onhand.core.feed import TextFeed
from onhand.core.network import ArrayInfo, Network
from onhand.device.networks import timing
from onhand.device.networks.base import check_feeds
from onhand.device.networks.timing import random_feeds, time_interleaved

KINDS = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")


def network(*inputs: ArrayInfo, feed: TextFeed | None = None) -> Network:
    """A network that takes some inputs."""
    return Network(
        task="features", inputs=inputs, outputs=(info("y", 1),), n_parameters=0, feed=feed
    )


@pytest.mark.parametrize("dtype", KINDS)
def test_inputs_fit_the_description(dtype: str) -> None:
    """Of every dtype, with fixed and with open sizes, the same ones each time."""
    made = network(info("a", 2, 3, dtype=dtype), info("b", None, None, dtype=dtype), info("c"))

    feeds = random_feeds(made, batch=5)

    check_feeds(feeds, made.inputs)
    assert feeds["b"].shape == (5, 64)
    again = random_feeds(made, batch=5)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)


def test_noise_is_noise_and_whole_numbers_are_ones() -> None:
    """Ones are valid as ids and as masks; bytes take their whole range."""
    feeds = random_feeds(
        network(info("x", 999), info("ids", 9, dtype="int64"), info("q", 999, dtype="int8"))
    )

    assert 0.9 < feeds["x"].astype(np.float64).std() < 1.1
    assert (feeds["ids"] == 1).all()
    assert (feeds["q"].min(), feeds["q"].max()) == (-128, 127)


@pytest.mark.parametrize(("most", "length"), [(512, 128), (40, 40)])
def test_tokens_are_as_many_as_the_network_reads(most: int, length: int) -> None:
    """128, or fewer where the network reads fewer."""
    made = network(info("ids", 1, None, dtype="int64"), feed=TextFeed(max_tokens=most))

    assert random_feeds(made)["ids"].shape == (1, length)


def test_runs_take_turns() -> None:
    """One of each to warm up, then a few in a row, of which the first is not counted."""
    calls: list[str] = []

    found = time_interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, budget_s=60.0
    )

    assert calls == ["a", "b", *("aaaabbbb" * 12)]
    assert [len(samples) for samples in found.values()] == [36, 36]


def test_another_runs_threads_come_to_rest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine may wait busily for more work; alone it is in nobody's way."""
    rests: list[float] = []
    monkeypatch.setattr(timing, "SETTLE_S", 0.05)
    monkeypatch.setattr(time, "sleep", rests.append)

    time_interleaved({"a": lambda: None, "b": lambda: None}, budget_s=0.0)
    time_interleaved({"a": lambda: None}, budget_s=0.0)

    assert rests == [0.05, 0.05]


def test_it_ends_when_the_budget_is_spent() -> None:
    """All have as many samples, and fewer than they might."""
    found = time_interleaved(
        {"slow": lambda: time.sleep(0.002), "quick": lambda: None}, budget_s=0.004
    )

    assert 1 <= len(found["slow"]) == len(found["quick"]) < 36
    assert min(found["slow"]) >= 0.002


@pytest.mark.parametrize(
    ("pause", "n_samples"), [(1.5, 34), (4.5, 1)], ids=["a pause", "more than a pause"]
)
def test_a_pause_of_the_machine_is_not_a_runs(
    monkeypatch: pytest.MonkeyPatch, pause: float, n_samples: int
) -> None:
    """A first run that stood still longer than the budget leaves room for the others."""
    clock, took = [0.0], iter([pause])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def run() -> None:
        clock[0] += next(took, 0.001)

    found = time_interleaved({"a": run, "b": run}, budget_s=1.0)

    assert [len(samples) for samples in found.values()] == [n_samples, n_samples]


def test_slow_runs_are_timed_at_least_once() -> None:
    """Even where one run exceeds the budget."""
    found = time_interleaved({"slow": lambda: time.sleep(0.002)}, budget_s=0.0)

    assert len(found["slow"]) == 1
