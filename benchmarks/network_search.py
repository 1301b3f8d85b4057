"""A search over a network's layers: beside all choices, uniform int8, and other ways to build.

    python -m benchmarks.network_search [--network NAME ...] [--judged 400] [--budgets 10]
        [--small 6] [--encoder DIR] [--no-times] [--json]

Three questions to each network. `small space`: six layers (--small) with three choices each, all
729 of them run for what they really lose; how much of the volume under the real front do the points
fill that a search finds from its forecasts. `mixed`: the least loss at the time, and at the size,
of uniform int8, both measured in fresh processes. `builds`: how many real builds, each judged on
all examples, it takes to hold budgets of loss and size: by forecasts and what builds teach them, by
halving a list of layers without forecasts, and at random. With --encoder, the case "encoder" is
that folder's network on questions of people, and not one of random weights.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.network_cases import CASES, ground_of, keep_results, present
from onhand.core.budget import Budget
from onhand.device.threads import usable_threads
from onhand.host.networks.quantization.accuracy import OutputJudge
from onhand.host.search.front import hypervolume
from onhand.host.search.network_budget import next_candidate
from onhand.host.search.network_front import Candidate, Space, candidates, picks_under
from onhand.host.search.network_ground import Ground, Standing
from onhand.host.search.network_search import NetworkSearch

__all__ = ["main"]

RESULT = Path(__file__).parent / "results" / "network_search.json"
SMALL = ("float32", "static-8", "static-4")
N_SMALL = 6
MOST_BUILDS = 40
Point = tuple[float, float]


def main() -> None:
    """Answer all questions for every network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", choices=CASES)
    parser.add_argument("--judged", type=int, default=400)
    parser.add_argument("--budgets", type=int, default=10)
    parser.add_argument("--small", type=int, default=N_SMALL, help="layers that all choices of run")
    parser.add_argument("--encoder", type=Path, help="an encoder of texts, for the case encoder")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--no-times", action="store_true", help="leave out what must be timed")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, object] = {}
    for name in present(given.network or CASES[:2]):
        with tempfile.TemporaryDirectory() as home:
            ground = ground_of(
                name,
                Path(home),
                threads=given.threads,
                judged=given.judged,
                encoder=given.encoder,
            )
            search = NetworkSearch(ground)
            standing = next(iter(search.standings.values()))
            judge = _judge(ground)
            one: dict[str, object] = {
                "small space": small_space(standing, judge, given.small),
                "builds": builds(standing, judge, given.budgets),
            }
            if not given.no_times:
                one["mixed"] = mixed(search, standing)
            found[name] = one
    if not found:
        sys.exit("nothing to search")
    command = f"python -m benchmarks.network_search --judged {given.judged}"
    results = keep_results(found, command=command, threads=given.threads, out=given.out)
    print(json.dumps(results, indent=1, sort_keys=True) if given.json else told(found))


def _judge(ground: Ground) -> OutputJudge:
    return OutputJudge(
        ground.ready.graph,
        ground.ready.data.heldout,
        task=ground.options.task,
        threads=ground.ready.threads,
    )


def small_space(standing: Standing, judge: OutputJudge, n: int) -> dict[str, object]:
    """Run all choices of some layers, and compare their front with what a search finds."""
    space = next(iter(standing.spaces()))
    names = list(space.choices)
    places = np.linspace(0, len(names) - 1, min(n, len(names))).round().astype(int)
    free = [names[i] for i in places]
    narrow = replace(
        space, choices={n: SMALL if n in free else ("float32",) for n in space.choices}
    )
    real: dict[tuple[str, ...], Point] = {}
    for picked in product(SMALL, repeat=len(free)):
        mix = dict.fromkeys(names, "float32") | dict(zip(free, picked, strict=True))
        size = space.costs.whole(mix, space.engine)["size_bytes"]
        # In the logarithm: a front of errors spans several powers of ten.
        real[picked] = (size, float(np.log10(max(judge.error(standing.work.made(mix)), 1e-9))))
    corner = tuple(max(point[axis] for point in real.values()) for axis in (0, 1))
    sizes = [point[0] for point in real.values()]
    found = list(candidates(narrow))
    for size in np.linspace(min(sizes), max(sizes), 25):
        found += picks_under(narrow, size_bytes=float(size), latency_s=None, memory=None)
    chosen = {tuple(one.choices[n] for n in free) for one in found}
    whole = hypervolume(list(real.values()), (corner[0], corner[1]))
    ours = hypervolume([real[one] for one in chosen], (corner[0], corner[1]))
    return {
        "layers": free,
        "all": len(real),
        "found": len(chosen),
        "hypervolume_share": ours / whole,
        "drawn_share": _drawn(list(real.values()), len(chosen), (corner[0], corner[1])) / whole,
    }


def _drawn(points: Sequence[Point], n: int, corner: Point) -> float:
    """Return the median volume of as many points at random."""
    rng = np.random.default_rng(0)
    volumes = [
        hypervolume(
            [points[i] for i in rng.choice(len(points), min(n, len(points)), False)], corner
        )
        for _ in range(101)
    ]
    return statistics.median(volumes)


def mixed(search: NetworkSearch, standing: Standing) -> dict[str, Any]:
    """Measure uniform int8, and the least loss at its time and at its size."""
    found: dict[str, Any] = {}
    for space in standing.spaces():
        uniform = dict.fromkeys(space.choices, "static-8")
        plain = _candidate(space, uniform)
        limit_s, size = plain.predicted["latency_s"], plain.predicted["size_bytes"]
        front = [plain, *candidates(space)]
        front += picks_under(space, size_bytes=None, latency_s=limit_s * 1.02, memory=None)
        at_time = [c for c in front if c.predicted["latency_s"] <= limit_s * 1.02]
        at_size = [c for c in front if c.predicted["size_bytes"] <= size * 1.02]
        for label, some in (("int8", [plain]), ("same time", at_time), ("same size", at_size)):
            if some:
                best = min(some, key=lambda one: one.damage)
                figures = search.measure(best)
                found[f"{space.engine}, {label}"] = {
                    "choices": sorted(set(best.choices.values())),
                    "predicted": dict(best.predicted),
                    "measured": {n: f.value for n, f in figures.items()},
                    "latency_spread_s": figures["latency_s"].spread,
                }
    return found


def _candidate(space: Space, choices: Mapping[str, str]) -> Candidate:
    return Candidate(
        space=space,
        choices=choices,
        damage=space.damages.total(choices),
        predicted=space.predicted(choices),
    )


def builds(standing: Standing, judge: OutputJudge, n_budgets: int) -> dict[str, object]:
    """Count the real builds until budgets of loss and size hold, in three ways."""
    space = next(iter(standing.spaces()))
    front = candidates(space)
    rng = np.random.default_rng(7)
    known: dict[tuple[str, ...], float] = {}

    def real(mix: Mapping[str, str]) -> tuple[float, float]:
        key = tuple(mix[n] for n in space.choices)
        if key not in known:
            known[key] = max(judge.loss(standing.work.made(mix)), 0.0)
        return known[key], space.costs.whole(mix, space.engine)["size_bytes"]

    counts: dict[str, list[int]] = {"forecast": [], "halving": [], "random": []}
    for _ in range(n_budgets):
        # What the budget asks for exists: somewhat more than a random point of the front needs.
        loss, size = real(front[int(rng.integers(len(front)))].choices)
        budget = Budget(quality_loss=loss * 1.1 + 0.004, size_bytes=size * 1.03)

        def holds(mix: Mapping[str, str], budget: Budget = budget) -> bool:
            lost, taken = real(mix)
            return lost <= (budget.quality_loss or 0) and taken <= (budget.size_bytes or 0)

        counts["forecast"].append(by_forecast(front, budget, real, holds))
        counts["halving"].append(by_halving(space, budget, real, holds))
        counts["random"].append(at_random(space, holds, rng))
    return {
        name: {
            "median": statistics.median(taken),
            "mean": statistics.mean(taken),
            "held": sum(n <= MOST_BUILDS for n in taken),
            "counts": taken,
        }
        for name, taken in counts.items()
    }


Real = Callable[[Mapping[str, str]], tuple[float, float]]
Holds = Callable[[Mapping[str, str]], bool]


def by_forecast(front: Sequence[Candidate], budget: Budget, real: Real, holds: Holds) -> int:
    """Return how many builds a search takes that learns from each."""
    tried: list[Candidate] = []
    scales: dict[str, float] = {}
    while len(tried) < MOST_BUILDS:
        one = next_candidate(front, budget, scales=scales, tried=tried, most_over=4.0)
        if one is None:
            break
        tried.append(one)
        if holds(one.choices):
            return len(tried)
        lost = real(one.choices)[0]
        scales["quality_loss"] = max(lost, 1e-3) / max(one.predicted["quality_loss"], 1e-6)
    return MOST_BUILDS + 1


def by_halving(space: Space, budget: Budget, real: Real, holds: Holds) -> int:
    """Return how many builds it takes to halve lists of layers, first one choice, then others.

    Layers change in the order of their size, the largest first, as one would without a forecast.
    """
    names = sorted(space.choices, key=lambda n: -space.costs.sizes[n]["float32"])
    tried = 0
    for choice in ("static-8", "weights-8", "static-4", "weights-4"):
        low, high = 0, len(names)
        while low <= high and tried < MOST_BUILDS:
            middle = (low + high) // 2
            rest = "float32" if choice.endswith("8") else "static-8"
            mix = {n: choice if i < middle else rest for i, n in enumerate(names)}
            if any(one not in space.choices[n] for n, one in mix.items()):
                break
            tried += 1
            if holds(mix):
                return tried
            if real(mix)[1] > (budget.size_bytes or 0):
                low = middle + 1
            else:
                high = middle - 1
    return MOST_BUILDS + 1


def at_random(space: Space, holds: Holds, rng: np.random.Generator) -> int:
    """Return how many builds of random choices it takes."""
    for tried in range(1, MOST_BUILDS + 1):
        mix = {n: c[int(rng.integers(len(c)))] for n, c in space.choices.items()}
        if holds(mix):
            return tried
    return MOST_BUILDS + 1


def told(found: Mapping[str, Any]) -> str:
    """Lay the answers out for people."""
    lines: list[str] = []
    for name, one in found.items():
        small = one["small space"]
        lines.append(
            f"{name}: {small['found']} of {small['all']} points fill "
            f"{small['hypervolume_share']:.2%} of the volume, as many at random "
            f"{small['drawn_share']:.2%}"
        )
        for way, count in one["builds"].items():
            held, n = count["held"], len(count["counts"])
            lines.append(f"  {way}: {count['median']} builds, {held} of {n} budgets held")
        for label, point in one.get("mixed", {}).items():
            m = point["measured"]
            lines.append(
                f"  {label}: lost {m['quality_loss']:.2%}, divergence "
                f"{m.get('kl_divergence', 0):.5f}, {m['size_bytes'] / 1e6:.3f} MB, "
                f"{m['latency_s'] * 1e3:.3f} ms"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
