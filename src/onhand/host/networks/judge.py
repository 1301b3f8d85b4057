"""A packed network beside its original, on examples that no pass saw, in the engine that ships."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import EngineError, InputError
from onhand.core.measurement import Measurement, Unit
from onhand.core.progress import Progress
from onhand.device.learning.in_use import LearnedVersion
from onhand.device.networks.answer_child import FED
from onhand.device.networks.boxes import BoxReader
from onhand.host.networks.annotations import Truth
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.judge_boxes import compare_boxes
from onhand.host.networks.observe import observe
from onhand.host.networks.samples import Samples

__all__ = ["Answers", "answer_bundle", "answer_graph", "compare_answers", "square_error"]

_RESAMPLES = 2000
_SEED = 20260101
_AT_ONCE_BYTES = 2**28  # of examples in one file for the answering process
Doubles = NDArray[np.float64]
_CLASSES = ("image-classification", "text-classification", "audio-classification")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network answered: for each example its outputs, (1, ...) each, in order."""

    outputs: Sequence[Mapping[str, Array]]
    engine: str

    def first(self) -> list[Doubles]:
        """Return the first output of each example."""
        name = next(iter(self.outputs[0]))
        return [np.asarray(one[name], dtype=np.float64) for one in self.outputs]


def answer_graph(
    graph: Graph,
    samples: Samples,
    *,
    threads: int,
    progress: Progress,
    what: str = "running the original",
) -> Answers:
    """Run examples through a graph, here and one by one."""
    progress.start(what, len(samples))
    outputs = []
    for made in observe(graph, samples, threads=threads, batch=1):
        outputs.append(made)
        progress.advance(1)
    return Answers(outputs, "onnx")


def answer_bundle(
    root: Path,
    samples: Samples,
    *,
    variant: str,
    engine: str | None,
    threads: int,
    progress: Progress,
    learned: LearnedVersion | None = None,
) -> Answers:
    """Run examples through a bundle, in a fresh process that holds the device's code alone.

    Args:
        root: the bundle's folder.
        samples: the examples.
        variant: which of its variants.
        engine: name of the engine; None for the one that opening chooses.
        threads: of one run.
        progress: told of every example.
        learned: the version that answers; None for the bundle as it was built.

    Returns:
        The answers.

    Raises:
        EngineError: if the process fails; the message is its last line.
    """
    progress.start(f"judging {variant}", len(samples))
    outputs: list[dict[str, Array]] = []
    chosen = ""
    one = sum(array.nbytes for array in samples.feeds[0].values())
    at_once = max(_AT_ONCE_BYTES // max(one, 1), 1)
    with tempfile.TemporaryDirectory(prefix="onhand-judging-") as folder:
        for low in range(0, len(samples), at_once):
            part = samples.part(range(low, min(low + at_once, len(samples))))
            # A file for each shape in a row: texts differ in length.
            places: list[Path] = []
            for feeds in part.batches(at_once):
                places.append(Path(folder) / f"{len(places)}.npz")
                # With a mark before them: `savez` has arguments of its own.
                np.savez(places[-1], **{f"{FED}{name}": a for name, a in feeds.items()})  # type: ignore[arg-type]
            job = {
                "root": str(root.absolute()),
                "variant": variant,
                "engine": engine,
                "threads": threads,
                "version": 0 if learned is None else learned.number,
                "home": "" if learned is None else str(learned.home.absolute()),
                "batches": [str(place) for place in places],
            }
            chosen = _run_child(Path(folder) / "job.json", job)
            for place in places:
                outputs += _rows(place.with_suffix(".out.npz"))
            progress.advance(len(part))
    return Answers(outputs, chosen)


def _run_child(job: Path, given: Mapping[str, object]) -> str:
    job.write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, "-m", "onhand.device.networks.answer_child", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise EngineError(
            said[-1] if said else f"the answering process ended with {done.returncode}"
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return str(lines[0]["engine"])


def _rows(path: Path) -> list[dict[str, Array]]:
    """Return the outputs of each example of a file."""
    rows: list[dict[str, Array]] = []
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            number, _, name = key.partition(":")
            while len(rows) <= int(number):
                rows.append({})
            rows[int(number)][name] = np.asarray(file[key])
    return rows


def compare_answers(
    original: Answers,
    ours: Answers,
    *,
    task: str,
    labels: Sequence[int] | None,
    how: str,
    reader: BoxReader | None = None,
    truths: Sequence[Truth] | None = None,
) -> dict[str, Measurement]:
    """Summarise what a network lost, with 95 % intervals over examples.

    Args:
        original: answers of the original.
        ours: of the packed network, to the same examples.
        task: of the network; the first output is judged: scores of classes, or a vector.
        labels: of each example, its class; None where nobody knows.
        how: the command that measures it again.
        reader: of a detector's boxes; None where outputs are no boxes.
        truths: what is in each picture; None where nobody knows.

    Returns:
        By name. Boxes: see `compare_boxes`. Classes: `agreement` (same likeliest class),
        `kl_divergence`, and with labels `accuracy`, `original_accuracy` and `accuracy_loss`.
        Embeddings: `cosine_similarity`. Other tasks: `relative_error`. Always `quality_loss`, the
        share that is lost: of accuracy, of agreement where there are no labels, of similarity, or
        the relative error.

    Raises:
        EngineError: if one of the two gives a NaN or an infinity.
        InputError: if outputs of classes differ in size from example to example, or a label is the
            number of no class.
    """
    theirs, made = original.first(), ours.first()
    if not all(np.isfinite(array).all() for array in theirs):
        raise EngineError("the original gives a NaN or an infinity: look at its examples' scale")
    if reader is not None:
        made += [one[name] for one in ours.outputs for name in reader.outputs[1:]]
    if not all(np.isfinite(array).all() for array in made):
        raise EngineError("the compressed network gives a NaN or an infinity")
    if reader is not None:
        return compare_boxes(original.outputs, ours.outputs, reader, truths=truths, how=how)
    columns: dict[str, tuple[Unit, Doubles]] = {}
    if task in _CLASSES:
        columns = _classes(theirs, made, labels)
        lost = columns.get("accuracy_loss") or ("fraction", 1 - columns["agreement"][1])
    elif task == "text-embedding":
        similar = np.array([_cosine(a, b) for a, b in zip(theirs, made, strict=True)])
        columns["cosine_similarity"] = ("fraction", similar)
        lost = ("fraction", 1 - similar)
    else:
        error = np.array([_error(a, b) for a, b in zip(theirs, made, strict=True)])
        columns["relative_error"] = lost = ("fraction", error)
    columns["quality_loss"] = lost
    return {name: _figure(name, unit, values, how) for name, (unit, values) in columns.items()}


def square_error(wanted: Doubles, found: Doubles) -> float:
    """Return the sum of squared differences; all of `wanted` where the shapes differ.

    Two networks may find another number of boxes, and so give arrays of other sizes.
    """
    if wanted.shape != found.shape:
        return float(np.square(wanted).sum())
    return float(np.square(wanted - found).sum())


def _classes(
    theirs: Sequence[Doubles], made: Sequence[Doubles], labels: Sequence[int] | None
) -> dict[str, tuple[Unit, Doubles]]:
    sizes = {array.size for array in (*theirs, *made)}
    if len(sizes) > 1:
        raise InputError(f"classes: outputs hold {sorted(sizes)} scores, must be as many each")
    if labels is not None and (odd := [k for k in labels if not 0 <= k < min(sizes)]):
        raise InputError(f"an example has label {odd[0]}, the network has {min(sizes)} classes")
    before = np.stack([array.reshape(-1) for array in theirs])
    after = np.stack([array.reshape(-1) for array in made])
    first, other = before.argmax(axis=1), after.argmax(axis=1)
    p, q = _log_shares(before), _log_shares(after)
    divergence = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0)
    found: dict[str, tuple[Unit, Doubles]] = {
        "agreement": ("fraction", (first == other).astype(np.float64)),
        "kl_divergence": ("nat", divergence),
    }
    if labels is not None:
        right = np.asarray(labels)
        was, now = (first == right).astype(np.float64), (other == right).astype(np.float64)
        found["accuracy"] = ("fraction", now)
        found["original_accuracy"] = ("fraction", was)
        found["accuracy_loss"] = ("fraction", was - now)
    return found


def _log_shares(scores: Doubles) -> Doubles:
    """Return log probabilities of scores that are logits, or probabilities already."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        shares = np.maximum(scores, 1e-9)
        logs: Doubles = np.log(shares / shares.sum(axis=1, keepdims=True))
        return logs
    shifted = scores - scores.max(axis=1, keepdims=True)
    normal: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def _error(a: Doubles, b: Doubles) -> float:
    """Return the relative error; all is lost where there are more or fewer numbers."""
    if a.shape != b.shape:
        return 1.0
    return float(np.sqrt(square_error(a, b))) / max(float(np.linalg.norm(a)), 1e-12)


def _cosine(a: Doubles, b: Doubles) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / norm if norm else 1.0


def _figure(name: str, unit: Unit, values: Doubles, how: str) -> Measurement:
    draws = np.random.default_rng(_SEED).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return Measurement(
        name=name,
        value=float(values.mean()),
        unit=unit,
        samples=len(values),
        spread=0.0,
        how=how,
        interval=(float(low), float(high)),
    )
