"""New classes from one example and from five, before and after meta-learning.

    python -m benchmarks.few_shot --model DIR [--set intents|digits ...] [--seeds 5] [--rounds 30]
        [--judged 40] [--json] [--out FILE.json]

DIR is a folder of a sentence encoder; without it the intents are left out, and that is said. Tasks
have 5 classes that neither the network's training nor meta-learning has seen: a third of CLINC150's
intents, and the spoken digits 5 to 9, heard by a network for other words. Each task is taught in 3
gradient steps (digits: 20), by the graph that a device runs, and asked about 5 further examples of
each class. Beside it: the nearest mean of the examples' vectors, and for texts, with no example at
all, the nearest vector of the classes' names. Equal seeds give equal tasks to all. Figures are the
mean over all tasks of all seeds; intervals are 95 % of that mean, over the seeds' means where there
are several. What is done is kept beside FILE, and a run that was cut off goes on from there.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.few_shot_sets import FewShotSet, digits, intents
from onhand.core.arrays import FloatArray
from onhand.host.learning.meta import METHODS, Meta, few_shot_scores, judging_tasks, meta_learn
from onhand.host.learning.tasks import Shape, Task

__all__ = ["main"]

SETS = ("intents", "digits")
SHOTS = (1, 5)
# Student's t for 95 %, two-sided, by degrees of freedom.
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    found: dict[str, Any] = {}
    for name in given.set or SETS:
        if name == "intents" and given.model is None:
            sys.stderr.write("intents are left out: give an encoder's folder by --model\n")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            made = (
                intents(given.model, place, each=given.each)
                if name == "intents"
                else digits(place, each=given.each)
            )
            with closing(made.teachable):
                found[name] = _measured(made, given)
    results = {
        "command": "python -m benchmarks.few_shot "
        + " ".join(f"--set {name}" for name in found)
        + f" --seeds {given.seeds} --rounds {given.rounds} --judged {given.judged}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ways": Shape().ways,
        "sets": found,
    }
    print(json.dumps(results, indent=1) if given.json else table(found))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for part in given.out.parent.glob(f"{given.out.stem}.*.part"):
        part.unlink()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, help="folder of a sentence encoder")
    parser.add_argument("--set", action="append", choices=SETS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30, help="of meta-learning")
    parser.add_argument("--judged", type=int, default=40, help="tasks of each seed")
    parser.add_argument("--each", type=int, default=20, help="examples of each class")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/few_shot.json"))
    return parser.parse_args()


def _measured(made: FewShotSet, given: argparse.Namespace) -> dict[str, Any]:
    """Return shares of right answers, by shots and by what taught."""
    rounds: dict[str, dict[str, list[float]]] = {f"{shots}-shot": {} for shots in SHOTS}
    spent: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(given.seeds):
        for shots in SHOTS:
            how = Meta(
                shape=Shape(shots=shots),
                rounds=given.rounds,
                steps=made.steps,
                head_rate=made.head_rate,
                outer_rate=made.outer_rate,
                judged=given.judged,
                seed=seed,
            )
            by = rounds[f"{shots}-shot"]
            part = given.out.with_suffix(f".{made.name}-{shots}-{seed}.part")
            if part.exists() and (kept := json.loads(part.read_text()))["how"] == repr(how):
                found = kept
            else:
                found = _one(made, how)
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps({"how": repr(how), **found}), encoding="utf-8")
            for name, score in found["scores"].items():
                by.setdefault(name, []).append(score)
            for name, seconds in found["spent"].items():
                spent[name].append(seconds)
            sys.stderr.write(f"{made.name}, seed {seed}, {shots}-shot: {json.dumps(by)}\n")
    return {
        "meta_learning_s": {m: statistics.fmean(v) for m, v in spent.items()},
        "shots": {
            shots: {name: _mean(values) for name, values in by.items()}
            for shots, by in rounds.items()
        },
    }


def _one(made: FewShotSet, how: Meta) -> dict[str, dict[str, float]]:
    """Return the mean of one seed's tasks, and seconds of meta-learning, by what taught."""
    spent: dict[str, list[float]] = {method: [] for method in METHODS}
    tasks = judging_tasks(made.held.labels, np.unique(made.held.labels), how)
    scores = _scored(made, tasks, how, spent)
    return {
        "scores": {name: statistics.fmean(values) for name, values in scores.items()},
        "spent": {name: values[0] for name, values in spent.items()},
    }


def _scored(
    made: FewShotSet, tasks: Sequence[Task], how: Meta, spent: Mapping[str, list[float]]
) -> dict[str, Sequence[float]]:
    """Return the shares of one seed's tasks, by what taught."""
    start = made.teachable.start()
    found: dict[str, Sequence[float]] = {
        "before": few_shot_scores(made.teachable, made.held, start, tasks, how),
        "prototypes": [_nearest(made.vectors, task) for task in tasks],
    }
    if made.label_vectors:
        found["zero-shot"] = [_by_name(made, task) for task in tasks]
    for method in METHODS:
        begun = time.perf_counter()
        # The tasks that judge are of classes held out; none need be kept apart of those seen.
        mine = replace(how, method=method)
        learned = meta_learn(made.teachable, made.seen, replace(mine, judged=1))
        spent[method].append(time.perf_counter() - begun)
        # As it was learned: ANIL moves the head alone within a task, Reptile all.
        found[method] = few_shot_scores(made.teachable, made.held, learned.values, tasks, mine)
    return found


def _nearest(vectors: FloatArray, task: Task) -> float:
    """Return the share of a task's query that is nearest the mean of its own class."""
    ways = len(task.classes)
    means = vectors[list(task.support)].reshape(ways, -1, vectors.shape[1]).mean(axis=1)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return _share(vectors[list(task.query)] @ means.T, task)


def _by_name(made: FewShotSet, task: Task) -> float:
    named = np.stack([made.label_vectors[name] for name in task.classes])
    return _share(made.vectors[list(task.query)] @ named.T, task)


def _share(likeness: FloatArray, task: Task) -> float:
    return float((likeness.argmax(axis=1) == task.labels(task.query)).mean())


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean over the seeds, and half of its 95 % interval."""
    n = len(values)
    half = _T.get(n - 1, 2.0) * statistics.stdev(values) / n**0.5 if n > 1 else None
    return {"mean": statistics.fmean(values), "half_interval": half, "seeds": values}


def table(found: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = []
    for name, of in found.items():
        for shots, by in of["shots"].items():
            lines.append(f"{name}, 5 ways, {shots}")
            for method, value in by.items():
                half = value["half_interval"]
                spread = "" if half is None else f" +- {100 * half:.1f}"
                lines.append(f"  {method:12} {100 * value['mean']:.1f}{spread}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
