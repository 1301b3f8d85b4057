"""What a language model's build adds so that the bundle can learn on a device."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.lesson import MOST_REMEMBERED_BYTES, REMEMBERED
from onhand.core.progress import Progress
from onhand.core.units import format_bytes
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.examples import Labelled
from onhand.host.learning.wanted import Learnable
from onhand.host.pack import Packed, VariantPlan
from onhand.host.plan import BuildPlan

__all__ = ["add_lesson_to_plan", "with_decoder_lesson"]

# Bytes of a weight in the check: dequantised on PyTorch's side.
_FLOAT_BYTES = 4


def with_decoder_lesson(
    packed: Packed, wanted: Learnable | None, threads: int, progress: Progress
) -> Packed:
    """Add what a bundle should be able to learn, once its gradients are checked.

    Args:
        packed: the bundle, not yet at its place.
        wanted: what is to be learnable; None for nothing.
        threads: of one step.
        progress: told how far it is.

    Returns:
        The bundle with its manifest written again, and what the report says of it.

    Raises:
        InputError: if nothing of that kind can be learned of this model, or the examples that it
            is to remember cannot be read.
        EngineError: if a gradient is not PyTorch's.
    """
    if wanted is None:
        return packed
    if wanted.remember is not None:
        # Before the lesson, whose manifest lists it.
        shutil.copyfile(_read(wanted.remember), packed.bundle.root / REMEMBERED)
    from onhand.host.learning.decoder_files import add_decoder_lesson

    progress.start("checking what it can learn", 1)
    added = add_decoder_lesson(packed.bundle, wanted, threads=threads)
    progress.advance(1)
    return replace(packed, bundle=added.bundle, lesson=added.to_json())


def _read(path: Path) -> Path:
    """Return a file of examples, once all of them could be read.

    Raises:
        InputError: if it is too large for a bundle, or is not of JSON lines that a device reads,
            or teaches classes.
    """
    if path.suffix.lower() != ".jsonl" or path.stat().st_size > MOST_REMEMBERED_BYTES:
        raise InputError(
            f"{path}: a bundle carries examples as .jsonl of up to "
            f"{format_bytes(MOST_REMEMBERED_BYTES)}"
        )
    for one in read_examples(path).examples:
        if isinstance(one, Labelled):
            raise InputError(f"{one.where}: has a class, which a language model cannot remember")
    return path


def add_lesson_to_plan(
    plan: BuildPlan, decoder: Decoder, variants: Sequence[VariantPlan], wanted: Learnable | None
) -> BuildPlan:
    """Add to a forecast what a lesson takes.

    Args:
        plan: of the build without it.
        decoder: as it will be stored.
        variants: the first one learns.
        wanted: what is to be learnable; None for nothing.

    Returns:
        The forecast of the whole.

    Raises:
        InputError: if nothing of that kind can be learned of this model, or the examples that it
            is to remember cannot be read.
    """
    if wanted is None:
        return plan
    if wanted.remember is not None:
        _read(wanted.remember)  # now, and not after all that a build takes
    from onhand.host.learning.decoder_files import lesson_bytes
    from onhand.host.learning.decoder_lesson import low_rank

    size = lesson_bytes(decoder, variants[0].report.formats, wanted)
    added = low_rank(decoder, wanted)
    shapes = decoder.whole_tensors()
    values = added.rank * sum(sum(shapes[name]) for name in added.targets)
    note = (
        f"{variants[0].name} can learn {values:,} numbers: factors of rank {added.rank} beside "
        f"{len(added.targets)} matrices, {format_bytes(size)} in every variant's files"
    )
    return replace(
        plan,
        size_bytes={name: known + size for name, known in plan.size_bytes.items()},
        build_memory_bytes=max(
            plan.build_memory_bytes, 2**29 + 2 * _FLOAT_BYTES * decoder.n_parameters
        ),
        notes=(*plan.notes, note),
    )
