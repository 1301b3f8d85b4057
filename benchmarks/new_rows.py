"""New classes of a head that begin at zero, or at the mean direction of their examples.

    python -m benchmarks.new_rows [--seeds 5] [--json] [--out FILE.json]

Scikit-learn's digits and spoken digits (fsdd), on the frozen trunks that the class-incremental
benchmark draws: a head learns six classes from 40 examples of each, and then, with replay of these,
four more from five examples of each in few steps. Accuracy is that on test examples of all ten
classes; mean and standard deviation over the seeds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Final

import numpy as np

from benchmarks.class_incremental_bundles import FOLDERS
from benchmarks.class_incremental_data import Data, read_digits, read_spoken
from onhand.device.learning.learn import learn
from onhand.device.learning.new_rows import NewRows
from onhand.device.learning.settings import LearnSettings

__all__ = ["main"]

_OLD, _CLASSES, _KNOWN, _SHOTS, _TESTED = 6, 10, 40, 5, 30
_STEPS: Final = (1, 2, 5, 10, 30, 100)
_KINDS: Final[tuple[NewRows, ...]] = ("zeros", "imprinted")


def main() -> None:
    """Run the benchmark and print JSON, or a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, data in (("digits", read_digits(None)), ("spoken", read_spoken())):
        if data is None:
            sys.stderr.write(f"{name}: its data are not here\n")
            continue
        with tempfile.TemporaryDirectory(prefix="onhand-new-rows-") as folder:
            command = [sys.executable, "-m", "benchmarks.class_incremental_bundles", name, folder]
            subprocess.run(command, check=True)
            bundle = Path(folder) / FOLDERS[name][1]
            runs = [
                _run(bundle, data, Path(folder) / f"seed-{seed}", seed)
                for seed in range(given.seeds)
            ]
        found[name] = {
            kind: {
                str(steps): {
                    "accuracy": mean(run[kind, steps] for run in runs),
                    "deviation": pstdev([run[kind, steps] for run in runs]),
                }
                for steps in _STEPS
            }
            for kind in _KINDS
        }
    result = {"seeds": given.seeds, "sets": found, "shots": _SHOTS}
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(json.dumps(result) + "\n" if given.json else _table(found))


def _run(bundle: Path, data: Data, folder: Path, seed: int) -> dict[tuple[str, int], float]:
    """Return the accuracy of each way after each number of steps."""
    random = np.random.default_rng(seed)
    order = random.permutation(_CLASSES)
    old = _written(data, folder / "old", order[:_OLD], _KNOWN, random)
    new = _written(data, folder / "new", order[_OLD:], _SHOTS, random)
    test = _written(_tested(data), folder / "test", order, _TESTED, random)
    home = folder / "home"
    first = LearnSettings(method="naive", epochs=30, batch=16, heldout=0.0, seed=seed)
    learn(bundle, old, settings=first, home=home, threads=1)
    found: dict[tuple[str, int], float] = {}
    for kind in _KINDS:
        for steps in _STEPS:
            settings = replace(
                first,
                method="replay",
                steps=steps,
                new_rows=kind,
                remember=old,
                heldout=test,
                use=False,
            )
            made = learn(bundle, new, settings=settings, home=home, threads=1)
            found[kind, steps] = made.figures["new_accuracy"]
    return found


def _tested(data: Data) -> Data:
    return replace(data, inputs=data.test_inputs, labels=data.test_labels)


def _written(
    data: Data, folder: Path, classes: np.ndarray, n: int, random: np.random.Generator
) -> Path:
    """Write examples of some classes, a folder for each."""
    for one in classes:
        place = folder / str(one)
        place.mkdir(parents=True)
        chosen = random.permutation(np.flatnonzero(data.labels == one))[:n]
        for number in chosen:
            x = np.asarray(data.inputs[number], np.float32)[None]
            np.savez(place / f"{number}.npz", x=x)
    return folder


def _table(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    lines = []
    for name, kinds in found.items():
        for kind, rows in kinds.items():
            shown = ", ".join(
                f"{steps}: {100 * row['accuracy']:.1f} ± {100 * row['deviation']:.1f}"
                for steps, row in rows.items()
            )
            lines.append(f"{name}, {kind}: accuracy after steps {shown}\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
