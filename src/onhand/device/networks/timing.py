"""Random inputs for a network, and which of several runs is quicker."""

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np

from onhand.core.feed import TextFeed
from onhand.core.network import ArrayInfo, Network
from onhand.device.networks.base import Array

__all__ = ["BUDGET_S", "random_feeds", "time_interleaved"]

BUDGET_S: Final = 1.0
MOST_ROUNDS: Final = 12
BLOCK: Final = 4  # runs in a row: the first finds the caches cold and is not counted
_PAUSED: Final = 4
SETTLE_S = 0.05
"""How long an engine's threads may wait busily after a run, in the way of the next engine's."""
OPEN_TOKENS: Final = 128
SEED: Final = 20240607
Name = TypeVar("Name")


def random_feeds(network: Network, *, batch: int = 1) -> dict[str, Array]:
    """Make inputs of a network: noise, and ones where it takes whole numbers.

    Ones are valid as token ids and as masks alike. Where any size will do, the first is `batch`;
    another one is 128 where the network reads tokens, or its `max_tokens` where that is less, and
    64 where it does not.

    Args:
        network: its description.
        batch: rows, where the network takes any number of them.

    Returns:
        Name -> array; the same ones for the same description.
    """
    rng = np.random.default_rng(SEED)
    length = 64
    if isinstance(network.feed, TextFeed):
        length = min(OPEN_TOKENS, network.feed.max_tokens)
    return {info.name: _random(info, batch, length, rng) for info in network.inputs}


def _random(info: ArrayInfo, batch: int, length: int, rng: np.random.Generator) -> Array:
    open_sizes = (batch if place == 0 else length for place in range(len(info.shape)))
    shape = [
        size or any_size for size, any_size in zip(info.shape, open_sizes, strict=True)
    ]  # as the description, without open sizes
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return np.ones(shape, dtype=dtype)


def time_interleaved(
    runs: Mapping[Name, Callable[[], object]], *, budget_s: float = BUDGET_S
) -> dict[Name, list[float]]:
    """Time several runs in turn, so that what disturbs the machine disturbs all alike.

    Each is warmed up once, then they take turns of a few runs until `budget_s` or 36 samples of
    each are spent, but at least once. Between the turns nothing runs for `SETTLE_S`. A pause of the
    machine is not taken for the length of a run: what is spent is counted by the least that each
    took, up to four times as long.

    Args:
        runs: name -> what to time.
        budget_s: seconds for all of them together; runs that take longer exceed it.

    Returns:
        Name -> seconds of each run.
    """
    begun = time.perf_counter()
    found: dict[Name, list[float]] = {name: [] for name in runs}
    least = {name: _seconds(run) for name, run in runs.items()}
    n_each, rested = 1, 0.0
    for _ in range(MOST_ROUNDS):
        length = BLOCK if n_each * sum(least.values()) + rested < budget_s else 2
        for name, run in runs.items():
            if len(runs) > 1:
                time.sleep(SETTLE_S)
                rested += SETTLE_S
            block = [_seconds(run) for _ in range(length)]
            found[name] += block[1:]
            least[name] = min(least[name], *block)
        n_each += length
        spent = n_each * sum(least.values()) + rested
        if spent > budget_s or time.perf_counter() - begun > _PAUSED * budget_s:
            break
    return found


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
