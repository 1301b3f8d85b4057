"""Which learned version an opened bundle uses, and a language model's as an adapter."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, sha256_of, unchecked_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import LESSON, MAX_LESSON_BYTES, Lesson
from onhand.core.outside import shown
from onhand.device.learning.base import Values
from onhand.device.learning.lesson_files import can_learn, read_lesson, read_start
from onhand.device.learning.versions import BASE, Version, Versions, learned_folder

__all__ = [
    "AS_BUILT",
    "InUse",
    "LearnedVersion",
    "adapter_for",
    "adapter_of",
    "choose_version",
    "described",
    "learned_adapter",
    "learned_here",
    "open_versions",
    "versions_of",
    "whole_values",
]


@dataclass(frozen=True, slots=True)
class InUse:
    """What an opened bundle uses of what was learned.

    Attributes:
        number: of the version; 0 for the bundle as it was built.
        sha256: over its tensors; "" for the bundle as it was built.
        passed_over: sentences about damaged versions that should have been used.
    """

    number: int = BASE
    sha256: str = ""
    passed_over: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return it for people."""
        return "as it was built" if self.number == BASE else f"version {self.number} learned here"


AS_BUILT: Final = InUse()


@dataclass(frozen=True, slots=True)
class LearnedVersion:
    """A version that is to be measured.

    Attributes:
        number: from 1.
        home: the state folder where it is.
    """

    number: int
    home: Path

    def option(self) -> str:
        """Return it as an option of a command."""
        return f" --version {self.number}"


def adapter_for(bundle: Bundle, version: LearnedVersion | None) -> Adapter | None:
    """Return what a version adds to a language model; None for the bundle as it was built.

    Args:
        bundle: a bundle, of which the manifest at least is verified.
        version: which.

    Raises:
        InputError: if there is no such version.
        BundleCorrupt: if it is damaged.
    """
    if version is None:
        return None
    _, found = choose_version(bundle, version.home, version.number)
    return None if found is None else learned_adapter(bundle, version.home, found)


def open_versions(root: Path, home: Path) -> Versions:
    """Return what a device has learned of a bundle; of the bundle only what it can learn is read.

    Args:
        root: the bundle's folder.
        home: the state folder.

    Raises:
        InputError: if there is no bundle, or it holds no lesson.
        BundleCorrupt: if its manifest or its lesson is damaged.
        BundleTooNew: if its format is a later one.
    """
    bundle = unchecked_bundle(root)
    manifest = bundle.manifest
    entry = manifest.files.get(LESSON)
    if entry is not None and entry.size <= MAX_LESSON_BYTES:
        path = bundle.path(LESSON)
        found = sha256_of(path) if path.is_file() else "nothing"
        if found != entry.sha256:
            raise BundleCorrupt(f"{root}: {LESSON!r} has SHA-256 {found}, expected {entry.sha256}")
    return versions_of(bundle, home)


def versions_of(bundle: Bundle, home: Path) -> Versions:
    """Return what a device has learned of a bundle.

    Args:
        bundle: a verified bundle.
        home: the state folder.

    Raises:
        InputError: if the bundle holds no lesson.
        BundleCorrupt: if its lesson is not valid.
    """
    folder = learned_folder(home, bundle.manifest_sha256)
    return Versions(folder=folder, lesson=read_lesson(bundle))


def choose_version(
    bundle: Bundle, home: Path | None, wanted: int | None
) -> tuple[InUse, Version | None]:
    """Find the version to open a bundle with.

    Args:
        bundle: a verified bundle.
        home: the state folder; None where none is used: the bundle is opened as it was built.
        wanted: its number, 0 for the bundle as it was built; None for the one in use.

    Returns:
        what is used, and the version; None for the bundle as it was built.

    Raises:
        InputError: if there is no such version, or no place where it could be.
        BundleCorrupt: if the wanted one, or the lesson, is damaged.
    """
    if wanted == BASE or (wanted is None and (home is None or not can_learn(bundle))):
        return AS_BUILT, None
    if home is None:
        raise InputError(f"version {wanted}: without a state folder there are no learned versions")
    versions = versions_of(bundle, home)
    if wanted is None:
        standing = versions.current()
        version = standing.version
        number, sha256 = standing.number, "" if version is None else version.sha256
        return InUse(number, sha256, standing.passed_over), version
    version = versions.find(wanted)
    return InUse(wanted, version.sha256), version


def whole_values(bundle: Bundle, versions: Versions, version: Version | None) -> Values:
    """Return the value of every trainable in a version.

    Args:
        bundle: a verified bundle.
        versions: of that bundle.
        version: which; None for the start.

    Raises:
        BundleCorrupt: if the start or the version is damaged.
    """
    start = read_start(bundle, versions.lesson)
    return start if version is None else {**start, **versions.values(version)}


def learned_adapter(bundle: Bundle, home: Path, version: Version) -> Adapter:
    """Return a version of a language model as what is added to its matrices.

    Args:
        bundle: a verified bundle.
        home: the state folder.
        version: of that bundle.

    Raises:
        InputError: as in `adapter_of`.
        BundleCorrupt: if the start or the version is damaged.
    """
    versions = versions_of(bundle, home)
    values = whole_values(bundle, versions, version)
    adapter = adapter_of(
        versions.lesson, values, decoder=bundle.manifest.decoder, sha256=version.sha256
    )
    return replace(adapter, scope=versions.scope(version))


def adapter_of(lesson: Lesson, values: Values, *, decoder: Decoder, sha256: str) -> Adapter:
    """Return trainables of low rank as an adapter.

    Args:
        lesson: what they are.
        values: of every trainable.
        decoder: of the model.
        sha256: what tells the version from others.

    Returns:
        The adapter, its B scaled by alpha / rank; a pair whose product is zero is left out.

    Raises:
        InputError: if a trainable is not of low rank, or does not fit the decoder.
    """
    shapes = decoder.whole_tensors()
    head = (decoder.vocab_size, decoder.width)
    first: dict[str, FloatArray] = {}
    second: dict[str, FloatArray] = {}
    for name, made in lesson.trainables.items():
        if made.part == "whole":
            raise InputError(
                f"{shown(name)} stands in the place of {shown(made.tensor)}; a language model "
                "takes what is added to it alone"
            )
        # What adds to a tied model's head adds to the head alone: its embedding stays.
        tensor = "head" if made.tensor == decoder.head else made.tensor
        (first if made.part == "lora_A" else second)[tensor] = values[name]
    pairs: dict[str, tuple[FloatArray, FloatArray]] = {}
    for tensor, right in first.items():
        left = second[tensor]
        shape = head if tensor == "head" else shapes.get(tensor)
        if shape is None or (left.shape[0], right.shape[1]) != tuple(shape):
            raise InputError(f"{shown(tensor)} is no matrix of this model, or of another shape")
        if left.any() and right.any():
            pairs[tensor] = (right, left * np.float32(lesson.alpha / right.shape[0]))
    return Adapter(pairs=pairs, sha256=_identity(lesson, sha256))


def _identity(lesson: Lesson, sha256: str) -> str:
    return hashlib.sha256(f"learned {lesson.variant} {sha256}".encode()).hexdigest()


def learned_here(bundle: Bundle, home: Path) -> InUse | None:
    """Return which version of a bundle is in use on this device.

    Args:
        bundle: a bundle, of which the manifest alone need be verified.
        home: the state folder.

    Returns:
        It; None where the bundle can learn nothing.

    Raises:
        BundleError: if its lesson is damaged.
    """
    if not can_learn(bundle):
        return None
    standing = open_versions(bundle.root, home).current()
    sha256 = "" if standing.version is None else standing.version.sha256
    return InUse(standing.number, sha256, standing.passed_over)


def described(in_use: InUse) -> Mapping[str, object]:
    """Return what is used as JSON can hold it."""
    return {
        "number": in_use.number,
        "passed_over": list(in_use.passed_over),
        "sha256": in_use.sha256 or None,
    }
