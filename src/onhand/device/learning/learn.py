"""From a file of examples to a version that passed its gate, resumed wherever it was broken off."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.lesson import REMEMBERED
from onhand.core.progress import Progress, Quiet
from onhand.device.energy import EnergyMeter, choose_meter
from onhand.device.learning.added import add_classes, added_classes
from onhand.device.learning.base import Teachable
from onhand.device.learning.ceilings import GO, Permit, Watch, all_of
from onhand.device.learning.gate import Sight, gate, size_of_change
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.learned import Foreseen, Learned
from onhand.device.learning.locking import held
from onhand.device.learning.material import Given, Material, make_material, read_given
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.preferences import PreferenceMethod
from onhand.device.learning.new_rows import begin_classes
from onhand.device.learning.preference_feeds import OpinionSource, PairSource
from onhand.device.learning.rehearsal import rehearsals
from onhand.device.learning.remembered import keep_memory, recall_memory, remember_all
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.sights import see
from onhand.device.learning.text_feeds import TextSource
from onhand.device.learning.trainer import Ended, Trainer
from onhand.device.learning.versions import Versions, learned_folder
from onhand.device.measured import peak_memory_bytes
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads

__all__ = ["foresee", "learn"]

_MOST_TRAININGS: Final = 4
_USUAL: Final = LearnSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """All that a training needs before its first step.

    `fingerprint` is of all that decides it; `remembers` says whether its method remembers earlier
    sessions.
    """

    bundle: Bundle
    versions: Versions
    teachable: Teachable
    given: Given
    material: Material
    method: Method
    values: dict[str, FloatArray]
    parent: int
    settings: LearnSettings
    notes: tuple[str, ...]
    fingerprint: str
    remembers: bool

    @property
    def folder(self) -> Path:
        """Where the training's state is kept."""
        return self.versions.folder / "training" / self.fingerprint[:16]


def learn(
    path: Path | str,
    data: Path | str,
    *,
    settings: LearnSettings = _USUAL,
    home: Path,
    threads: int | None = None,
    permit: Permit = lambda _: GO,
    is_interrupted: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Learned:
    """Learn from a file, and propose a version.

    The state is on disk after every step. The same call again goes on from there, whatever ended
    the first one; another file or other settings begin anew.

    Args:
        path: the bundle's folder.
        data: what is taught; see `read_examples`.
        settings: how.
        home: the state folder.
        threads: of one step; None for what this process may use.
        permit: asked before each step, beside the settings' own ceilings.
        is_interrupted: asked before each step: whether to leave the rest for another time.
        progress: told how far it is.

    Returns:
        What came of it; a version only where it was not interrupted.

    Raises:
        InputError: if the bundle cannot learn, examples or settings do not fit it, or another
            process teaches it.
        BundleError: if a file of it is missing or changed.
        EngineError: if the lesson fails, or gives no finite numbers.
        ResourceError: if the disk is full, or a ceiling lets no step begin.
    """
    shown = progress or Quiet()
    bundle = read_bundle(Path(path))
    with closing(_open(bundle, settings, threads)) as teachable, _held(bundle, home):
        room = _prepare(bundle, teachable, Path(data), settings, home)
        meter = choose_meter(current_profile())
        begun: list[str] = []
        trainer = _trainer(room, meter, begun)
        notes = (*room.notes, *trainer.notes, *trainer.method.notes, *begun)
        resumed_at, n_steps = trainer.training.step, trainer.n_steps
        if trainer.is_resumed:
            notes += (f"an earlier run is resumed after step {resumed_at} of {n_steps}",)
        for note in notes:
            shown.note(note)
        ended = trainer.run(
            permit=all_of([Watch(settings.ceilings), permit]),
            is_interrupted=is_interrupted,
            progress=shown,
        )
        if ended.kind != "interrupted":
            # At a ceiling, what was learned until then is judged as it is.
            ended = replace(ended, training=trainer.end())
        made = _told(room, ended, meter, n_steps=n_steps, resumed_at=resumed_at)
        made = replace(made, notes=notes)
        return made if ended.kind == "interrupted" else _proposed(room, ended, made, shown)


def _told(
    room: _Room, ended: Ended, meter: EnergyMeter, *, n_steps: int, resumed_at: int
) -> Learned:
    """Return what is known before the gate."""
    training = ended.training
    return Learned(
        name=room.bundle.manifest.name,
        method=room.method.name,
        ended=ended.kind,
        why=ended.why,
        examples=len(room.material.new),
        heldout=len(room.material.heldout),
        past=len(room.material.past),
        past_heldout=len(room.material.past_heldout),
        steps=training.step,
        n_steps=n_steps,
        resumed_at=resumed_at,
        skipped=training.guard.skipped,
        seconds=training.seconds,
        energy_j=training.energy_j,
        energy_estimated=meter.estimated,
        peak_memory_bytes=peak_memory_bytes(),
        losses=tuple(float(loss) for loss in training.losses if np.isfinite(loss)),
        added_classes=room.material.added,
        notes=(),
    )


def foresee(
    path: Path | str,
    data: Path | str,
    *,
    settings: LearnSettings = _USUAL,
    home: Path,
    threads: int | None = None,
) -> Foreseen:
    """Read all that `learn` would, and say what it would do; nothing is learned or written.

    Args:
        path: as in `learn`.
        data: as in `learn`.
        settings: as in `learn`.
        home: as in `learn`.
        threads: as in `learn`.

    Returns:
        What it would do.

    Raises:
        OnhandError: as in `learn`.
    """
    bundle = read_bundle(Path(path))
    with closing(_open(bundle, settings, threads)) as teachable:
        room = _prepare(bundle, teachable, Path(data), settings, home)
        plan = settings.plan(teachable.lesson, len(room.material.new))
        source = room.material.new
        return Foreseen(
            name=bundle.manifest.name,
            kind=teachable.lesson.kind,
            method=room.method.name,
            parent=room.parent,
            examples=len(source),
            heldout=len(room.material.heldout),
            past=len(room.material.past),
            past_heldout=len(room.material.past_heldout),
            tokens=source.n_tokens if isinstance(source, TextSource) else None,
            learned_tokens=source.n_learned if isinstance(source, TextSource) else None,
            n_steps=plan.n_all,
            rate=plan.schedule.rate,
            n_trained=sum(value.size for value in room.values.values()),
            added_classes=room.material.added,
            is_resumed=room.folder.exists(),
            notes=room.notes,
        )


def _held(bundle: Bundle, home: Path) -> AbstractContextManager[None]:
    """Return what keeps other processes from teaching a bundle."""
    lock = learned_folder(home, bundle.manifest_sha256) / "training.lock"
    busy = f"{bundle.root}: another process teaches it; wait until it has ended"
    return held(lock, busy=busy)


def _open(bundle: Bundle, settings: LearnSettings, threads: int | None) -> Teachable:
    return open_lesson(bundle, threads=threads or usable_threads(), memory=settings.memory)


def _prepare(
    bundle: Bundle, teachable: Teachable, data: Path, settings: LearnSettings, home: Path
) -> _Room:
    """Read examples and versions, and choose a method.

    Raises:
        InputError: if a setting is for classifiers alone, and this is none.
    """
    if settings.new_rows != "zeros" and teachable.lesson.feeds == "tokens":
        raise InputError(f"--new-rows {settings.new_rows}: a language model has no rows of classes")
    versions, begun = versions_of(bundle, home), ""
    standing = versions.current()
    values = dict(whole_values(bundle, versions, standing.version))
    carried = bundle.path(REMEMBERED) if REMEMBERED in bundle.manifest.files else None
    given = read_given(data, settings, carried=carried)
    material = make_material(bundle, teachable, given, added=added_classes(versions.folder))
    if material.known is not None:
        # A class may have a name by a version that is not in use, and no row in this head.
        known = min(material.known, _n_classes(teachable, values))
        material = replace(material, known=known)
        if known < material.width:
            values, begun = begin_classes(
                teachable,
                values,
                material.new,
                material.past,
                width=material.width,
                kind=settings.new_rows,
            )
    method = make_method(
        settings.method, teachable.lesson, rng=np.random.default_rng([settings.seed, 2])
    )
    remembers, notes = recall_memory(versions.folder, method)
    notes += [begun] if begun else []
    if remembers and settings.remember is not None:
        notes.append("what earlier sessions remembered is used; --remember only judges")
    if isinstance(material.new, PairSource | OpinionSource):
        method = PreferenceMethod(method, material.new, settings.preferring)
    return _Room(
        bundle=bundle,
        versions=versions,
        teachable=teachable,
        given=given,
        material=material,
        method=method,
        values=values,
        parent=standing.number,
        settings=settings,
        notes=(*standing.passed_over, *given.notes, *notes),
        fingerprint=_fingerprint(bundle, given, material, standing.number, settings),
        remembers=remembers,
    )


def _fingerprint(
    bundle: Bundle, given: Given, material: Material, parent: int, settings: LearnSettings
) -> str:
    # Ceilings and the gate may change while a training is broken off.
    left_out = {"bounds", "ceilings", "memory", "use"}
    told = {
        "bundle": bundle.manifest_sha256,
        "classes": material.classes,
        "examples": given.digest(),
        "parent": parent,
        "settings": {
            key: str(value) for key, value in asdict(settings).items() if key not in left_out
        },
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _n_classes(teachable: Teachable, values: dict[str, FloatArray]) -> int:
    grows = (len(values[n]) for n, made in teachable.lesson.trainables.items() if made.grows)
    return next(grows, 2**31)


def _trainer(room: _Room, meter: EnergyMeter, notes: list[str]) -> Trainer:
    """Begin the training, or go on with the one that was broken off; notes are added."""

    def remember() -> None:
        if room.remembers:
            return
        told, sources = (room.teachable, room.values), [room.material.past]
        if room.settings.rehearse:
            more, note = rehearsals(room.bundle, *told, room.given.past, settings=room.settings)
            notes.append(note)
            sources.append(more)
        for source in sources:
            remember_all(room.method, *told, source, width=room.material.width)

    folder = room.folder
    _tidy(folder)
    return Trainer(
        room.teachable,
        room.material.new,
        room.settings.plan(room.teachable.lesson, len(room.material.new)),
        method=room.method,
        width=room.material.width,
        known=room.material.known,
        values=room.values,
        folder=folder,
        fingerprint=room.fingerprint,
        before_begin=remember,
        energy_j=meter.read_j,
    )


def _proposed(room: _Room, ended: Ended, made: Learned, shown: Progress) -> Learned:
    """Judge what was learned, keep it as a version, and put it into use if it passed."""
    shown.start("judging", 1)
    values = dict(ended.training.values)
    before, after = _sight(room, room.values), _sight(room, values)
    bounds = room.settings.bounds
    if not after.new.n:
        bounds = replace(bounds, least_new=0)
    if not room.method.trains:
        bounds = bounds.of_any_change()
    verdict = gate(before, after, bounds, change=size_of_change(room.values, values))
    if verdict.is_accepted:
        # Before the version: its head has rows for them. A refused one leaves no name behind.
        known = added_classes(room.versions.folder)
        new = [name for name in room.material.added if name not in known]
        add_classes(room.versions.folder, (*known, *new))
    version = room.versions.propose(
        values,
        start=room.teachable.start(),
        parent=room.parent,
        method=room.method.name,
        counts={
            "examples": made.examples,
            "skipped": made.skipped,
            "steps": made.steps,
        },
        verdict=verdict,
    )
    is_used = verdict.is_accepted and room.settings.use
    if is_used:
        room.versions.accept(version.number)
        keep_memory(room.versions.folder, room.method)
    shutil.rmtree(room.folder, ignore_errors=True)
    return replace(
        made,
        version=version.number,
        is_accepted=verdict.is_accepted,
        is_used=is_used,
        reasons=verdict.reasons,
        figures=verdict.figures,
    )


def _sight(room: _Room, values: dict[str, FloatArray]) -> Sight:
    return see(
        room.bundle,
        room.teachable,
        values,
        old=room.material.past_heldout,
        new=room.material.heldout,
        prompts=(*room.given.past_heldout, *room.given.heldout),
        batch=room.settings.batch,
    )


def _tidy(folder: Path) -> None:
    """Remove the oldest of the trainings that were broken off and never gone on with."""
    if not folder.parent.is_dir():
        return
    others = [one for one in folder.parent.iterdir() if one != folder and one.is_dir()]
    others.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    for one in others[_MOST_TRAININGS - 1 :]:
        shutil.rmtree(one, ignore_errors=True)
