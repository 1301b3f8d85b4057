"""What is known of a bundle before it is opened: from its manifest alone."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.bundle import Bundle, unchecked_bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.feed import PictureFeed
from onhand.core.manifest import NETWORK, Manifest
from onhand.core.sealed_header import SEALED_MANIFEST
from onhand.device.engines.base import KvKind
from onhand.device.learning.in_use import AS_BUILT, InUse
from onhand.device.learning.versions import BASE
from onhand.device.networks.opening import able_engines as able_network_engines
from onhand.device.opening import able_engines
from onhand.device.probe import current_profile
from onhand.device.sampling import Sampling
from onhand.device.serving.models.fingerprints import fingerprint_of, fingerprint_with
from onhand.device.serving.models.footprint import Footprint, predicted
from onhand.device.serving.settings import ModelSettings
from onhand.device.text_files import model_sampling

__all__ = ["Facts", "Stamp", "bundle_at", "read_facts", "stamp_of"]

_MAX_POINTER_BYTES: Final = 4096
_SAMPLING: Final = "generation_config.json"
_LEAST_CONTEXT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One variant of one version of a bundle.

    Attributes:
        settings: to open it with: the folder itself, the variant, the context that fits.
        name: what requests call the model.
        bundle_sha256: hash of the manifest: which version it is.
        version: the bundle's own count of them.
        variant: which; "" where a network's is chosen when it is opened.
        variants: all of them.
        engine_name: what is likely to run it.
        footprint: what it is likely to take.
        task: what it is for; "text-generation" for a language model.
        reads_pictures: whether it takes pictures.
        usual: the sampling that the model's makers suggest.
        context: most tokens of prompt and answer together; 0 for a network.
        fingerprint: the same for models that answer alike, to the bit; "" for a network.
        learned: which learned version answers.
    """

    settings: ModelSettings
    name: str
    bundle_sha256: str
    version: int
    variant: str
    variants: tuple[str, ...]
    engine_name: str
    footprint: Footprint
    task: str
    reads_pictures: bool = False
    usual: Sampling = Sampling()  # noqa: RUF009 (frozen)
    context: int = 0
    fingerprint: str = ""
    learned: InUse = AS_BUILT

    @property
    def is_network(self) -> bool:
        """Whether it is no language model."""
        return self.context == 0

    @property
    def least_bytes(self) -> int:
        """What it takes with the shortest conversation."""
        return self.footprint.idle_bytes + self.footprint.session_bytes(min(self.context, 1))

    def as_opened(self, engine_name: str) -> "Facts":
        """Return the facts of what was opened, by whichever engine.

        Raises:
            OnhandError: as in `read_facts`, if the bundle is not there any more.
        """
        if engine_name == self.engine_name:
            return self
        if self.is_network:
            return replace(self, engine_name=engine_name)
        found = read_facts(replace(self.settings, engine=engine_name))
        return replace(found, settings=self.settings).with_learned(self.learned)

    def with_learned(self, learned: InUse) -> "Facts":
        """Return the facts of the same bundle with another learned version."""
        name = "base" if learned.number == BASE else str(learned.number)
        as_built = self.fingerprint.removesuffix(fingerprint_with("", self.learned))
        fingerprint = "" if self.is_network else fingerprint_with(as_built, learned)
        settings = replace(self.settings, version=name)
        return replace(self, settings=settings, learned=learned, fingerprint=fingerprint)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Tells a bundle from one that took its place, without reading it.

    Attributes:
        folder: where it lies, links and pointers followed.
        marks: of its manifest: inode, time of the last change in ns, and bytes; and the same of
            what points at the learned version in use, where that was asked for and is there.
    """

    folder: Path
    marks: tuple[int, ...]


def bundle_at(place: Path) -> Path:
    """Return the folder of a bundle that may be pointed to.

    Args:
        place: the folder, a link to it, or a text file whose one line is its path, seen from
            the file.

    Returns:
        The folder; it need not be there.

    Raises:
        InputError: if the file does not hold one path.
    """
    if not place.is_file():
        return place.resolve()
    try:
        with place.open("rb") as file:
            content = file.read(_MAX_POINTER_BYTES + 1)
        text = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: cannot be read as a pointer to a bundle: {error}") from error
    if not text or "\n" in text or "\x00" in text or len(content) > _MAX_POINTER_BYTES:
        raise InputError(f"{place}: must be a bundle's folder, or hold the path of one")
    return (place.parent / text).resolve()


def stamp_of(place: Path, *, pointer: Path | None = None) -> Stamp | None:
    """Return the stamp of the bundle at a place; None where there is none at the moment.

    Args:
        place: as in `bundle_at`.
        pointer: the file that says which learned version is in use; None where it is all the same.
    """
    try:
        folder = bundle_at(place)
        sealed = folder / SEALED_MANIFEST
        marks = _marks(sealed if sealed.exists() else folder / "manifest.json")
    except (InputError, OSError):
        return None
    if pointer is not None:
        with suppress(OSError):
            marks += _marks(pointer)
    return Stamp(folder, marks)


def _marks(path: Path) -> tuple[int, ...]:
    status = os.lstat(path)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def read_facts(
    settings: ModelSettings, *, variant: str | None = None, total_bytes: int | None = None
) -> Facts:
    """Read what a bundle's manifest says of one of its variants.

    Args:
        settings: of the model.
        variant: which; None for the one of the settings, or else the default.
        total_bytes: what models may take: the context is cut to what fits beside the weights;
            None for as much as they want.

    Returns:
        The facts. Nothing but the manifest and the suggestion for sampling has been checked.

    Raises:
        InputError: if there is no such bundle, variant or engine, or a number is out of range.
        BundleError: if the manifest is damaged or of a later format.
        EngineUnavailable: if no engine can run it here.
    """
    folder = bundle_at(Path(settings.bundle))
    bundle = unchecked_bundle(folder)
    manifest, digest = bundle.manifest, bundle.manifest_sha256
    wanted = variant or settings.variant or None
    chosen, described = bundle.variant(wanted)
    name = settings.name or manifest.name
    settings = replace(settings, bundle=str(folder), name=name)
    shared = {
        "name": name,
        "bundle_sha256": digest,
        "version": manifest.version,
        "variants": tuple(sorted(manifest.variants)),
    }
    if manifest.kind == NETWORK:
        return _network_facts(bundle, settings, wanted=wanted, shared=shared)
    engine = _text_engine(bundle, settings, chosen)
    whole = predicted(manifest, described, engine=engine, kv=settings.kv)
    context = _fitting_context(manifest, settings, whole, total_bytes)
    footprint = predicted(manifest, described, engine=engine, kv=settings.kv, context=context)
    settings = replace(settings, variant=chosen, context=context)
    return Facts(
        **shared,  # type: ignore[arg-type] # fields of these types
        settings=settings,
        variant=chosen,
        engine_name=engine,
        footprint=footprint,
        task="text-generation",
        usual=_sampling(bundle),
        context=context,
        fingerprint=fingerprint_of(settings, digest, engine_name=engine, context=context),
    )


def _network_facts(
    bundle: Bundle, settings: ModelSettings, *, wanted: str | None, shared: Mapping[str, object]
) -> Facts:
    manifest = bundle.manifest
    chosen, described = bundle.variant(wanted)
    able, _ = able_network_engines(
        bundle, current_profile(), variant=chosen, wanted=settings.engine or None
    )
    engine = next(iter(able))
    return Facts(
        **shared,  # type: ignore[arg-type] # fields of these types
        settings=replace(settings, variant=wanted or ""),
        variant=wanted or "",
        engine_name=engine,
        footprint=predicted(manifest, described, engine=engine, kv=""),
        task=manifest.network.task,
        reads_pictures=isinstance(manifest.network.feed, PictureFeed),
    )


def _text_engine(bundle: Bundle, settings: ModelSettings, variant: str) -> str:
    kv: KvKind | None = settings.kv or None  # type: ignore[assignment] # checked where it is used
    able, _ = able_engines(
        bundle, current_profile(), variant=variant, wanted=settings.engine or None, kv=kv
    )
    return next(iter(able))


def _fitting_context(
    manifest: Manifest, settings: ModelSettings, footprint: Footprint, total_bytes: int | None
) -> int:
    context = min(settings.context or manifest.decoder.context, manifest.decoder.context)
    if total_bytes is None:
        return context
    # Halved, and not cut to the token: a context that changed with every start of the server
    # would be another model for every cache.
    room = total_bytes - footprint.idle_bytes
    while context > _LEAST_CONTEXT and context * footprint.token_bytes > room:
        context = max(_LEAST_CONTEXT, context // 2)
    return context


def _sampling(bundle: Bundle) -> Sampling:
    entry = bundle.manifest.files.get(_SAMPLING)
    if entry is not None:
        try:
            with bundle.path(_SAMPLING).open("rb") as file:
                content = file.read(entry.size + 1)
        except OSError as error:
            raise BundleCorrupt(f"{bundle.root}: {_SAMPLING} cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleCorrupt(f"{bundle.root}: {_SAMPLING} is not what the manifest says")
    return model_sampling(bundle)
