"""How fast the native engine answers while others compute, giving up threads and keeping them.

    onhand build examples/house_assistant/model -o out/house
    python -m benchmarks.beside_others out/house [--rounds 7] [--seconds 3] [--out FILE.json]

Each round lets 0, 1 and as many other processes as there are cores compute, and meanwhile answers
token by token: with all threads, which give way where that is quicker, with all threads whatever
happens, and with one. The three take turns, so that all see the same machine; a figure is that of
whole turns, with what trying one more thread costs.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import busy
from onhand.core.bundle import read_bundle
from onhand.device.engines.native import NativeEngine, NativeLoaded
from onhand.device.threads import usable_threads

__all__ = ["main", "table", "tokens_per_s"]

RESULT = Path(__file__).parent / "results" / "beside_others.json"
WAYS = ("gives way", "keeps them", "one thread")
PROMPT_TOKENS = 32
ANSWER_TOKENS = 64
"""Of one answer, then the conversation goes back to its prompt."""


def main() -> None:
    """Run the benchmark, write the results and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    words = f"--rounds {given.rounds} --seconds {given.seconds:g}"
    results: dict[str, Any] = {
        "command": f"python -m benchmarks.beside_others BUNDLE... {words}",
        "threads": usable_threads(),
        "models": {root.name: measured(root, given.rounds, given.seconds) for root in given.bundle},
    }
    given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(table(results["models"]))


def measured(root: Path, n_rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Return number of other processes -> way -> tokens per second, one for each round."""
    bundle = read_bundle(root)
    variant, _ = bundle.variant(None)
    n = usable_threads()
    loaded = {
        way: NativeEngine().open(bundle, variant=variant, threads=1 if way == WAYS[2] else n)
        for way in WAYS
    }
    loaded[WAYS[1]].inner.yield_cores(False)
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(n_rounds):
        sys.stderr.write(f"{root.name}: round {number + 1} of {n_rounds}\n")
        for n_others in sorted({0, 1, n}):
            with busy(n_others):
                time.sleep(0.2)
                for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                    speeds = found.setdefault(str(n_others), {}).setdefault(way, [])
                    speeds.append(tokens_per_s(loaded[way], seconds))
    return found


def tokens_per_s(loaded: NativeLoaded, seconds: float) -> float:
    """Decode for some seconds; return tokens per second."""
    session = loaded.session()
    prompt = np.arange(1, PROMPT_TOKENS + 1) % loaded.vocab_size
    loaded.step([(session, prompt)])
    n_tokens = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(ANSWER_TOKENS):
            loaded.step([(session, prompt[:1])])
        session.rewind(PROMPT_TOKENS)
        n_tokens += ANSWER_TOKENS
    return n_tokens / (time.perf_counter() - begun)


def table(models: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Return the results as a table in Markdown, quartiles in brackets."""
    lines = [
        f"| model | others | {' | '.join(WAYS)} | gives way beside keeps them |",
        "|---|---|---|---|---|---|",
    ]
    for model, counts in models.items():
        for n_others, ways in counts.items():
            ratios = [a / b for a, b in zip(ways[WAYS[0]], ways[WAYS[1]], strict=True)]
            cells = [f"{_shown(ways[way], ',.0f')}/s" for way in WAYS]
            lines.append(
                f"| {model} | {n_others} | {' | '.join(cells)} | {_shown(ratios, '.2f')} |"
            )
    return "\n".join(lines) + "\n"


def _shown(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    low, _, high = statistics.quantiles(values, n=4)
    return f"{format(statistics.median(values), form)} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    main()
