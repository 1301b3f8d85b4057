"""What was learned elsewhere becomes a version: judged as if it had been learned here.

A folder holds an adapter in PEFT's layout, or plain tensors (see `learned_files`). Where nobody
gives examples to judge it by, it is taken only if whoever imports it says that this is wanted.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from onhand.core.adapter import CONFIG, read_adapter
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.lesson import REMEMBERED, Lesson
from onhand.core.manifest import NETWORK
from onhand.device.learning.adapters import check_of_original, fit_adapter
from onhand.device.learning.added import add_classes, added_classes
from onhand.device.learning.base import Values
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.gate import Bounds, gate, size_of_change
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.learned_files import is_written, read_written
from onhand.device.learning.lesson_files import class_names, read_lesson, read_start
from onhand.device.learning.locking import held
from onhand.device.learning.material import Given, make_material
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.network_adapters import check_classes, read_network_adapter
from onhand.device.learning.sights import see
from onhand.device.learning.verdict import Verdict
from onhand.device.learning.version_files import check_values
from onhand.device.learning.versions import Version, Versions
from onhand.device.threads import usable_threads

__all__ = ["IMPORTED", "Imported", "Judges", "import_learned", "was_judged"]

IMPORTED: Final = "imported"
"""The method of a version that came from elsewhere."""
_BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """What an imported version is judged by.

    Attributes:
        data: examples of what it should know; None for none.
        remember: examples of what must not be lost; None for those that the bundle carries.
        is_waived: whether it is taken without a judgement.
        bounds: of the gate.
    """

    data: Path | None = None
    remember: Path | None = None
    is_waived: bool = False
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if self.is_waived and (self.data is not None or self.remember is not None):
            raise InputError("examples to judge by, and no judgement wanted: one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of an import.

    Attributes:
        version: the version, its gate's verdict in it.
        is_judged: whether a gate judged it.
        is_used: whether it is in use now.
        added_classes: names of the classes that it brought.
    """

    version: Version
    is_judged: bool
    is_used: bool
    added_classes: tuple[str, ...]


def was_judged(version: Version) -> bool:
    """Return whether a gate judged a version: one that was imported need not be."""
    return version.method != IMPORTED or bool(version.verdict.figures)


def import_learned(
    root: Path, place: Path, judges: Judges, *, home: Path, threads: int | None = None
) -> Imported:
    """Make what was learned elsewhere a version of a bundle, in use if it passes its gate.

    Args:
        root: the bundle's folder; every file in it is checked first.
        place: a folder, or an adapter's weights file.
        judges: what it is judged by.
        home: the state folder.
        threads: of one run; None for what this process may use.

    Returns:
        The version, and whether it is in use. `rollback` goes back to what was before.

    Raises:
        InputError: if it is damaged, made for another model, or adds what the bundle cannot learn,
            or there is nothing to judge it by; nothing is kept then.
        BundleError: if the bundle is damaged.
        EngineError: if the lesson fails.
        ResourceError: if it cannot be kept; all is then as it was before.
    """
    bundle = read_bundle(root)
    lesson = read_lesson(bundle)
    versions = versions_of(bundle, home)
    lock = versions.folder / "training.lock"
    with held(lock, busy=f"{root}: another process teaches it; wait until it has ended"):
        standing = versions.current()
        before = dict(whole_values(bundle, versions, standing.version))
        start = read_start(bundle, lesson)
        after, named = _read(bundle, lesson, place, start, before)
        check_values(after, lesson, names=lesson.trainables)
        added = _added(bundle, lesson, after, named, versions)
        verdict = Verdict(is_accepted=True)
        if not judges.is_waived:
            given = _given(bundle, judges)
            verdict = _judged(bundle, before, after, given, judges, added, threads)
        if verdict.is_accepted:
            known = added_classes(versions.folder)
            add_classes(versions.folder, (*known, *added[len(known) :]))
        version = versions.propose(
            after,
            start=start,
            parent=standing.number,
            method=IMPORTED,
            counts={},
            verdict=verdict,
        )
        if verdict.is_accepted:
            versions.accept(version.number)
    return Imported(
        version=version,
        is_judged=not judges.is_waived,
        is_used=verdict.is_accepted,
        added_classes=added,
    )


def _read(
    bundle: Bundle, lesson: Lesson, place: Path, start: Values, before: Values
) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    """Return the value of every trainable, and names of all classes; none where nothing says.

    Raises:
        InputError: if the folder does not fit the bundle.
    """
    if not place.exists():
        raise InputError(f"{place}: there is no such folder")
    has_config = (place if place.is_dir() else place.parent).joinpath(CONFIG).is_file()
    if is_written(place) and not has_config:
        written = read_written(place, lesson)
        if missing := sorted(lesson.trainables.keys() - written.values.keys()):
            raise InputError(f"{place}: {missing[0]!r}, which this bundle learns, is not in it")
        return written.values, written.classes
    where = str(place)
    if bundle.manifest.kind == NETWORK:
        found = read_network_adapter(bundle, lesson, place)
        values = fit_adapter(found.pairs, lesson, start, decoder=None, where=where)
        # A head that does not come along stays the one in use.
        wholes = {n: before[n] for n, made in lesson.trainables.items() if made.part == "whole"}
        return values | wholes | found.values, found.classes
    check_of_original(bundle)
    if lesson.rank == 0:
        raise InputError(
            f"{bundle.root} learns {lesson.kind}, which no adapter of low rank can be: build it "
            "with --learnable lora"
        )
    decoder = bundle.manifest.decoder
    pairs = read_adapter(place, decoder).pairs
    return fit_adapter(pairs, lesson, start, decoder=decoder, where=where), ()


def _added(
    bundle: Bundle,
    lesson: Lesson,
    after: Mapping[str, FloatArray],
    named: tuple[str, ...],
    versions: Versions,
) -> tuple[str, ...]:
    """Return the names of the classes beside the bundle's own.

    Raises:
        InputError: if they are not those that this device knows under the same numbers.
    """
    if bundle.manifest.kind != NETWORK:
        return ()
    known = added_classes(versions.folder)
    own = class_names(bundle, lesson)
    heads = [
        len(after[name]) - one.shape[0] for name, one in lesson.trainables.items() if one.grows
    ]
    n_added = max(heads, default=0)
    if not named and n_added <= len(known):
        return known[:n_added]
    added = check_classes(after, lesson, own, named)
    if added[: len(known)] != known[: len(added)]:
        raise InputError(
            f"its classes {', '.join(added)} are others than those that were added here: "
            f"{', '.join(known)}"
        )
    return added


def _given(bundle: Bundle, judges: Judges) -> Given:
    """Read the examples that judge.

    Raises:
        InputError: if there are none, or a file cannot be read.
    """
    carried = bundle.path(REMEMBERED) if REMEMBERED in bundle.manifest.files else None
    remember = judges.remember or carried
    if judges.data is None and remember is None:
        raise InputError(
            f"{bundle.root}: there are no examples to judge it by: give --data FILE, examples of "
            "what it should know, or --remember FILE, of what must not be lost; or --unjudged to "
            "take it as it is"
        )
    new = None if judges.data is None else read_examples(judges.data)
    old = None if remember is None else read_examples(remember)
    return Given(
        new=(),
        heldout=new.examples if new else (),
        past=(),
        past_heldout=old.examples if old else (),
        notes=(),
    )


def _judged(
    bundle: Bundle,
    before: dict[str, FloatArray],
    after: Values,
    given: Given,
    judges: Judges,
    added: tuple[str, ...],
    threads: int | None,
) -> Verdict:
    """Let the gate compare what is in use with what came."""
    with closing(open_lesson(bundle, threads=threads or usable_threads())) as teachable:
        lesson = teachable.lesson
        material = make_material(bundle, teachable, given, added=added)
        grows = [name for name, made in lesson.trainables.items() if made.grows]
        if grows and len(before[grows[0]]) < len(after[grows[0]]):
            before = grow_head(lesson, before, len(after[grows[0]]))
        sights = [
            see(
                bundle,
                teachable,
                values,
                old=material.past_heldout,
                new=material.heldout,
                prompts=(*given.past_heldout, *given.heldout),
                batch=_BATCH,
            )
            for values in (before, after)
        ]
    bounds = judges.bounds if sights[1].new.n else replace(judges.bounds, least_new=0)
    return gate(sights[0], sights[1], bounds, change=size_of_change(before, after))
