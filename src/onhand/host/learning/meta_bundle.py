"""A bundle like another one, whose learning begins from values found by meta-learning."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.bundle import Bundle, read_bundle, stage_bundle, write_manifest
from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.device.learning.base import Feeds, Teachable, Values
from onhand.device.learning.class_feeds import ClassSource, classes_of
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.lesson_files import class_names, read_lesson
from onhand.host.learning.meta import Learned, Meta, meta_learn, refit_head
from onhand.host.learning.tasks import head_names
from onhand.host.plain import read_plain_bundle

__all__ = ["MetaBundle", "meta_bundle", "with_start"]

_REFIT_STEPS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaBundle:
    """What meta-learning gave.

    Attributes:
        bundle: the new one.
        learned: its starting values, judged.
        n_classes: of the data.
        n_examples: likewise.
    """

    bundle: Bundle
    learned: Learned
    n_classes: int
    n_examples: int

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "examples": self.n_examples,
            "classes": self.n_classes,
            "judged_classes": len(self.learned.classes),
            "judged_tasks": len(self.learned.after),
            "right_before": float(np.mean(self.learned.before)),
            "right_after": float(np.mean(self.learned.after)),
        }


def meta_bundle(
    path: Path, data: Path, out: Path, how: Meta, *, threads: int, progress: Progress
) -> MetaBundle:
    """Find starting values for few examples of new classes, and write them into a new bundle.

    Args:
        path: a bundle that can learn more than a head.
        data: labelled examples of many classes; where the network has classes of its own, of
            each of these too, for its head is taught them again.
        out: the new bundle's folder; must not exist.
        how: the settings.
        threads: of one step.
        progress: told how far it is.

    Returns:
        The new bundle, and what its starting values are worth.

    Raises:
        InputError: if the data do not fit, or the values are no better than those that were there.
        BundleError: if a file of the bundle is missing or changed.
        EngineError: if the lesson's graph fails.
    """
    bundle = read_plain_bundle(path)
    lesson = read_lesson(bundle)
    if lesson.feeds != "classes":
        raise InputError(f"{path}: meta-learning is for classifiers; this is a language model")
    read = read_examples(data)
    for note in read.notes:
        progress.note(note)
    own = class_names(bundle, lesson)
    with closing(open_lesson(bundle, threads=threads, memory="fast")) as teachable:
        names = classes_of(read.examples, own, n_known=_n_own(teachable), can_grow=True)
        source = ClassSource(bundle, teachable, names, read.examples)
        _check_own(source.labels, names, _n_own(teachable))
        learned = meta_learn(teachable, source, how, progress=progress)
        if not learned.helps:
            before, after = (100 * float(np.mean(s)) for s in (learned.before, learned.after))
            raise InputError(
                f"{path}: meta-learning does not help: of tasks of classes kept apart "
                f"{before:.1f} % are right before and {after:.1f} % after; give examples of more "
                "classes, or more rounds"
            )
        values = learned.values
        if _n_own(teachable):
            values = _own_again(teachable, source, values, seed=how.seed)
    made = with_start(bundle, values, out)
    return MetaBundle(
        bundle=made,
        learned=learned,
        n_classes=len(np.unique(source.labels)),
        n_examples=len(source),
    )


def _n_own(teachable: Teachable) -> int:
    """Return how many classes the lesson's head begins with."""
    lesson = teachable.lesson
    return min(lesson.trainables[name].shape[0] for name in head_names(lesson))


def _check_own(labels: np.ndarray, names: tuple[str, ...], n_own: int) -> None:
    """Refuse data that lack a class of the network's own.

    Raises:
        InputError: if they do.
    """
    missing = sorted(set(range(n_own)) - set(labels.tolist()))
    if missing:
        raise InputError(
            f"there is no example of {names[missing[0]]!r}, and {len(missing)} of the network's "
            f"own {n_own} classes have none: what lies before its head moves, so that each of "
            "them has to be learned again"
        )


class _Own:
    """The examples of the classes that the network has. See `Source`."""

    def __init__(self, source: ClassSource, n_own: int) -> None:
        self._source = source
        self._places = np.flatnonzero(source.labels < n_own).tolist()
        self.labels = source.labels[self._places]

    def __len__(self) -> int:
        return len(self._places)

    def weight(self, number: int) -> float:
        """See `Source`."""
        return self._source.weight(self._places[number])

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """See `Source`."""
        return self._source.feeds([self._places[number] for number in numbers], scale=scale)


def _own_again(
    teachable: Teachable, source: ClassSource, values: Values, *, seed: int
) -> dict[str, np.ndarray]:
    own = _Own(source, _n_own(teachable))
    return refit_head(teachable, own, values, steps=_REFIT_STEPS, seed=seed)


def with_start(bundle: Bundle, values: Values, out: Path) -> Bundle:
    """Write a bundle whose learning begins from other values; all else is the same, unsigned.

    Args:
        bundle: a verified bundle that can learn.
        values: of every trainable.
        out: the new bundle's folder; must not exist.

    Returns:
        The new bundle. It has no report: answers, speed and size are those of the other one.

    Raises:
        InputError: if `out` exists, or a value is missing or does not fit.
        ResourceError: if the disk is full.
    """
    lesson = read_lesson(bundle)
    for name, made in lesson.trainables.items():
        if name not in values or values[name].shape != made.shape:
            raise InputError(f"starting value {name!r} is missing, or not of shape {made.shape}")
    with stage_bundle(out) as staged:
        for name in bundle.manifest.files:
            place = staged / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if name != lesson.start:
                shutil.copyfile(bundle.path(name), place)
        specs = {
            name: TensorSpec(dtype="F32", shape=made.shape, offset=0)
            for name, made in lesson.trainables.items()
        }
        with SafetensorsWriter(staged / lesson.start, specs) as writer:
            for name in specs:
                writer.write(name, np.ascontiguousarray(values[name], dtype=np.float32))
            digest = writer.close()
        known = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
        write_manifest(staged, bundle.manifest, hashes={**known, lesson.start: digest})
    return read_bundle(out)
