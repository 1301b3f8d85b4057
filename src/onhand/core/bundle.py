"""A bundle: one folder, one manifest, a checksum for every file. Written once, never half."""

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    Variant,
    parse_manifest,
    render_manifest,
)
from onhand.core.trusting import current_trust
from onhand.core.unsealing import Unsealed, open_seal

__all__ = [
    "MANIFEST",
    "MODEL_SIGNATURE",
    "REPORT",
    "REPORT_PAGE",
    "SIGNATURE",
    "UNLISTED",
    "Bundle",
    "LearnedGraph",
    "read_bundle",
    "read_manifest",
    "read_manifest_bytes",
    "sha256_of",
    "stage_bundle",
    "unchecked_bundle",
    "verifying_bundle",
    "write_manifest",
    "write_report",
]

MANIFEST = "manifest.json"
MODEL_SIGNATURE = "model.sig"  # see `onhand.core.openssf`
SIGNATURE = "signature"  # see `onhand.core.signing`
REPORT = "report.json"
REPORT_PAGE = "report.html"
UNLISTED = frozenset({MANIFEST, MODEL_SIGNATURE, SIGNATURE, REPORT, REPORT_PAGE})
_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedGraph:
    """A network's graph with what was learned on the device in it.

    Attributes:
        content: an ONNX file; its external tensors lie in the bundle's weights files.
        labels: names of all classes; empty where nobody named them.
        kind: of the lesson that it was learned by.
        is_coded: whether every learned weight that stood as integers stands as integers again.
    """

    content: bytes
    labels: tuple[str, ...]
    kind: str
    is_coded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle on disk; safe to share between threads.

    Attributes:
        root: the folder.
        manifest: what it holds.
        manifest_sha256: hash of the manifest's bytes: the bundle's identity.
        learned: of a network: what stands in its graph's place; None for the bundle as it was
            built. The manifest then describes the network as it is now.
        sealed: what opens its files into memory; None where they lie in the folder in plain.
    """

    root: Path
    manifest: Manifest
    manifest_sha256: str
    learned: LearnedGraph | None = None
    sealed: Unsealed | None = field(default=None, compare=False, repr=False)

    def path(self, name: str) -> Path:
        """Return the place of a file that the manifest lists; of a sealed bundle, in memory.

        Raises:
            SealBroken: if it is sealed and was changed.
        """
        return self.root / name if self.sealed is None else self.sealed.path(name)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the bytes of files that the manifest lists, by name, as they are now.

        A file may have been cut since the bundle was checked. A sealed one is checked when it is
        opened, and then has the size that the manifest says.

        Raises:
            BundleCorrupt: if one cannot be read.
        """
        if self.sealed is not None:
            return {name: self.manifest.files[name].size for name in names}
        try:
            return {name: self.path(name).stat().st_size for name in names}
        except OSError as error:
            raise BundleCorrupt(
                f"{error.filename}: cannot be read ({error.strerror}); fetch the bundle again"
            ) from error

    def variant(self, name: str | None) -> tuple[str, Variant]:
        """Return a variant by name, or the default one for None.

        Raises:
            InputError: if there is no such variant.
        """
        chosen = self.manifest.default_variant if name is None else name
        if chosen not in self.manifest.variants:
            known = ", ".join(sorted(self.manifest.variants))
            raise InputError(f"{self.root}: no variant {chosen!r}; it has {known}")
        return chosen, self.manifest.variants[chosen]

    def size_bytes(self, variant: str | None = None) -> int:
        """Bytes of all files, or of those that one variant needs.

        Raises:
            InputError: if there is no such variant.
        """
        if variant is None:
            return sum(entry.size for entry in self.manifest.files.values())
        others: set[str] = set()
        for made in self.manifest.variants.values():
            others |= {made.graph, *made.weights}
        _, chosen = self.variant(variant)
        needed = (set(self.manifest.files) - others) | {chosen.graph, *chosen.weights}
        return sum(self.manifest.files[name].size for name in needed)


def read_manifest(root: Path) -> tuple[Manifest, str]:
    """Read a bundle's manifest without looking at the other files.

    Args:
        root: the bundle's folder.

    Returns:
        The manifest, and the SHA-256 of its bytes.

    Raises:
        InputError: if there is no bundle at `root`.
        BundleCorrupt: if the manifest is not valid.
        BundleTooNew: if its format is a later one.
        BundleUntrusted: if this process takes signed bundles alone; see `onhand.core.trusting`.
    """
    return _read_manifest(root, read_manifest_bytes(root))


def _read_manifest(root: Path, content: bytes) -> tuple[Manifest, str]:
    trust = current_trust()
    # Before a byte of it is parsed.
    check = None if trust is None else trust.check(root, content)
    manifest = parse_manifest(content, where=str(root))
    if check is not None:
        check(manifest)
    return manifest, hashlib.sha256(content).hexdigest()


def read_manifest_bytes(root: Path) -> bytes:
    """Return the bytes of a bundle's manifest, which are not parsed.

    Args:
        root: the bundle's folder.

    Raises:
        InputError: if there is no bundle at `root`.
        BundleCorrupt: if the manifest is no plain file, or too large.
        VaultError: if the bundle is sealed, and does not open here.
    """
    sealed = open_seal(root)
    if sealed is not None:
        return sealed.manifest_bytes()
    path = root / MANIFEST
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleCorrupt(f"{root}: {MANIFEST} is not a plain file")
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{root}: not a bundle: it has no {MANIFEST}") from error
    except OSError as error:
        raise InputError(f"{root}: {MANIFEST} cannot be read: {error.strerror}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleCorrupt(f"{root}: {MANIFEST} is over {MAX_MANIFEST_BYTES} bytes")
    return content


def read_bundle(root: Path) -> Bundle:
    """Read a bundle and check every file before anything is parsed from it.

    Args:
        root: the bundle's folder.

    Returns:
        The verified bundle.

    Raises:
        InputError: if there is no bundle at `root`, or a file of it may not be read.
        BundleCorrupt: if a file is missing, changed, a link, or reaches outside the folder.
        BundleTooNew: if its format is a later one.
    """
    with verifying_bundle(root) as bundle:
        return bundle


@contextmanager
def verifying_bundle(root: Path) -> Iterator[Bundle]:
    """Give a bundle while its weights are still hashed, so that they may be opened meanwhile.

    Every other file has been checked when the block begins, and all when it ends: nothing may
    leave the block but by its end. A wrong hash is the error, whatever the block made of it.

    Args:
        root: the bundle's folder.

    Yields:
        The bundle.

    Raises:
        InputError: as in `read_bundle`, at the beginning of the block or at its end.
        BundleCorrupt: likewise.
        BundleTooNew: if its format is a later one.
    """
    bundle = unchecked_bundle(root)
    manifest = bundle.manifest
    # Sizes first: they cost nothing, and a wrong one saves the hashing.
    for name, entry in manifest.files.items():
        stored = entry.size if bundle.sealed is None else bundle.sealed.size_on_disk(name)
        _check_place(root, name, stored)
    weights = {name for variant in manifest.variants.values() for name in variant.weights}
    with ThreadPoolExecutor(max_workers=4) as pool:
        names = sorted(manifest.files, key=lambda name: name in weights)  # the small ones first
        found = {name: pool.submit(_hashed, bundle, name) for name in names}
        _check_hashes(root, manifest, {n: found[n] for n in names if n not in weights})
        try:
            yield bundle
        finally:
            _check_hashes(root, manifest, {n: found[n] for n in names if n in weights})


def unchecked_bundle(root: Path) -> Bundle:
    """Read a bundle's manifest alone: of its other files nothing is known yet.

    Args:
        root: the bundle's folder.

    Raises:
        InputError: as in `read_bundle`.
        BundleCorrupt: likewise.
        VaultError: if the bundle is sealed, and does not open here.
    """
    sealed = open_seal(root)
    content = read_manifest_bytes(root) if sealed is None else sealed.manifest_bytes()
    manifest, digest = _read_manifest(root, content)
    listed = {name: entry.size for name, entry in manifest.files.items()}
    if sealed is not None and sealed.header.files != listed:
        raise BundleCorrupt(f"{root}: what it says in plain of its files is not in its manifest")
    return Bundle(root=root, manifest=manifest, manifest_sha256=digest, sealed=sealed)


def _hashed(bundle: Bundle, name: str) -> tuple[str, Path]:
    path = bundle.path(name)
    # With its place: of a sealed bundle it is in memory until everything has been checked.
    return sha256_of(path), path


def _check_hashes(
    root: Path, manifest: Manifest, found: Mapping[str, Future[tuple[str, Path]]]
) -> None:
    for name, digest in found.items():
        try:
            sha256, _ = digest.result()
        except OSError as error:
            raise InputError(f"{root}: a file cannot be read: {error}") from error
        if sha256 != (expected := manifest.files[name].sha256):
            raise BundleCorrupt(f"{root}: {name!r} has SHA-256 {sha256}, expected {expected}")


def _check_place(root: Path, name: str, size: int) -> None:
    place = root
    for part in Path(name).parts:
        place /= part
        # A link could reach any file of the device: a bundle holds plain files only.
        if place.is_symlink():
            raise BundleCorrupt(f"{root}: {name!r} is a link, which a bundle may not hold")
    try:
        status = place.lstat()
    except OSError as error:
        raise BundleCorrupt(f"{root}: {name!r} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleCorrupt(f"{root}: {name!r} is not a plain file")
    if status.st_size != size:
        raise BundleCorrupt(
            f"{root}: {name!r} has {status.st_size} bytes, expected {size}: cut short?"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    # Large pieces: a thread asks for Python's lock after each, and others may be slow to give it.
    piece = bytearray(min(path.stat().st_size + 1, _PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(piece):
            digest.update(memoryview(piece)[:n])
    return digest.hexdigest()


@contextmanager
def stage_bundle(root: Path, *, inside: Path | None = None) -> Iterator[Path]:
    """Give a folder to write a bundle into, and move it to `root` at the end.

    If the block raises, the folder is removed and `root` is as before.

    Args:
        root: folder to create.
        inside: where to make the folder, on the same disk; None for beside `root`.

    Yields:
        The folder to write into.

    Raises:
        InputError: if `root` exists already, or its parent is not a folder.
        ResourceError: if the disk is full.
    """
    if root.exists() or root.is_symlink():
        raise InputError(f"{root} exists already; choose another name or remove it first")
    if not root.absolute().parent.is_dir():
        raise InputError(f"{root.absolute().parent} is not a folder; create it first")
    staged: Path | None = None
    try:
        staged = Path(
            tempfile.mkdtemp(dir=inside or root.absolute().parent, prefix=f".{root.name}.building-")
        )
        yield staged
        _signed_here(staged)
        staged.chmod(0o755)
        staged.rename(root)
    except OSError as error:
        if root.exists():
            raise InputError(f"{root} was created by someone else meanwhile") from error
        raise ResourceError(f"{root}: cannot be written: {error.strerror or error}") from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


def _signed_here(staged: Path) -> None:
    trust, place = current_trust(), staged / MANIFEST
    if trust is not None and place.exists():
        trust.sign(staged, place.read_bytes())


def write_manifest(staged: Path, manifest: Manifest, *, hashes: Mapping[str, str]) -> Bundle:
    """Finish a staged bundle: list every file in it and write the manifest.

    Args:
        staged: the folder, all files but manifest and report in it.
        manifest: everything but `files`, which is filled in here.
        hashes: SHA-256 of files that are known already, to save reading them again.

    Returns:
        The bundle, at its staged place.
    """
    files: dict[str, FileEntry] = {}
    for path in sorted(staged.rglob("*")):
        name = path.relative_to(staged).as_posix()
        if path.is_file() and name not in UNLISTED:
            digest = hashes.get(name) or sha256_of(path)
            files[name] = FileEntry(size=path.stat().st_size, sha256=digest)
    made = replace(manifest, files=files)
    content = render_manifest(made)
    (staged / MANIFEST).write_bytes(content)
    _signed_here(staged)
    return Bundle(root=staged, manifest=made, manifest_sha256=hashlib.sha256(content).hexdigest())


def write_report(root: Path, report: Mapping[str, object]) -> None:
    """Write `report.json` beside its place and rename it over."""
    text = json.dumps(report, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    beside = root / f".{REPORT}.{os.getpid()}"
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(root / REPORT)
