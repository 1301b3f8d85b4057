"""How long a probe takes, how far its figures differ, and how often `--compare` cries wolf.

    python -m benchmarks.probing [--runs 5] [--json] [--out FILE.json]

`onhand probe` runs --runs times, each in a process of its own, one after the other. Nothing about
the machine changes meanwhile, so whatever `--compare` would tell between two of them is told
wrongly; where others kept the processors busy, "compared" is false and speeds are not told.
"reached" is the share of later medians of the bandwidth that are at least what an earlier probe
called its slow state.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from onhand.core.profile import DeviceProfile, read_profile
from onhand.core.profile_changes import are_comparable, profile_changes

__all__ = ["figures", "main", "summary"]


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        probed = [_probed(Path(folder) / f"{run}.toml") for run in range(given.runs)]
    profiles = [profile for profile, _ in probed]
    results = {
        "command": " ".join(["python -m benchmarks.probing", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": profiles[0].processor,
        "seconds": [seconds for _, seconds in probed],
        "figures": [figures(profile) for profile in profiles],
        **summary(profiles),
    }
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/probing.json"))
    return parser.parse_args()


def _probed(place: Path) -> tuple[DeviceProfile, float]:
    code = "import sys; from onhand.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "probe", "-o", str(place)]
    begun_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return read_profile(place), time.perf_counter() - begun_s


def figures(profile: DeviceProfile) -> dict[str, float]:
    """Return the speeds of a probe by name, in bytes or operations per second."""
    found = {"storage_read": profile.storage_read, "storage_write": profile.storage_write}
    for name, rates in (
        ("read_bandwidth", profile.read_bandwidth),
        ("slow_read_bandwidth", profile.slow_read_bandwidth),
    ):
        found |= {f"{name} {n}": rate for n, rate in enumerate(rates, start=1)}
    for one in profile.matrix_rates:
        found[f"{one.kind} {one.rows} x {one.inputs} x {one.outputs}"] = one.rate
    return found


def summary(profiles: Sequence[DeviceProfile]) -> dict[str, Any]:
    """Return how far figures differ, and what comparing neighbours would have told.

    Args:
        profiles: of one device, in order; at least two.
    """
    by_name: dict[str, list[float]] = {}
    for profile in profiles:
        for name, value in figures(profile).items():
            by_name.setdefault(name, []).append(value)
    medians = {name: statistics.median(values) for name, values in by_name.items()}
    told = [
        [change.name for change in profile_changes(one, other)] for one, other in pairwise(profiles)
    ]
    n_compared = sum(not name.startswith("slow") for name in by_name)
    reached = [
        later >= slow
        for place, one in enumerate(profiles)
        for other in profiles[place + 1 :]
        for slow, later in zip(one.slow_read_bandwidth, other.read_bandwidth, strict=True)
    ]
    return {
        "median": medians,
        "largest_over_smallest": {
            name: max(values) / min(values) for name, values in by_name.items() if min(values)
        },
        "others_busy": [profile.others_busy for profile in profiles],
        "compared": [are_comparable(one, other) for one, other in pairwise(profiles)],
        "told_wrongly": told,
        "told_wrongly_share": sum(map(len, told)) / (len(told) * n_compared),
        "reached_share": sum(reached) / len(reached),
    }


def table(results: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"a probe took {statistics.median(results['seconds']):.1f} s (median)"]
    for name, median in results["median"].items():
        far = results["largest_over_smallest"].get(name)
        spread = "" if far is None else f", largest over smallest {far:.2f}"
        lines.append(f"{name}: {median:.3g}{spread}")
    quiet, pairs = sum(results["compared"]), len(results["compared"])
    lines.append(f"{quiet} of {pairs} pairs were probed while others were quiet")
    lines.append(f"told wrongly: {results['told_wrongly_share']:.1%} of comparisons")
    lines.append(f"slow state reached later: {results['reached_share']:.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
