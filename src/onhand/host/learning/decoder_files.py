"""A language model's lesson put into a bundle that is being built."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, write_manifest
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineError
from onhand.core.lesson import LESSON, Lesson, render_lesson
from onhand.core.onnxinline import LEFT_OUT
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.weights import BundleWeights, matrix_tensors, open_weights
from onhand.device.learning.base import Feeds
from onhand.device.learning.graph import open_lesson
from onhand.host.export.decoder_parts import Places
from onhand.host.learning.check import STEPS, Checked, check_gradients
from onhand.host.learning.decoder_forward import LowRank
from onhand.host.learning.decoder_lesson import (
    GRAPH,
    START,
    decoder_lesson,
    lesson_graph,
    low_rank,
    starts,
)
from onhand.host.learning.wanted import Learnable

__all__ = ["AddedDecoderLesson", "add_decoder_lesson", "check_decoder_lesson", "lesson_bytes"]

_SEED = 0
_TEXTS = ((2, 12), (3, 7))  # texts and tokens of the batches that are compared
_MOST_TOKENS = 64
_CHOICES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedDecoderLesson:
    """A bundle with its lesson.

    Attributes:
        bundle: at the place that it had.
        lesson: what it can learn.
        checked: how far its gradients and PyTorch's were apart.
        size_bytes: of the files that the lesson added.
    """

    bundle: Bundle
    lesson: Lesson
    checked: Checked
    size_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return plain values for a report."""
        sizes = [math.prod(made.shape) for made in self.lesson.trainables.values()]
        return {
            "alpha": self.lesson.alpha,
            "check": self.checked.to_json(),
            "kind": self.lesson.kind,
            "n_parameters": sum(sizes),
            "n_tensors": len(sizes),
            "rank": self.lesson.rank,
            "size_bytes": self.size_bytes,
            "trunk": False,
            "variant": self.lesson.variant,
        }


def add_decoder_lesson(
    bundle: Bundle, wanted: Learnable, *, threads: int, steps: int = STEPS
) -> AddedDecoderLesson:
    """Add what a language model can learn to a bundle, once every gradient agrees with PyTorch's.

    Args:
        bundle: written but not yet at its place; its default variant learns.
        wanted: what is to be learned.
        threads: of one step.
        steps: of plain gradient descent that are compared.

    Returns:
        The bundle, its manifest written again.

    Raises:
        InputError: if nothing of that kind can be learned of this model; it says why.
        EngineError: if a gradient is not PyTorch's, or PyTorch is missing.
    """
    name = bundle.manifest.default_variant
    decoder, variant = bundle.manifest.decoder, bundle.manifest.variants[name]
    added = low_rank(decoder, wanted)
    weights = open_weights(bundle, name)
    content = lesson_graph(decoder, variant.matrices, _places(weights), added)
    lesson = decoder_lesson(decoder, added, variant=name)
    finished = _written(bundle, lesson, content)
    checked = check_decoder_lesson(finished, added, threads=threads, steps=steps)
    size = sum(finished.manifest.files[file].size for file in (GRAPH, START, LESSON))
    return AddedDecoderLesson(bundle=finished, lesson=lesson, checked=checked, size_bytes=size)


def check_decoder_lesson(
    bundle: Bundle, added: LowRank, *, threads: int, steps: int = STEPS
) -> Checked:
    """Open a bundle's lesson as a device does, and compare it with PyTorch.

    Args:
        bundle: with the lesson's files in it.
        added: what is learned.
        threads: of one step.
        steps: of plain gradient descent that are compared.

    Returns:
        How far they were apart.

    Raises:
        EngineError: if that is more than rounding, or PyTorch is missing.
    """
    try:
        import torch

        from onhand.host.learning.decoder_oracle import TorchDecoderLesson
    except ImportError as error:
        raise EngineError(
            "--learnable compares every gradient with PyTorch's before the bundle is written: "
            "install torch"
        ) from error

    taught = open_lesson(bundle, threads=threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # of the whole process: torch has no other way
    try:
        oracle = TorchDecoderLesson(open_weights(bundle, taught.lesson.variant), added)
        batches = _batches(bundle.manifest.decoder)
        return check_gradients(taught.teach, oracle.teach, taught.start(), batches, steps=steps)
    finally:
        torch.set_num_threads(before)
        taught.close()


def lesson_bytes(
    decoder: Decoder, matrices: Mapping[str, GroupFormat | None], wanted: Learnable
) -> int:
    """Return how large a lesson's files will be, from shapes alone.

    Args:
        decoder: the model.
        matrices: name -> how each matrix will be stored.
        wanted: what is to be learned.

    Returns:
        Bytes, but for some of the numbers of places.

    Raises:
        InputError: if nothing of that kind can be learned of this model.
    """
    added = low_rank(decoder, wanted)
    specs: dict[str, TensorSpec] = {
        name: TensorSpec(dtype="F32", shape=shape) for name, shape in decoder.vectors().items()
    }
    for name, shape in decoder.matrices().items():
        specs |= matrix_tensors(name, shape, matrices[name])

    def place(name: str) -> tuple[str, TensorSpec]:
        return "weights.safetensors", specs[name]

    graph = lesson_graph(decoder, matrices, place, added)
    lesson = decoder_lesson(decoder, added, variant="int4")
    values = sum(math.prod(made.shape) for made in lesson.trainables.values())
    header = sum(len(name) + 80 for name in lesson.trainables)
    return len(graph) + len(render_lesson(lesson)) + 4 * values + header


def _places(weights: BundleWeights) -> Places:
    """Say where a variant's tensors lie."""

    def place(name: str) -> tuple[str, TensorSpec]:
        if (spec := weights.left_out(name)) is not None:
            return LEFT_OUT, spec
        path, spec = weights.place(name)
        return path.name, spec

    return place


def _written(bundle: Bundle, lesson: Lesson, content: bytes) -> Bundle:
    """Write a lesson's files, and the manifest again."""
    root: Path = bundle.root
    (root / GRAPH).write_bytes(content)
    (root / LESSON).write_bytes(render_lesson(lesson))
    values: dict[str, FloatArray] = starts(lesson)
    declared = {name: TensorSpec(dtype="F32", shape=array.shape) for name, array in values.items()}
    with SafetensorsWriter(root / START, declared) as writer:
        for name, array in values.items():
            writer.write(name, array)
        digest = writer.close()
    known = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return write_manifest(root, bundle.manifest, hashes={**known, START: digest})


def _batches(decoder: Decoder) -> list[Feeds]:
    """Return small batches of random texts: of two shapes, every input of the loss in use."""
    random = np.random.default_rng(_SEED)
    windows = [layer.window for layer in decoder.layers if layer.window]
    longer = min(windows, default=0)
    found: list[Feeds] = []
    for B, S in _TEXTS:
        # Longer than a window, so that it hides something; a large one would take minutes.
        length = min(S + (longer if longer <= _MOST_TOKENS else 0), decoder.context)
        n_rows = max(B * length // 2, 1)
        rows = np.sort(random.choice(B * length, n_rows, replace=False))
        weights = random.uniform(0.2, 1.0, (n_rows, _CHOICES)) / n_rows
        found.append({
            "tokens": random.integers(0, decoder.vocab_size, (B, length)),
            "rows": rows.astype(np.int64),
            "labels": random.integers(0, decoder.vocab_size, (n_rows, _CHOICES)),
            "weights": weights.astype(np.float32),
        })
    return found
