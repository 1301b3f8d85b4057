"""The way that a trial chooses, against measuring every way at length: what choosing costs.

    onhand build examples/house_assistant/model -o out/house
    python -m benchmarks.ways out/house [--trials 5] [--runs 3] [--json]

For each bundle: how long the first opening's trial takes, which ways repeated trials choose, how
long remembering takes to find it again, and the time of a usual answer (128 tokens of prompt, 64
of answer) in every way, measured apart at length. The regret is how much longer the chosen way
takes than the best one. On a machine with an accelerator its ways are among them.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from onhand.core.bundle import Bundle, read_bundle
from onhand.device.adapting.choosing import WayChoice, thread_counts
from onhand.device.adapting.trial import ANSWER_TOKENS, PROMPT_TOKENS, way_name
from onhand.device.bench import bench
from onhand.device.engine_opening import able_ways, choose_engine
from onhand.device.probe import current_profile

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results" / "ways.json"


def main() -> None:
    """Run the benchmark, print JSON, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {root.name: one_bundle(root, given.trials, given.runs) for root in given.bundles}
    whole = {"bundles": found, "device": current_profile().processor}
    RESULTS.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(json.dumps(whole, indent=None if given.json else 1) + "\n")


def one_bundle(root: Path, n_trials: int, runs: int) -> dict[str, object]:
    """Return what choosing costs for one bundle, and what it gains."""
    bundle = read_bundle(root)
    variant, _ = bundle.variant(None)
    chosen: list[str] = []
    trial_s: list[float] = []
    recall_s: list[float] = []
    for _ in range(n_trials):
        with tempfile.TemporaryDirectory() as folder:
            choice, took_s = timed_choice(bundle, variant, Path(folder))
            _, again_s = timed_choice(bundle, variant, Path(folder))
        trial_s.append(took_s)
        recall_s.append(again_s)
        chosen.append(way_name(choice.engine, choice.threads))
    answer_s = at_length(bundle, root, variant, runs)
    best_s = min(answer_s.values())
    regrets = [answer_s[name] / best_s - 1 for name in chosen if name in answer_s]
    return {
        "answer_s": answer_s,
        "chosen": dict(Counter(chosen)),
        "recall_s": median(recall_s),
        "regret": median(regrets) if regrets else None,
        "regret_most": max(regrets, default=None),
        "trial_s": median(trial_s),
        "trial_s_most": max(trial_s),
    }


def timed_choice(bundle: Bundle, variant: str, home: Path) -> tuple[WayChoice, float]:
    """Return what is chosen with a state folder, and the seconds that it took."""
    begun = time.perf_counter()
    choice = choose_engine(bundle, variant, home=home)
    return choice, time.perf_counter() - begun


def at_length(bundle: Bundle, root: Path, variant: str, runs: int) -> dict[str, float]:
    """Return the seconds of a usual answer in every way that is worth a trial."""
    profile = current_profile()
    names, _ = able_ways(bundle, profile, variant=variant)
    found: dict[str, float] = {}
    for name in names:
        if name == "reference":
            continue
        for threads in thread_counts(profile.usable_threads):
            figures = bench(root, variant=variant, engine=name, threads=threads, runs=runs)
            found[way_name(name, threads)] = (
                PROMPT_TOKENS / figures["prefill_tokens_per_s"].value
                + ANSWER_TOKENS / figures["decode_tokens_per_s"].value
            )
    return found


if __name__ == "__main__":
    main()
