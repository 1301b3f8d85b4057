"""All that a training needs before its first step: examples, versions, method, values."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.lesson import REMEMBERED
from onhand.core.scope import Scope
from onhand.device.learning.added import added_classes
from onhand.device.learning.base import Teachable
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.material import Given, Material, make_material, read_given
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.preferences import PreferenceMethod
from onhand.device.learning.new_rows import begin_classes
from onhand.device.learning.preference_feeds import OpinionSource, PairSource
from onhand.device.learning.remembered import recall_memory
from onhand.device.learning.scoping import check_scope, inside, scope_of
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.versions import BASE, Standing, Versions
from onhand.device.threads import usable_threads

__all__ = ["Room", "open_teachable", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """All that a training needs before its first step.

    `fingerprint` is of all that decides it; `remembers` says whether its method remembers earlier
    sessions; `scope_before` is of the version in use, `scope` of the new one; None for all prompts.
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
    scope_before: Scope | None
    scope: Scope | None

    @property
    def folder(self) -> Path:
        """Where the training's state is kept."""
        return self.versions.folder / "training" / self.fingerprint[:16]


def open_teachable(bundle: Bundle, settings: LearnSettings, threads: int | None) -> Teachable:
    """Open a bundle's lesson.

    Args:
        bundle: a verified bundle.
        settings: how it is to learn.
        threads: of one step; None for what this process may use.

    Raises:
        InputError: if the bundle cannot learn.
        BundleCorrupt: if the lesson is not valid.
    """
    return open_lesson(bundle, threads=threads or usable_threads(), memory=settings.memory)


def prepare(
    bundle: Bundle, teachable: Teachable, data: Path, settings: LearnSettings, home: Path
) -> Room:
    """Read examples and versions, and choose a method.

    Args:
        bundle: a verified bundle.
        teachable: its lesson.
        data: what is taught.
        settings: how.
        home: the state folder.

    Raises:
        InputError: if examples or settings do not fit the bundle.
        BundleError: if a file of it is missing or changed.
    """
    if settings.new_rows != "zeros" and teachable.lesson.feeds == "tokens":
        raise InputError(f"--new-rows {settings.new_rows}: a language model has no rows of classes")
    versions, begun = versions_of(bundle, home), ""
    standing = versions.current()
    values = dict(whole_values(bundle, versions, standing.version))
    carried = bundle.path(REMEMBERED) if REMEMBERED in bundle.manifest.files else None
    given = read_given(data, settings, carried=carried)
    before = versions.scope(standing.version)
    scope = None
    if _is_scoped(settings, teachable, standing, before):
        scope, given = _scoped(bundle, teachable, given, before)
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
    method, remembers, notes = _method(settings, teachable, versions, material, scope)
    notes += [begun] if begun else []
    return Room(
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
        scope_before=before,
        scope=scope,
    )


def _scoped(
    bundle: Bundle, teachable: Teachable, given: Given, before: Scope | None
) -> tuple[Scope, Given]:
    """Learn the scope, and leave out what need not be held on to: nothing beyond it can be lost."""
    check_scope(bundle, given, variant=teachable.lesson.variant)
    scope = scope_of(given, before)
    return scope, replace(given, past=inside(scope, given.past))


def _method(
    settings: LearnSettings,
    teachable: Teachable,
    versions: Versions,
    material: Material,
    scope: Scope | None,
) -> tuple[Method, bool, list[str]]:
    """Return the method, whether it remembers earlier sessions, and notes."""
    method = make_method(
        settings.method, teachable.lesson, rng=np.random.default_rng([settings.seed, 2])
    )
    remembers, notes = recall_memory(versions.folder, method)
    if scope is not None:
        # Another scope has other examples inside it: they are remembered as well.
        remembers = False
    if remembers and settings.remember is not None:
        notes.append("what earlier sessions remembered is used; --remember only judges")
    if isinstance(material.new, PairSource | OpinionSource):
        method = PreferenceMethod(method, material.new, settings.preferring)
    return method, remembers, notes


def _is_scoped(
    settings: LearnSettings, teachable: Teachable, standing: Standing, scope: Scope | None
) -> bool:
    """Return whether the new version is to have a scope.

    Raises:
        InputError: if it cannot have one.
    """
    if settings.scope is None:
        return scope is not None
    if settings.scope and teachable.lesson.feeds != "tokens":
        raise InputError("--scope is of language models: a network answers all with what it learns")
    if settings.scope and scope is None and standing.number != BASE:
        raise InputError(
            f"version {standing.number} is in use and answers all prompts with what it learned; "
            "--scope would take that from most: leave it out, or go back with 'onhand rollback'"
        )
    return settings.scope


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
