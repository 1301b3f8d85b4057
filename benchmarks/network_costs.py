"""What a network is forecast to cost, beside what it costs: size, memory and time of mixed choices.

    python -m benchmarks.network_costs [--network NAME ...] [--points 14] [--threads N] [--json]

The cost model measures the corners (all layers with one choice) and a few mixes. Then other mixes
are drawn: layers at random, runs of layers, and all choices at once; each is packed, timed in every
engine in turns with the others, and run in a fresh process of its own for its memory. The corners
are timed among them once more: forecasts are scaled by the median of what they take now beside what
they took, as on a shared machine the speed changes by the minute (of one network alone the times
of two rounds differ by more than forecasts do); errors of times as they were forecast are kept as
well. Networks whose
files are not in the folder of `ONHAND_ASSETS` are left out, which is said.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.network_cases import CASES, ground_of, keep_results, present
from onhand.core.measurement import Measurement
from onhand.device.networks.bench import bench_network
from onhand.device.networks.ranking import rank_networks
from onhand.device.threads import usable_threads
from onhand.host.costs.network_corners import uniform
from onhand.host.networks.pack import pack_network
from onhand.host.networks.quantization.mixed import CHOICES
from onhand.host.search.network_bases import bases_for
from onhand.host.search.network_front import Space
from onhand.host.search.network_ground import Ground

__all__ = ["drawn_mixes", "main", "slowdown"]

RESULT = Path(__file__).parent / "results" / "network_costs.json"
EACH_S = 1.0
AXES = ("size_bytes", "peak_memory_bytes", "latency_s", "unscaled_s")


def main() -> None:
    """Measure every network, print errors, and keep all points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", choices=CASES)
    parser.add_argument("--points", type=int, default=14)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, object] = {}
    for name in present(given.network or CASES):
        with tempfile.TemporaryDirectory() as home:
            ground = ground_of(name, Path(home), threads=given.threads, judged=1)
            found[name] = measured(ground, given.points)
    if not found:
        sys.exit("nothing to measure")
    command = f"python -m benchmarks.network_costs --points {given.points}"
    results = keep_results(found, command=command, threads=given.threads, out=given.out)
    print(json.dumps(results, indent=1, sort_keys=True) if given.json else table(found))


def drawn_mixes(space: Space, n: int) -> list[dict[str, str]]:
    """Return mixes that the cost model has not seen, the same for the same space.

    Args:
        space: layers and choices.
        n: how many.
    """
    rng = np.random.default_rng(20260101)
    names = list(space.choices)
    made: list[dict[str, str]] = []
    for i in range(n):
        if i % 3 == 0:  # at random, of all choices
            mix = {k: space.choices[k][rng.integers(len(space.choices[k]))] for k in names}
        elif i % 3 == 1:  # a run of layers in float
            low, high = sorted(rng.integers(0, len(names) + 1, 2))
            mix = {
                k: "float32" if low <= place < high else "static-8" for place, k in enumerate(names)
            }
        else:  # few or many on integers
            share = rng.uniform(0.1, 0.9)
            mix = {k: "static-8" if rng.random() < share else "float32" for k in names}
        made.append(mix)
    return made


def measured(ground: Ground, n: int) -> dict[str, object]:
    """Return predicted and measured figures of every mix in every engine, and their errors."""
    standing = ground.stand(bases_for(ground.options.task)[0])
    if standing is None:
        raise TypeError("the plain base is always there")
    spaces = {space.engine: space for space in standing.spaces()}
    mixes = drawn_mixes(next(iter(spaces.values())), n)
    corners = [uniform(standing.work, choice) for choice in CHOICES]
    corners = [dict(one) for one in {tuple(corner.items()): None for corner in corners}]
    ready = ground.ready
    points: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        bundles = {}
        named = {f"p{i}": mix for i, mix in enumerate(mixes)}
        named |= {f"corner{i}": mix for i, mix in enumerate(corners)}
        for name, mix in named.items():
            place = Path(folder) / name
            place.mkdir()
            graph = standing.work.made(mix)
            bundle = pack_network(
                ready.model, ready.network, {"mixed": graph}, place, provenance={}
            )
            bundles[name] = (bundle, "mixed")
        ranked, _ = rank_networks(bundles, threads=ready.threads, budget_s=EACH_S)
        slower = {
            engine: slowdown(
                space,
                corners,
                {
                    int(one.variant.removeprefix("corner")): one.latency_s.value
                    for one in ranked
                    if one.engine == engine and one.variant.startswith("corner")
                },
            )
            for engine, space in spaces.items()
        }
        for one in ranked:
            if one.engine not in spaces or one.variant.startswith("corner"):
                continue
            i = int(one.variant[1:])
            space = spaces[one.engine]
            told = space.predicted(mixes[i])
            told["unscaled_s"] = told["latency_s"]
            told["latency_s"] *= slower[one.engine]
            bundle, _ = bundles[one.variant]
            figures, _ = bench_network(
                bundle.root, engine=one.engine, threads=ready.threads, runs=2
            )
            points.append(_point(i, one.engine, told, figures, one.latency_s))
    return {
        "engines": {
            engine: {axis: errors(points, engine, axis) for axis in AXES} for engine in spaces
        },
        "slower_than_calibrated": slower,
        "n_layers": len(standing.work.layers),
        "points": points,
    }


def slowdown(space: Space, corners: Sequence[Mapping[str, str]], now: Mapping[int, float]) -> float:
    """Return how many times longer corners take than when the cost model measured them.

    Args:
        space: in one engine.
        corners: choices of all layers.
        now: place of a corner -> seconds, of those that the engine ran.
    """
    ratios = [
        seconds / space.predicted(corners[i])["latency_s"]
        for i, seconds in now.items()
        if all(choice in space.choices[name] for name, choice in corners[i].items())
    ]
    return statistics.median(ratios) if ratios else 1.0


def _point(
    i: int,
    engine: str,
    told: dict[str, float],
    figures: dict[str, Measurement],
    latency_s: Measurement,
) -> dict[str, object]:
    found = {axis: figures[axis].value for axis in AXES[:2]}
    found |= {"latency_s": latency_s.value, "unscaled_s": latency_s.value}
    return {
        "engine": engine,
        "mix": i,
        "predicted": {axis: told[axis] for axis in AXES},
        "measured": found,
        "latency_spread_s": latency_s.spread,
    }


def errors(points: Sequence[dict[str, object]], engine: str, axis: str) -> dict[str, float]:
    """Return the median relative error along an axis, its quartiles, and the largest."""
    shares: list[float] = []
    for point in points:
        told, found = point["predicted"], point["measured"]
        if point["engine"] == engine and isinstance(told, dict) and isinstance(found, dict):
            shares.append(abs(told[axis] / found[axis] - 1))
    low, _, high = statistics.quantiles(shares, n=4)
    return {
        "median": statistics.median(shares),
        "low": low,
        "high": high,
        "most": max(shares),
        "points": len(shares),
    }


def table(found: dict[str, object]) -> str:
    """Lay the errors out for people."""
    lines = [
        f"{'network':14} {'engine':9} {'figure':18} {'median':>8} {'quartiles':>18} {'most':>8}"
    ]
    for name, one in found.items():
        engines = one["engines"] if isinstance(one, dict) else {}
        for engine, axes in engines.items():
            for axis, e in axes.items():
                between = f"{e['low']:.1%} to {e['high']:.1%}"
                lines.append(
                    f"{name:14} {engine:9} {axis:18} {e['median']:8.1%} {between:>18} "
                    f"{e['most']:8.1%}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
