"""The versions of a bundle that is served: which one answers, and which one is about to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onhand.core.bundle import unchecked_bundle
from onhand.core.errors import EngineUnavailable, InputError
from onhand.device.learning.in_use import InUse, choose_version
from onhand.device.learning.versions import CURRENT, learned_folder
from onhand.device.serving.models.facts import Facts, Stamp, read_facts, stamp_of
from onhand.device.serving.models.place import Place
from onhand.device.serving.settings import ModelSettings

__all__ = ["Coming", "Entry", "Version", "found_stamp", "read_version", "stamp_with"]

_LOG = logging.getLogger("onhand.serving")


@dataclass(frozen=True, slots=True)
class Version:
    """A bundle as it lies at its place.

    Attributes:
        default: the variant that requests get that name none.
        places: variant -> where it is opened.
    """

    default: str
    places: Mapping[str, Place]

    @property
    def bundle_sha256(self) -> str:
        """Hash of its manifest."""
        return self.places[self.default].facts.bundle_sha256

    @property
    def learned(self) -> InUse:
        """What a device learned of it that answers."""
        return self.places[self.default].facts.learned

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from others: the bundle's hash and that of what was learned."""
        return self.bundle_sha256, self.learned.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What is opened beside what answers, to take its place.

    Attributes:
        version: the one that answers then.
        stamp: its stamp.
        variant: the variant that requests get then.
        opening: what must be open before.
        since_s: when this began.
    """

    version: Version
    stamp: Stamp
    variant: str
    opening: tuple[Place, ...]
    since_s: float


@dataclass(slots=True, eq=False)
class Entry:
    """One `[[model]]`.

    Attributes:
        settings: as given.
        version: the one that answers.
        stamp: of the bundle when it was read.
        variant: the variant that requests get that name none.
        coming: what is about to take its place; None for nothing.
        refused: the stamp of a version that could not be used; None for none.
        old: places of versions before, which end with their last answers.
    """

    settings: ModelSettings
    version: Version
    stamp: Stamp
    variant: str
    coming: Coming | None = None
    refused: Stamp | None = None
    old: list[Place] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.version.places[self.version.default].facts.name

    def place(self, variant: str | None = None) -> Place:
        """Return where a variant is opened.

        Args:
            variant: which; None for the one that requests get.

        Returns:
            Its place; the default's where the version has no such variant any more.
        """
        places = self.version.places
        return places.get(variant or self.variant, places[self.version.default])

    def all_places(self) -> list[Place]:
        """Return the places of all versions that may have answers."""
        coming = () if self.coming is None else self.coming.version.places.values()
        found = {id(one): one for one in (*self.version.places.values(), *coming, *self.old)}
        return list(found.values())


def read_version(settings: ModelSettings, *, total_bytes: int, home: Path | None = None) -> Version:
    """Read what lies at a bundle's place, and which learned version of it answers.

    Args:
        settings: of the model.
        total_bytes: as in `read_facts`.
        home: the state folder; None where nothing is learned.

    Returns:
        The version; variants that no engine can run here are not in it.

    Raises:
        InputError: as in `read_facts`, or if the bundle was replaced meanwhile.
        BundleError: as in `read_facts`.
        EngineUnavailable: if no engine can run the default variant.
    """
    first = read_facts(settings, total_bytes=total_bytes)
    found: dict[str, Facts] = {first.variant: first}
    for variant in first.variants:
        if variant not in found:
            try:
                found[variant] = read_facts(settings, variant=variant, total_bytes=total_bytes)
            except EngineUnavailable:
                continue
    if any(one.bundle_sha256 != first.bundle_sha256 for one in found.values()):
        raise InputError(f"{settings.bundle}: was replaced while it was read; read it again")
    learned = _learned(first, settings, home)
    places = {variant: Place(one.with_learned(learned)) for variant, one in found.items()}
    return Version(first.variant, places)


def stamp_with(settings: ModelSettings, version: Version, home: Path | None) -> Stamp | None:
    """Return the stamp of a bundle and of what points at its learned version.

    Args:
        settings: of the model.
        version: what was read of it.
        home: the state folder; None where nothing is learned.

    Returns:
        The stamp; None where there is no bundle at the moment.
    """
    pointer = None
    if home is not None:
        pointer = learned_folder(home, version.bundle_sha256) / CURRENT
    return stamp_of(Path(settings.bundle), pointer=pointer)


def found_stamp(settings: ModelSettings, version: Version, home: Path | None) -> Stamp:
    """Return the stamp of a bundle that was read a moment ago; see `stamp_with`.

    Raises:
        InputError: if it was taken away since.
    """
    stamp = stamp_with(settings, version, home)
    if stamp is None:
        raise InputError(f"{settings.bundle}: was taken away while it was read")
    return stamp


def _learned(facts: Facts, settings: ModelSettings, home: Path | None) -> InUse:
    root = Path(facts.settings.bundle)
    bundle = unchecked_bundle(root)
    learned, _ = choose_version(bundle, home, settings.version_number)
    for sentence in learned.passed_over:
        _LOG.warning("model %s: %s", facts.name, sentence)
    return learned
