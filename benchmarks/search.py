"""Does the search earn its place: mixed against uniform, builds needed, and the front it finds.

    python -m benchmarks.search [mixed|builds|hypervolume ...] [--model NAME] [--threads N] [--json]

`mixed`: at the size of uniform int4 the divergence of the point that the search takes, and how
much smaller a point of the same divergence is; both against uniform int4 of the same rounding
method, against the same with scales of 8 bits as the search has them, and against the default of
`onhand build --bits 4`. `builds`: real builds until a budget of
size and quality holds, with the predictor, without it, and at random. `hypervolume`: the front
found, beside all 256 builds of a small space. Every figure is a real bundle's in its engine on
held-out text. Nothing but `builds` at random draws by chance, and that from seeds.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.search_ground import MODELS, Builder, Outcome, make_ground, model_places
from onhand.core.budget import Budget
from onhand.core.measurement import Measurement
from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat
from onhand.device.threads import usable_threads
from onhand.host.search.choices import SearchSpace, form_name
from onhand.host.search.exact import best_pick
from onhand.host.search.front import hypervolume
from onhand.host.search.knapsack import Pick, hull_front, pick_of
from onhand.host.search.planner import Planner
from onhand.host.search.search import Search

__all__ = ["main"]

RESULTS = Path("benchmarks/results/search.json")
UNIFORM = "int4 g32"
SHARES = (0.9998, *(1 - percent / 100 for percent in range(1, 31)))
SMALL = tuple(GroupFormat(bits=bits) for bits in (2, 3, 4, 8))
TIES = ("embed", "layers.*.qkv", "layers.*.out", "layers.*.[gd]*")
MOST_BUILDS = 40
SEEDS = range(7)
TOKENS = 2048


def main() -> None:
    """Run the parts that are asked for, and keep the figures."""
    parts = {"mixed": mixed, "builds": builds, "hypervolume": found_front}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", nargs="*", choices=[*parts, []])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results: dict[str, object] = {}
    if given.out.exists():
        results = json.loads(given.out.read_text(encoding="utf-8"))
    for part in given.part or list(parts):
        for name in given.model or MODELS:
            if not model_places(name)[0].is_dir():
                sys.stderr.write(f"{name} is absent: set ONHAND_ASSETS; left out\n")
                continue
            if part == "hypervolume" and name != "tinystories":
                continue
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as home:
                found = parts[part](name, Path(home), given.threads)
            found |= {
                "command": f"python -m benchmarks.search {part} --model {name}",
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": time.perf_counter() - started,
            }
            results[f"{part} {name}"] = found
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            if not given.json:
                plain = {key: one for key, one in found.items() if not isinstance(one, list | dict)}
                print(f"{part} {name}: {json.dumps(plain)}", flush=True)
    if given.json:
        print(json.dumps(results))


def mixed(name: str, home: Path, threads: int) -> dict[str, object]:
    """Compare mixed precision with uniform int4."""
    found: dict[str, object] = {}
    uniform: dict[str, Outcome] = {}
    rows: list[dict[str, object]] = []
    for method in ("clip", "gptq"):
        ground = make_ground(
            name, SearchSpace(method=method), budget=Budget(), home=home, threads=threads
        )
        planner, builder = ground.opened.planner, ground.builder
        plain = pick_of(planner.groups, dict.fromkeys(planner.members, UNIFORM))
        uniform[method] = builder.build(planner.choices(plain), scale_bits=16)
        tabled = builder.build(planner.choices(plain))
        saved = uniform[method].size_bytes - tabled.size_bytes
        rows = []
        for share in SHARES:
            pick = under_size(planner, plain, share, saved=saved)
            outcome = builder.build(planner.choices(pick))
            predicted = planner.point(pick).predicted
            rows.append({
                "share_of_size": share,
                "predicted_kl": predicted["kl_divergence"],
                "choices": dict(pick.choices),
                **outcome.to_json(),
            })
        found[f"uniform_{method}"] = uniform[method].to_json()
        found[f"uniform_{method}_scales_8"] = tabled.to_json()
        found[f"mixed_{method}"] = rows
        found |= _against(f"{method}_against_{method}", rows, uniform[method])
        found |= _against(f"{method}_against_{method}_scales_8", rows, tabled)
    found |= _against("search_against_default", rows, uniform["clip"])
    return found


def _against(name: str, rows: list[dict[str, object]], uniform: Outcome) -> dict[str, object]:
    """Say how much less is lost at the same size, and how much smaller the same loss is."""
    figures = [(float(str(row["size_bytes"])), float(str(row["kl_divergence"]))) for row in rows]
    less = 1 - min(kl for size, kl in figures if size <= uniform.size_bytes) / uniform.kl
    as_good = [size for size, kl in figures if kl <= uniform.kl]
    smaller = 1 - min(as_good, default=float(uniform.size_bytes)) / uniform.size_bytes
    return {
        f"{name}_less_divergence": less,
        f"{name}_smaller": smaller,
        f"{name}_holds": less >= 0.15 and smaller >= 0.08,
    }


def under_size(planner: Planner, plain: Pick, share: float, *, saved: float = 0.0) -> Pick:
    """Return the best point of at most a share of a plain one's size with what scales save."""
    size = planner.table.names.index("size_bytes")
    most: list[float | None] = [None] * len(planner.table.names)
    fixed = planner.table.fixed[size]
    most[size] = (plain.costs[size] + fixed + saved) * share - fixed
    pick = best_pick(planner.groups, most=most)
    return plain if pick is None else pick


def builds(name: str, home: Path, threads: int) -> dict[str, object]:
    """Count real builds until a budget holds, three ways."""
    ground = make_ground(
        name, SearchSpace(), budget=Budget(), home=home, threads=threads, most_tokens=TOKENS
    )
    planner, builder = ground.opened.planner, ground.builder
    plain = pick_of(planner.groups, dict.fromkeys(planner.members, UNIFORM))
    goals = []
    for share in (1.0, 0.94, 0.85):
        size = int(builder.build(planner.choices(plain)).size_bytes * share)
        best = builder.build(planner.choices(under_size(planner, plain, share)))
        goals.append((size, best.kl * 1.1))
    rows = [_count(planner, builder, size, kl) for size, kl in goals]
    medians = {
        f"{way}_median_builds": median([float(str(row[way])) for row in rows])
        for way in ("with_predictor", "without_predictor", "at_random")
    }
    return {"budgets": rows, "most_builds": MOST_BUILDS, **medians}


def _count(planner: Planner, builder: Builder, size: int, kl: float) -> dict[str, object]:
    """Count builds until a size and a divergence hold; one more than the most if never."""

    def holds(choices: Mapping[str, str]) -> bool:
        outcome = builder.build(choices)
        return outcome.size_bytes <= size and outcome.kl <= kl

    return {
        "size_bytes": size,
        "kl_divergence": kl,
        "with_predictor": _with_predictor(planner, builder, size, kl),
        "without_predictor": _first(_plain_order(planner, size), holds),
        "at_random": median([_first(_random(planner, seed, size), holds) for seed in SEEDS]),
    }


def _with_predictor(planner: Planner, builder: Builder, size: int, kl: float) -> int:
    """Count the builds of a search for the best point under a size, until it is good enough."""
    asked = replace(
        planner,
        budget=Budget(size_bytes=size),
        observations=list(planner.observations),
        factors={},
    )
    count = 0
    found = False

    def measure(choices: Mapping[str, str]) -> Mapping[str, Measurement]:
        nonlocal count, found
        outcome = builder.build(choices)
        if not found:
            count += 1
        found = found or (outcome.size_bytes <= size and outcome.kl <= kl)
        return {
            name: Measurement(name=name, value=value, unit="one", samples=1, spread=0.0, how="")
            for name, value in outcome.to_json().items()
        }

    Search(planner=asked, measure=measure, accept_estimates=False, progress=Quiet()).run()
    return count if found else MOST_BUILDS + 1


def _first(tries: Iterator[dict[str, str]], holds: Callable[[Mapping[str, str]], bool]) -> int:
    """Return which of the tries holds first."""
    for number, choices in enumerate(itertools.islice(tries, MOST_BUILDS), start=1):
        if holds(choices):
            return number
    return MOST_BUILDS + 1


def _plain_order(planner: Planner, size: int) -> Iterator[dict[str, str]]:
    """Try what one would by hand: the largest uniform format that fits, then single upgrades."""
    matrices = [name for own in planner.members.values() for name in own]
    forms = list(planner.table.each[matrices[0]])
    sizes = {
        form: planner.table.figures(dict.fromkeys(matrices, form))["size_bytes"] for form in forms
    }
    fitting = sorted((form for form in forms if sizes[form] <= size), key=lambda f: -sizes[f])
    base = dict.fromkeys(matrices, fitting[0] if fitting else min(forms, key=sizes.__getitem__))

    yield from (dict.fromkeys(matrices, form) for form in fitting)
    better = sorted(
        (f for f in forms if sizes[f] > sizes[base[matrices[0]]]), key=lambda f: sizes[f]
    )
    for form in better:
        for name in matrices:
            one = base | {name: form}
            if planner.table.figures(one)["size_bytes"] <= size:
                yield one


def _random(planner: Planner, seed: int, size: int) -> Iterator[dict[str, str]]:
    """Draw formats for every matrix until the size fits; among those that fill it to 90 %."""
    random = np.random.default_rng(seed)
    matrices = [name for own in planner.members.values() for name in own]
    forms = {name: list(planner.table.each[name]) for name in matrices}

    while True:
        one = {name: forms[name][random.integers(len(forms[name]))] for name in matrices}
        if 0.9 * size <= planner.table.figures(one)["size_bytes"] <= size:
            yield one


def found_front(name: str, home: Path, threads: int) -> dict[str, object]:
    """Compare the front found with that of all builds of a small space."""
    ground = make_ground(
        name,
        SearchSpace(forms=SMALL, ties=TIES),
        budget=Budget(),
        home=home,
        threads=threads,
        most_tokens=TOKENS,
    )
    planner, builder = ground.opened.planner, ground.builder
    names = [group.name for group in planner.groups]
    everything: list[tuple[float, float]] = []
    rows: list[dict[str, object]] = []
    for forms in itertools.product([form_name(form) for form in SMALL], repeat=len(names)):
        pick = pick_of(planner.groups, dict(zip(names, forms, strict=True)))
        outcome = builder.build(planner.choices(pick))
        everything.append((float(outcome.size_bytes), outcome.kl))
        rows.append({
            "choices": dict(pick.choices),
            "predicted_kl": planner.point(pick).predicted["kl_divergence"],
            "damage": pick.damage,
            **outcome.to_json(),
        })
    found = [builder.build(planner.choices(pick)) for pick in _front_picks(planner)]
    points = [(float(one.size_bytes), one.kl) for one in found]
    plain, logarithmic = _share(points, everything), _share(_logs(points), _logs(everything))
    ratios = [
        abs(np.log(float(str(r["predicted_kl"])) / float(str(r["kl_divergence"])))) for r in rows
    ]
    return {
        "groups": names,
        "n_builds": len(everything),
        "n_found": len({(one.size_bytes, one.kl) for one in found}),
        "hypervolume_share": plain,
        "hypervolume_share_log_kl": logarithmic,
        "holds": plain >= 0.98 and logarithmic >= 0.98,
        "median_prediction_error": float(np.expm1(np.median(ratios))),
        "everything": rows,
        "found": [one.to_json() for one in found],
    }


def _front_picks(planner: Planner) -> list[Pick]:
    """Return the front as a search would walk it: the sweep, and exact points between."""
    size = planner.table.names.index("size_bytes")
    weights = [1.0 if axis == size else 0.0 for axis in range(len(planner.table.names))]
    picks = hull_front(planner.groups, weights=weights)
    low, high = picks[0].costs[size], picks[-1].costs[size]
    for limit in np.linspace(low, high, 48):
        most: list[float | None] = [None] * len(planner.table.names)
        most[size] = float(limit) + 1e-6
        pick = best_pick(planner.groups, most=most)
        if pick is not None:
            picks.append(pick)
    return picks


def _logs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(size, float(np.log10(kl))) for size, kl in points]


def _share(found: list[tuple[float, float]], everything: list[tuple[float, float]]) -> float:
    """Return the hypervolume of some points as a share of that of all."""
    worst = np.array(everything).max(axis=0)
    best = np.array(everything).min(axis=0)
    reference = (worst + 0.01 * (worst - best)).tolist()
    return hypervolume(found, reference) / hypervolume(everything, reference)


if __name__ == "__main__":
    main()
