"""Twenty budgets drawn at random: what is accepted holds when it is measured again.

    python -m benchmarks.budgets [--model NAME] [--count 20] [--threads N] [--work FOLDER] [--json]

Budgets of one to three limits are drawn from a seed, around what the front can reach; every fourth
has one limit that no format can hold. Each is planned, and built where the plan does not refuse.
What was built is measured again in a fresh process, after all others were built: size, memory and
quality must hold as they are, times on their slow side (median and interquartile range), and
`holds_within_margin` says whether they do with a tenth to spare for a machine that changed.
With --work, what is finished is kept there as it comes, and the same command goes on after it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.search_ground import MODELS, model_places
from onhand.core.budget import AXES, Budget, parse_budget
from onhand.core.bundle import read_bundle
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.progress import Quiet
from onhand.device.bench import bench
from onhand.device.opening import open_engine
from onhand.device.probe import current_profile
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.build import build_bundle
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.costs.kept import calibrate
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize
from onhand.host.search.choices import SearchSpace
from onhand.host.search.planning import plan_searched
from onhand.host.search.search import SearchPlan
from onhand.host.sources import load_model
from onhand.host.texts import split_texts

__all__ = ["main"]

T = TypeVar("T")

RESULTS = Path("benchmarks/results/budgets.json")
SEED = 7
MARGIN = 0.1
# Limits that some point near the middle of the front holds, as shares of its figures.
SLACK = (0.9, 1.5)
POSSIBLE = ("disk", "ram", "quality", "decode", "first-token", "energy")
# Quality is none of them: weights as they were lose nothing, and fit in any budget of it.
IMPOSSIBLE = {"disk": 0.5, "ram": 0.3, "decode": 50.0}


def main() -> None:
    """Run the benchmark, or measure one bundle for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", choices=MODELS, default="tinystories")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--work", type=Path, help="keep finished budgets here; none: from the start"
    )
    parser.add_argument("--again", type=Path, help="measure this bundle, and print its figures")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder, text = model_places(given.model)
    if not folder.is_dir():
        sys.stderr.write(f"{folder.name} is absent: set ONHAND_ASSETS\n")
        return
    if given.again is not None:
        figures = measure_again(given.again, folder, text, given.threads)
        print(json.dumps({name: one.to_json() for name, one in figures.items()}))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        rows = run(given.model, given.count, given.threads, work)
    accepted = [row for row in rows if row["accepted"]]
    results = {
        "command": f"python -m benchmarks.budgets --model {given.model} --count {given.count}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": given.threads,
        "seconds": time.perf_counter() - started,
        "accepted": len(accepted),
        "hold_again": sum(bool(row["holds_again"]) for row in accepted),
        "hold_within_margin": sum(bool(row["holds_within_margin"]) for row in accepted),
        "impossible": sum(row["impossible"] is not None for row in rows),
        "refused_by_plan_with_the_right_limit": sum(bool(row["right_binding"]) for row in rows),
        "budgets": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if given.json:
        print(json.dumps(results))


def run(model: str, count: int, threads: int, work: Path) -> list[dict[str, object]]:
    """Plan and build every budget, then measure all bundles again; go on where there is a part."""
    folder, text = model_places(model)
    home = work / "home"
    calibrate(home, current_profile())
    front = partial(plan, folder, text, "disk=1000GiB", home, threads)
    asked = kept(work / f"{model}-{count}.json", lambda: drawn(front(), count))
    places = [work / f"{model}-{count}-{number}" for number in range(count)]
    rows: list[dict[str, object]] = []
    for place, (budget, impossible) in zip(places, asked, strict=True):
        judge = partial(decide, folder, text, budget, impossible, home, threads, place)
        row = kept(place.with_suffix(".json"), judge)
        rows.append(row)
        said = row["said"] or "accepted"
        note = f"{budget}: {said} ({row['n_builds']} builds, {row['seconds']:.0f} s)"
        print(note, file=sys.stderr, flush=True)
    for number, (place, row) in enumerate(zip(places, rows, strict=True)):
        if row["accepted"]:
            judge = partial(again, row, place, model, threads)
            rows[number] = kept(place.with_suffix(".again.json"), judge)
    return rows


def kept(place: Path, make: Callable[[], T]) -> T:
    """Return what an earlier run left as JSON, or make it now and leave it.

    Args:
        place: the file.
        make: gives what JSON can hold.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_suffix(".new")
        beside.write_text(json.dumps(make()))
        beside.replace(place)
    made: T = json.loads(place.read_text())
    return made


def options_of(text: Path, budget: str, threads: int) -> BuildOptions:
    """Return a searching build."""
    return BuildOptions(
        transforms={"int4": Quantize()},
        keep_codes=True,
        search=SearchSpace(),
        budget=parse_budget(budget),
        calibrate=text,
        threads=threads,
        accept_estimates=True,
        measure_original=False,
    )


def plan(folder: Path, text: Path, budget: str, home: Path, threads: int) -> SearchPlan:
    """Return the predicted front."""
    return plan_searched(str(folder), options_of(text, budget, threads), home=home)


def drawn(front: SearchPlan, count: int) -> list[tuple[str, str | None]]:
    """Draw budgets; with each the limit that nothing can hold, if it has one."""
    random = np.random.default_rng(SEED)
    names = {key: AXES[key].measurement for key in POSSIBLE}
    found: list[tuple[str, str | None]] = []
    for number in range(count):
        point = front.points[int(random.integers(len(front.points) // 4, len(front.points)))]
        keys = sorted(random.choice(POSSIBLE, size=int(random.integers(1, 4)), replace=False))
        limits: dict[str, float] = {}
        for key in keys:
            share = float(random.uniform(*SLACK))
            value = point.predicted[names[key]]
            least = AXES[key].limit == "least"
            limits[key] = value / share / 2 if least else max(value, 0.002) * share
        impossible = None
        if number % 4 == 3:
            impossible = str(random.choice(list(IMPOSSIBLE)))
            figures = [one.predicted[names[impossible]] for one in front.points]
            factor = IMPOSSIBLE[impossible]
            limits[impossible] = factor * (max if impossible == "decode" else min)(figures)
        found.append((",".join(f"{key}={limits[key]:.6g}" for key in limits), impossible))
    return found


def decide(
    folder: Path,
    text: Path,
    budget: str,
    impossible: str | None,
    home: Path,
    threads: int,
    out: Path,
) -> dict[str, object]:
    """Plan a budget, and build it unless the plan refuses."""
    started = time.perf_counter()
    binding: list[str] = []
    said = ""
    try:
        forecast = plan(folder, text, budget, home, threads)
        if forecast.refusal is not None:
            binding = list(forecast.refusal.binding)
            said = forecast.refusal.sentence(forecast.limits)
    except BudgetExceeded as error:
        said = str(error)
        binding = [key for key in AXES if said.startswith(f"{key}: ")]
    row: dict[str, object] = {
        "budget": budget,
        "plan_s": time.perf_counter() - started,
        "refused_by_plan": bool(said),
        "binding": binding,
        "impossible": impossible,
        "right_binding": impossible is not None and binding == [impossible],
        "accepted": False,
        "n_builds": 0,
    }
    if not said:
        # What a run left that ended before it said so: finished bundles are made again.
        shutil.rmtree(out, ignore_errors=True)
        options = replace(options_of(text, budget, threads), resume=True)
        try:
            made = build_bundle(str(folder), out, options, home=home)
        except BudgetExceeded as error:
            said = str(error)
        else:
            row["accepted"] = True
            search = made.report["search"]
            row["n_builds"] = len(search["builds"]) if isinstance(search, dict) else 0
    return row | {"said": said, "seconds": time.perf_counter() - started}


def again(row: dict[str, object], bundle: Path, model: str, threads: int) -> dict[str, object]:
    """Measure a bundle in a fresh process, and judge it by its budget."""
    command = [sys.executable, "-m", "benchmarks.budgets", "--again", str(bundle)]
    command += ["--model", model, "--threads", str(threads)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = [measurement_from_json(one) for one in json.loads(told).values()]
    budget = parse_budget(str(row["budget"]))
    breaches = budget.breaches(figures, accept_estimates=True)
    wider = widened(budget).breaches(figures, accept_estimates=True)
    return row | {
        "holds_again": not breaches,
        "breaches_again": [asdict(one) for one in breaches],
        "holds_within_margin": not wider,
    }


def widened(budget: Budget) -> Budget:
    """Return a budget whose limits on time are a tenth wider."""
    limits = {
        AXES[key].measurement: limit
        if not AXES[key].timed
        else limit * (1 + MARGIN if AXES[key].limit == "most" else 1 - MARGIN)
        for key, limit in budget.limits().items()
    }
    return Budget(**limits)


def measure_again(root: Path, folder: Path, text: Path, threads: int) -> dict[str, Measurement]:
    """Measure a bundle's default variant: quality on the held-out text, and all else."""
    model = load_model(str(folder))
    tokenizer = parse_text_files(model.files, where=folder.name).tokenizer
    heldout = split_texts(tokenizer, text, model.decoder, max_tokens=65536).heldout.sequences
    run = run_original(model, calibration=(), heldout=heldout, threads=threads, progress=Quiet())
    bundle = read_bundle(root)
    default = bundle.manifest.default_variant
    loaded, _, _ = open_engine(bundle, variant=default, engine=None, threads=threads)
    tokens = compare_tokens(
        loaded, heldout, run.hidden, head_logits(model), progress=Quiet(), what=""
    )
    loaded.close()
    return quality_figures(tokens, how="") | bench(root, variant=default, threads=threads)


if __name__ == "__main__":
    main()
