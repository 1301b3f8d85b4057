"""What a language model has learned, as an adapter in PEFT's layout; and an adapter as a version.

Source:
    LoRA: arXiv:2106.09685. The nearest factors of a lower rank: Eckart and Young, "The
    approximation of one matrix by another of lower rank", Psychometrika 1 (1936).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.adapter import Pairs
from onhand.core.adapter_writing import family_naming, write_adapter
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.manifest import NETWORK
from onhand.device.learning.added import added_classes
from onhand.device.learning.base import Values
from onhand.device.learning.in_use import (
    choose_version,
    learned_adapter,
    versions_of,
    whole_values,
)
from onhand.device.learning.learned_files import write_learned
from onhand.device.learning.lesson_files import class_names, read_lesson
from onhand.device.learning.network_adapters import named_modules, write_network_adapter
from onhand.device.learning.versions import Version, Versions

__all__ = [
    "ExportedAdapter",
    "check_of_original",
    "export_adapter",
    "fit_adapter",
    "write_version",
]

# Of the largest singular value: less is what float32 rounds.
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedAdapter:
    """An adapter that was written.

    Attributes:
        path: its folder.
        format: "peft" or "safetensors".
        version: what it holds.
        matrices: of ours that it adds to; of plain tensors, how many there are.
        modules: of the checkpoint's; 0 for plain tensors.
        rank: of its factors, the largest; 0 for none.
        size_bytes: of all files.
        is_scoped: whether the version answers only prompts like those it was taught: whoever loads
            the adapter answers all with it.
    """

    path: Path
    format: str
    version: int
    matrices: int
    modules: int
    rank: int
    size_bytes: int
    is_scoped: bool = False

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {
            "format": self.format,
            "is_scoped": self.is_scoped,
            "matrices": self.matrices,
            "modules": self.modules,
            "path": str(self.path),
            "rank": self.rank,
            "size_bytes": self.size_bytes,
            "version": self.version,
        }


def export_adapter(
    root: Path, out: Path, *, home: Path, version: int | None = None, to: str = "peft"
) -> ExportedAdapter:
    """Write what was learned as an adapter of the model that it came from, or as plain tensors.

    Args:
        root: the bundle's folder; every file in it is checked first.
        out: the folder to make; must not exist.
        home: the state folder.
        version: its number; None for the one in use.
        to: "peft", or "safetensors": the lesson's own tensors, which only a bundle of the same
            network and the same lesson takes.

    Returns:
        What was written.

    Raises:
        InputError: if nothing was learned, there is no such version, `out` exists, or PEFT has no
            place for what was learned.
        BundleError: if the bundle or the version is damaged.
        ResourceError: if it cannot be written; nothing is then left behind.
    """
    bundle = read_bundle(root)
    if to == "peft":
        _check_for_peft(bundle)
    in_use, found = choose_version(bundle, home, version)
    if in_use.passed_over:
        raise InputError(f"{in_use.passed_over[0]}; say with --version which one is meant")
    if found is None:
        raise InputError(f"{root} is used as it was built: there is nothing learned to write")
    with stage_bundle(out) as staged:
        if to == "peft":
            matrices, modules = write_version(bundle, found, staged, home=home)
        else:
            matrices, modules = _write_tensors(bundle, found, staged, home), 0
        size = sum(one.stat().st_size for one in staged.iterdir())
    return ExportedAdapter(
        path=out,
        format=to,
        version=found.number,
        matrices=matrices,
        modules=modules,
        rank=read_lesson(bundle).rank,
        size_bytes=size,
        is_scoped=versions_of(bundle, home).scope(found) is not None,
    )


def _check_for_peft(bundle: Bundle) -> None:
    if bundle.manifest.kind == NETWORK:
        named_modules(bundle, read_lesson(bundle))
    else:
        check_of_original(bundle)


def _write_tensors(bundle: Bundle, version: Version, folder: Path, home: Path) -> int:
    """Write every trainable of a version; how many."""
    versions = versions_of(bundle, home)
    values = whole_values(bundle, versions, version)
    classes = _classes(bundle, versions, values)
    write_learned(folder, values, versions.lesson, classes=classes)
    return len(values)


def _classes(bundle: Bundle, versions: Versions, values: Values) -> tuple[str, ...]:
    """Return the names of all classes of a version; none of a language model."""
    if bundle.manifest.kind != NETWORK:
        return ()
    trainables = versions.lesson.trainables
    grown = [len(values[n]) - one.shape[0] for n, one in trainables.items() if one.grows]
    added = added_classes(versions.folder)[: max(grown, default=0)]
    return (*class_names(bundle, versions.lesson), *added)


def write_version(bundle: Bundle, version: Version, folder: Path, *, home: Path) -> tuple[int, int]:
    """Write a version of a language model, or of an encoder, as an adapter.

    Args:
        bundle: a verified bundle.
        version: of it.
        folder: an empty one.
        home: the state folder.

    Returns:
        matrices: of ours that it adds to.
        modules: of the checkpoint's.

    Raises:
        InputError: if the version adds nothing, or PEFT has no place for what it is.
        BundleCorrupt: if it is damaged.
    """
    if bundle.manifest.kind == NETWORK:
        versions = versions_of(bundle, home)
        values = whole_values(bundle, versions, version)
        classes = _classes(bundle, versions, values)
        return write_network_adapter(bundle, versions.lesson, values, folder, classes=classes)
    lesson, decoder = read_lesson(bundle), bundle.manifest.decoder
    pairs = learned_adapter(bundle, home, version).pairs
    naming = family_naming(bundle.manifest.provenance.get("family"))
    scale = lesson.alpha / max(lesson.rank, 1)
    return len(pairs), write_adapter(folder, pairs, decoder, naming=naming, scale=scale)


def check_of_original(bundle: Bundle) -> None:
    """Check that what adds to a bundle's matrices adds the same to its original's.

    Args:
        bundle: a language model's.

    Raises:
        InputError: if the build scaled inputs, or took parts out.
    """
    made = bundle.manifest.provenance
    recipe = made.get("recipe")
    scaled = [
        step for step in (recipe.values() if isinstance(recipe, dict) else ()) if "awq" in str(step)
    ]
    if scaled or "shaping" in made:
        why = "scaled the inputs of its matrices (awq)" if scaled else "changed its shape"
        raise InputError(
            f"{bundle.root}: the build {why}, so an adapter of the original does not fit it; build "
            "it without that"
        )


def fit_adapter(
    pairs: Pairs, lesson: Lesson, start: Values, *, decoder: Decoder | None, where: str
) -> dict[str, FloatArray]:
    """Return the trainables that add to a model's matrices what an adapter adds.

    Args:
        pairs: matrix -> A (r, K) and B (N, r), the scale part of B.
        lesson: what the bundle learns; of low rank.
        start: its starting values.
        decoder: the model; None for another network.
        where: the adapter's name for messages.

    Returns:
        Name -> value, of every trainable. Where the adapter's rank is lower, what is left of A is
        as at the start, and of B zero: it can be learned on.

    Raises:
        InputError: if it adapts a matrix that the bundle does not learn, or is of a higher rank.
    """
    names: dict[tuple[str, str], str] = {}
    values = {name: np.array(value, dtype=np.float32) for name, value in start.items()}
    for name, made in lesson.trainables.items():
        tied = decoder is not None and made.tensor == decoder.head
        tensor = "head" if tied else made.tensor
        names[tensor, made.part] = name
        if made.part == "lora_B":
            values[name][:] = 0.0
    for matrix, (right, left) in pairs.items():
        if (matrix, "lora_A") not in names:
            raise InputError(
                f"{where}: it adds to {matrix}, which this bundle does not learn; build it with "
                "that target"
            )
        first, second = _reduced(right, left, lesson.rank, f"{where}: {matrix}")
        rank = first.shape[0]
        values[names[matrix, "lora_A"]][:rank] = first
        scale = np.float32(lesson.alpha / lesson.rank)
        values[names[matrix, "lora_B"]][:, :rank] = second / scale
    return values


def _reduced(
    right: FloatArray, left: FloatArray, most: int, where: str
) -> tuple[FloatArray, FloatArray]:
    """Return factors of the same product, of a rank that is low enough.

    Args:
        right: A (r, K).
        left: B (N, r).
        most: the highest rank.
        where: for messages.

    Raises:
        InputError: if the product is of a higher rank.
    """
    # The parts of a joined matrix often share their A.
    kept: list[int] = []
    same = np.zeros((right.shape[0], right.shape[0]), dtype=np.float32)
    for i, row in enumerate(right):
        at = next((n for n, j in enumerate(kept) if np.array_equal(right[j], row)), len(kept))
        if at == len(kept):
            kept.append(i)
        same[i, at] = 1.0
    right, left = right[kept], left @ same[:, : len(kept)]
    if len(kept) <= most:
        return right, left
    outer, inner = np.linalg.qr(left.astype(np.float64))
    outer_right, inner_right = np.linalg.qr(right.T.astype(np.float64))
    u, sizes, v = np.linalg.svd(inner @ inner_right.T)
    needed = int((sizes > _ROUNDING * max(sizes[0], np.finfo(np.float32).tiny)).sum())
    if needed > most:
        raise InputError(
            f"{where}: what it adds is of rank {needed}, the bundle learns rank {most}; build it "
            f"with --learnable lora,rank={needed}"
        )
    root = np.sqrt(sizes[:most])
    first = (root[:, None] * v[:most]) @ outer_right.T  # (most, K)
    second = (outer @ u[:, :most]) * root  # (N, most)
    return first.astype(np.float32), second.astype(np.float32)
