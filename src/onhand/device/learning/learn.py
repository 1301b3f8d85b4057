"""From a file of examples to a version that passed its gate, resumed wherever it was broken off."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.progress import Progress, Quiet
from onhand.core.scope import Scope
from onhand.device.energy import EnergyMeter, choose_meter
from onhand.device.learning.added import add_classes, added_classes
from onhand.device.learning.base import Values
from onhand.device.learning.ceilings import GO, Permit, Watch, all_of
from onhand.device.learning.gate import Sight, gate, size_of_change
from onhand.device.learning.learned import Foreseen, Learned
from onhand.device.learning.locking import held
from onhand.device.learning.rehearsal import rehearsals
from onhand.device.learning.remembered import keep_memory, remember_all
from onhand.device.learning.room import Room, open_teachable, prepare
from onhand.device.learning.scoping import inside_of, scoped_sight, shares_inside
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.sights import see
from onhand.device.learning.text_feeds import TextSource
from onhand.device.learning.trainer import Ended, Trainer
from onhand.device.learning.versions import learned_folder
from onhand.device.measured import peak_memory_bytes
from onhand.device.probe import current_profile

__all__ = ["foresee", "learn"]

_MOST_TRAININGS: Final = 4
_USUAL: Final = LearnSettings()


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
    with closing(open_teachable(bundle, settings, threads)) as teachable, _held(bundle, home):
        room = prepare(bundle, teachable, Path(data), settings, home)
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
    room: Room, ended: Ended, meter: EnergyMeter, *, n_steps: int, resumed_at: int
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
    with closing(open_teachable(bundle, settings, threads)) as teachable:
        room = prepare(bundle, teachable, Path(data), settings, home)
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


def _trainer(room: Room, meter: EnergyMeter, notes: list[str]) -> Trainer:
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


def _proposed(room: Room, ended: Ended, made: Learned, shown: Progress) -> Learned:
    """Judge what was learned, keep it as a version, and put it into use if it passed."""
    shown.start("judging", 1)
    values = dict(ended.training.values)
    scope, told = room.scope, _told_of_scope(room)
    for note in told:
        shown.note(note)
    before, after = _sight(room, room.values, room.scope_before), _sight(room, values, scope)
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
        method=room.method.name + ("" if scope is None else ", for prompts like those taught"),
        counts={
            "examples": made.examples,
            "skipped": made.skipped,
            "steps": made.steps,
        },
        verdict=verdict,
        scope=scope,
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
        notes=(*made.notes, *told),
    )


def _told_of_scope(room: Room) -> tuple[str, ...]:
    """Say how much of what is known lies in the scope of what is learned; nothing without one."""
    if room.scope is None:
        return ()
    old, new = shares_inside(room.scope, room.given)
    n_old, n_new = len(room.given.past_heldout), len(room.given.heldout)
    note = (
        f"of {n_old} held-out prompts that were known, {old:.0%} are like what is taught and are "
        "answered by what is learned, the others as the bundle was built"
    )
    return (note + (f"; of {n_new} held-out prompts that are taught, {new:.0%}" if n_new else ""),)


def _sight(room: Room, values: Values, scope: Scope | None) -> Sight:
    """Return what a gate sees of values that answer in a scope, and the bundle's own beyond it."""
    within = _seen(room, values)
    if scope is None:
        return within
    inside = inside_of(scope, room.given, room.bundle)
    return scoped_sight(within, _seen(room, room.teachable.start()), inside)


def _seen(room: Room, values: Values) -> Sight:
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
