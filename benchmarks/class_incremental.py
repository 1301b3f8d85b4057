"""Classes that come a few at a time: what each method keeps of the first ones.

    python -m benchmarks.class_incremental --bundles out/streams [--encoder BUNDLE]
        [--digits digits.csv.gz] [--sets digits,spoken,intents] [--seeds 5] [--json]
    python -m benchmarks.class_incremental --document docs/learning.md

Three sets: scikit-learn's digits, two at a time (`digits.csv.gz` of its package, or one that is
installed), by 64 pixels -> 100 -> head, all of which learns; spoken digits of fsdd, two at a time,
by two convolutions and two layers, all of which learn; CLINC150's 150 intents, fifteen at a time,
by a new head on an encoder's vectors (a bundle of an encoder). All classes learned so far are told
apart, without being told the task. Prototypes make a head on the same network as it was drawn, or
on the encoder. "joint" learns all classes at once, for as many epochs: what could be reached. Each
seed decides the order of classes and examples, and the first weights. Bundles that --bundles does
not hold are built in a process of its own; learning runs in one without torch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.class_incremental_data import Data, read_digits, read_intent_texts, read_spoken
from benchmarks.class_incremental_runs import METHODS, Setting, Stream, latents_of, learn_stream
from onhand.core.bundle import Bundle, read_bundle
from onhand.device.learning.base import Teachable
from onhand.device.learning.graph import open_lesson
from onhand.device.probe import current_profile

__all__ = ["document_with", "main", "tables"]

Sets = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]

SETTINGS: Mapping[str, Setting] = {
    "digits": Setting(
        n_tasks=5,
        epochs=10,
        batch=32,
        rate=2e-3,
        memory_bytes=24 * 2**10,
        options={"ewc": {"ewc_strength": 1000.0}},
    ),
    "spoken": Setting(
        n_tasks=5,
        epochs=6,
        batch=32,
        rate=1e-3,
        memory_bytes=512 * 2**10,
        options={"ewc": {"ewc_strength": 1000.0}},
    ),
    "intents": Setting(
        n_tasks=10,
        epochs=4,
        batch=32,
        rate=1e-2,
        memory_bytes=2 * 2**20,
        options={"ewc": {"ewc_strength": 1000.0}},
    ),
}
SHOWN = ("average_accuracy", "forgetting", "calibration_error")
_FIGURES, _END = "<!-- class-incremental figures -->", "<!-- end of class-incremental figures -->"


def main() -> None:
    """Run the benchmark and print a table or JSON, or write the table of kept results."""
    given = _arguments()
    if given.document is not None:
        sets = json.loads(given.out.read_text())["sets"]
        given.document.write_text(document_with(given.document.read_text(), sets))
        return
    results = _kept(given.out)
    for name in given.sets:
        data = _read(name, given.digits)
        if data is None or (name == "intents" and given.encoder is None):
            sys.stderr.write(f"{name}: left out: its data or its encoder is not here\n")
            continue
        _build(name, given)
        before = results["sets"].get(name, {"methods": {}})["methods"]
        made = _learn(name, data, given)
        results["sets"][name] = made | {"methods": before | made["methods"]}
    results |= {
        "command": f"python -m benchmarks.class_incremental --seeds {given.seeds}",
        "date": datetime.now(UTC).date().isoformat(),
        "processor": current_profile().processor,
        "load_average": os.getloadavg(),
        "torch_imported": "torch" in sys.modules,
    }
    if given.keep:
        given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(json.dumps(results) + "\n" if given.json else tables(results["sets"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundles", type=Path, default=Path("out/streams"))
    parser.add_argument("--encoder", type=Path, help="a bundle of an encoder")
    parser.add_argument("--digits", type=Path, help="scikit-learn's digits.csv.gz")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETTINGS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write --out, beside what it holds")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/class_incremental.json")
    )
    parser.add_argument("--document", type=Path, help="write --out's tables here, and no more")
    return parser.parse_args()


def _kept(path: Path) -> dict:  # type: ignore[type-arg]  # JSON
    """Return the results that other sets have."""
    return json.loads(path.read_text()) if path.exists() else {"sets": {}}


def _read(name: str, digits: Path | None) -> Data | None:
    if name == "digits":
        return read_digits(digits)
    return read_spoken() if name == "spoken" else read_intent_texts()


def _build(name: str, given: argparse.Namespace) -> None:
    """Build the bundles of a set in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.class_incremental_bundles", name]
    if given.encoder is not None:
        command += ["--encoder", str(given.encoder)]
    subprocess.run([*command, str(given.bundles)], check=True)


def _learn(name: str, data: Data, given: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Return the figures of each method, of all seeds."""
    found: dict[str, object] = {}
    for whole, methods in _lessons(name, given.methods).items():
        if not methods:
            continue
        bundle = read_bundle(given.bundles / whole)
        teachable = open_lesson(bundle, threads=given.threads)
        stream = _stream(bundle, teachable, data, given.bundles)
        for method in methods:
            runs = [
                learn_stream(teachable, stream, method, SETTINGS[name], seed=seed)
                for seed in range(given.seeds)
            ]
            found[method] = {"runs": runs, **_summary(runs)}
            sys.stderr.write(f"{name} {method}: {json.dumps(_summary(runs))}\n")
        teachable.close()
    return {"setting": _setting(SETTINGS[name]), "methods": found}


def _stream(bundle: Bundle, teachable: Teachable, data: Data, folder: Path) -> Stream:
    """Return what the trunk gives of all examples; it is kept, for a trunk does not change."""
    place = folder / f"{bundle.root.name}-{bundle.manifest_sha256[:16]}.npz"
    if not place.exists():
        begun = time.perf_counter()
        found = {
            "latents": latents_of(bundle, teachable, data.inputs),
            "test_latents": latents_of(bundle, teachable, data.test_inputs),
        }
        np.savez(place, **found)  # type: ignore[arg-type]  # by name
        sys.stderr.write(f"{bundle.root.name}: latents: {time.perf_counter() - begun:.0f} s\n")
    with np.load(place, allow_pickle=False) as kept:
        return Stream(
            latents=kept["latents"],
            labels=data.labels,
            test_latents=kept["test_latents"],
            test_labels=data.test_labels,
        )


def _lessons(name: str, methods: list[str]) -> dict[str, list[str]]:
    """Return bundle -> the methods that learn it."""
    if name == "intents":
        return {"intents-head": methods}
    heads = [method for method in methods if method == "prototypes"]
    return {name: [m for m in methods if m != "prototypes"], f"{name}-head": heads}


def _setting(setting: Setting) -> dict[str, object]:
    return {
        "batch": setting.batch,
        "epochs": setting.epochs,
        "memory_bytes": setting.memory_bytes,
        "options": {name: dict(options) for name, options in setting.options.items()},
        "precision": setting.precision,
        "rate": setting.rate,
        "tasks": setting.n_tasks,
    }


def _summary(runs: list[dict[str, object]]) -> dict[str, object]:
    """Return the mean of each figure, and the standard deviation between seeds."""
    made: dict[str, object] = {}
    for key in (*SHOWN, "accuracy", "backward_transfer", "learned", "seconds", "memory_examples"):
        numbers = [float(run[key]) for run in runs]  # type: ignore[arg-type]  # JSON
        made[key] = statistics.fmean(numbers)
        made[f"{key}_spread"] = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return made


def tables(sets: Sets) -> str:
    """Return one table of all sets, in percent: mean and standard deviation over the seeds."""
    heads = [f"{name}: {figure}" for name in sets for figure in ("accuracy", "forgetting")]
    rows = ["| method | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in METHODS:
        cells = [method]
        for found in sets.values():
            one = found["methods"].get(method, {})
            for key in ("average_accuracy", "forgetting"):
                is_none = not one or (method == "joint" and key == "forgetting")
                cells.append(
                    "-" if is_none else f"{100 * one[key]:.1f} ± {100 * one[f'{key}_spread']:.1f}"
                )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def document_with(text: str, sets: Sets) -> str:
    """Return a document with the table between its marks."""
    before, _, rest = text.partition(_FIGURES)
    _, _, after = rest.partition(_END)
    return f"{before}{_FIGURES}\n\n{tables(sets)}\n{_END}{after}"


if __name__ == "__main__":
    main()
