"""Passes applied, and the result written as a bundle: layer by layer, straight to disk."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onhand.core.bundle import Bundle, write_manifest
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError, SourceError
from onhand.core.manifest import LANGUAGE_MODEL, NAME, Manifest, Variant
from onhand.core.onnxinline import LEFT_OUT
from onhand.core.progress import Progress
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.sparse_form import MOST_EXPANDED_BYTES, stream_names
from onhand.core.stored_forms import StoredForm
from onhand.host.calibrate import InputStatistics
from onhand.host.export.decoder_graph import decoder_graph
from onhand.host.model import Model
from onhand.host.parents import parent_version
from onhand.host.passes.base import Matrix, MatrixLoss, Pass, PassReport
from onhand.host.sparse_storage import (
    Shrunk,
    declare_streams,
    shrink_codes,
    tabulate_scales,
)
from onhand.host.weight_files import WEIGHTS, StoredVariant, VariantFiles, decoder_files
from onhand.host.work import FinishedMatrices

__all__ = ["Packed", "VariantPlan", "pack_bundle", "pack_original", "plan_variants"]

_GRAPH = "model.onnx"
_PLACES = ".codes.places"
ORIGINAL = "original"

# Takes a variant's finished matrices, gives those that are stored in their place.
Refine = Callable[["VariantPlan", FinishedMatrices], FinishedMatrices]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """What one variant would hold.

    Attributes:
        name: such as "int4".
        transform: the pass that makes it.
        report: what the pass says from shapes alone.
        own: matrices that it stores itself; the rest it shares with the first variant.
    """

    name: str
    transform: Pass
    report: PassReport
    own: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A written bundle.

    Attributes:
        bundle: at its staged place.
        losses: variant -> what each matrix lost.
        lesson: what the report says of what it can learn; None where it learns nothing.
    """

    bundle: Bundle
    losses: Mapping[str, Sequence[MatrixLoss]]
    lesson: Mapping[str, object] | None = None


def plan_variants(decoder: Decoder, transforms: Mapping[str, Pass]) -> list[VariantPlan]:
    """Decide what each variant stores itself; the first one is the default.

    Args:
        decoder: the model.
        transforms: variant name -> its pass; at least one.

    Returns:
        One plan for each variant, in order.

    Raises:
        InputError: if a variant's name cannot be part of a file's.
    """
    plans: list[VariantPlan] = []
    for name, transform in transforms.items():
        if not NAME.fullmatch(name):
            raise InputError(f"variant {name!r}: only letters, digits and . _ + - are allowed")
        report = transform.plan(decoder)
        first = plans[0].report if plans else None
        own = tuple(
            matrix
            for matrix, form in report.formats.items()
            if first is None
            or first.formats[matrix] != form
            # Float32 is the same however the rest is rounded.
            or (form is not None and report.rounds)
            or (form is not None and first.rounding_of(matrix) != report.rounding_of(matrix))
        )
        plans.append(VariantPlan(name=name, transform=transform, report=report, own=own))
    return plans


def pack_bundle(
    model: Model,
    plans: Sequence[VariantPlan],
    statistics: InputStatistics,
    staged: Path,
    *,
    accuracy_level: int,
    provenance: Mapping[str, object],
    threads: int,
    progress: Progress,
    work: Path | None = None,
    refine: Refine | None = None,
) -> Packed:
    """Apply each variant's pass and write the bundle into a staged folder.

    Args:
        model: the source.
        plans: the variants; the first one is the default.
        statistics: of the calibration text.
        staged: an empty folder.
        accuracy_level: MatMulNBits setting of the graphs.
        provenance: for the manifest.
        threads: threads to use.
        progress: told of every block of weights.
        work: keeps each finished matrix, and those of an earlier run are taken up; None for a
            folder that is removed.
        refine: what is done with all of a variant's own matrices when they are finished.

    Returns:
        The bundle, at its staged place, and the losses.

    Raises:
        SourceError: if a weight is not finite.
    """
    sizes = {name: n * k for name, (n, k) in model.decoder.matrices().items()}
    progress.start("quantizing", max(sum(sizes[name] for plan in plans for name in plan.own), 1))
    packing = _Packing(model=model, staged=staged)
    stored = {p.name: StoredVariant(formats=p.report.formats, own=p.own) for p in plans}
    laid = decoder_files(model.decoder, stored)
    with ExitStack() as stack:
        kept = work or Path(stack.enter_context(TemporaryDirectory(prefix="onhand-matrices-")))
        finished = {plan.name: FinishedMatrices(kept / plan.name) for plan in plans}
        for plan in plans:
            _finish_matrices(model, plan, statistics, finished[plan.name], threads, progress)
        for plan, files in zip(plans, laid, strict=True):
            if refine is not None:
                finished[plan.name] = refine(plan, finished[plan.name])
            packing.add(plan, files, finished[plan.name], accuracy_level=accuracy_level)
    bundle = _finish(model, staged, packing.variants, plans[0].name, provenance, packing.hashes)
    order = list(sizes)
    first = packing.losses[plans[0].name]
    losses = {
        plan.name: sorted(
            [*packing.losses[plan.name], *(loss for loss in first if loss.name not in plan.own)],
            key=lambda loss: order.index(loss.name),
        )
        for plan in plans
    }
    return Packed(bundle=bundle, losses=losses)


@dataclass(slots=True, kw_only=True)
class _Packing:
    """A bundle on its way: the first variant's tensors are what later ones share."""

    model: Model
    staged: Path
    variants: dict[str, Variant] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    losses: dict[str, list[MatrixLoss]] = field(default_factory=dict)
    shared: dict[str, tuple[str, TensorSpec]] = field(default_factory=dict)
    sparse: dict[str, StoredForm] = field(default_factory=dict)

    def add(
        self,
        plan: VariantPlan,
        files: VariantFiles,
        finished: FinishedMatrices,
        *,
        accuracy_level: int,
    ) -> None:
        """Write one variant's weights and graph."""
        first = not self.variants
        graph = _GRAPH if first else f"model.{plan.name}.onnx"
        decoder, formats = self.model.decoder, plan.report.formats
        places, sparse = dict(self.shared), dict(self.sparse)
        for matrix in plan.own:  # what the first variant has of it may be in another form
            for tensor in (f"{matrix}.codes", f"{matrix}.scales"):
                sparse.pop(tensor, None)
        shrunk = _shrink(finished, plan.own)
        self.losses[plan.name] = []
        for file, declared in files.written.items():
            with SafetensorsWriter(self.staged / file, declare_streams(declared, shrunk)) as writer:
                self.losses[plan.name] += _write_matrices(self.model, finished, writer, shrunk)
                self.hashes[file] = writer.close()
            places |= {name: (file, spec) for name, spec in writer.tensors.items()}
            for name, one in shrunk.items():
                if name in declared:
                    sparse[name] = one.form
                    places[name] = LEFT_OUT, replace(declared[name], size=one.form.size_bytes)
        content = decoder_graph(decoder, formats, places.__getitem__, accuracy_level=accuracy_level)
        (self.staged / graph).write_bytes(content)
        self.variants[plan.name] = Variant(
            graph=graph,
            weights=files.needed,
            matrices=formats,
            accuracy_level=accuracy_level,
            sparse=sparse,
        )
        if first:
            self.shared, self.sparse = places, sparse


def _finish_matrices(
    model: Model,
    plan: VariantPlan,
    statistics: InputStatistics,
    finished: FinishedMatrices,
    threads: int,
    progress: Progress,
) -> None:
    """Apply a variant's pass to all of its own matrices that are not finished yet.

    Raises:
        SourceError: if the pass does not keep to the order that it was given.
    """
    coded = [name for name in plan.own if plan.report.formats[name] is not None]
    waiting = [name for name in coded if name not in finished]
    sizes = {name: n * k for name, (n, k) in model.decoder.matrices().items()}
    progress.advance(sum(sizes[name] for name in plan.own if name not in waiting))
    made = plan.transform.apply(
        model, statistics, names=waiting, threads=threads, advance=progress.advance
    )
    for name in waiting:
        matrix = next(made, None)
        if matrix is None or matrix.loss.name != name:
            raise SourceError(f"pass {plan.transform.name!r} did not give {name} in its turn")
        finished.keep(matrix)


def _shrink(finished: FinishedMatrices, own: Sequence[str]) -> dict[str, Shrunk]:
    """Say which codes are stored without their zeros and which scales as a table.

    What they hold is read again to be written.

    Returns:
        Name of the codes or scales -> how large their streams are.
    """
    found: dict[str, Shrunk] = {}
    room = MOST_EXPANDED_BYTES
    for matrix in own:
        if matrix not in finished:
            continue
        tensor = finished.find(matrix).tensor
        codes, scales = shrink_codes(matrix, tensor), tabulate_scales(matrix, tensor)
        streams: list[Shrunk] = []
        if codes is not None:
            sizes = (codes.codes.places.size, codes.codes.codes.size)
            streams.append(Shrunk(form=codes.form, sizes=sizes))
        if scales is not None:
            sizes = (scales.index.size, scales.table.size)
            streams.append(Shrunk(form=scales.form, sizes=sizes))
        for one in streams:
            if one.form.size_bytes <= room:
                room -= one.form.size_bytes
                found[one.form.tensor] = one
    return found


def _write_matrices(
    model: Model,
    finished: FinishedMatrices,
    writer: SafetensorsWriter,
    shrunk: Mapping[str, Shrunk],
) -> list[MatrixLoss]:
    """Write a file's tensors in their declared order, one matrix in memory at a time."""
    losses: list[MatrixLoss] = []
    matrices = model.decoder.matrices()
    for name in writer.tensors:
        if name in model.decoder.vectors():
            writer.write(name, model.weights.vector(name))
        elif name in matrices:
            writer.write(name, model.weights.matrix(name))
        elif name.endswith((".codes", _PLACES)):
            made = finished.find(name.removesuffix(_PLACES).removesuffix(".codes"))
            losses.append(_write_matrix(made, writer, shrunk))
    return losses


def _write_matrix(
    made: Matrix, writer: SafetensorsWriter, shrunk: Mapping[str, Shrunk]
) -> MatrixLoss:
    """Write a matrix's tensors, and return its loss with the bytes that it takes."""
    name, tensor = made.loss.name, made.tensor
    size = made.loss.size_bytes
    if f"{name}.codes" in shrunk and (codes := shrink_codes(name, tensor)) is not None:
        for stream, content in zip(
            stream_names(f"{name}.codes"), (codes.codes.places, codes.codes.codes), strict=True
        ):
            writer.write(stream, content)
        size -= tensor.codes.nbytes - codes.codes.size_bytes
    else:
        writer.write(f"{name}.codes", tensor.codes)
    if f"{name}.scales" in shrunk and (scales := tabulate_scales(name, tensor)) is not None:
        for stream, content in zip(scales.form.streams, (scales.index, scales.table), strict=True):
            writer.write(stream, content)
        size -= scales.form.size_bytes - scales.form.stored_bytes
    else:
        writer.write(f"{name}.scales", tensor.scales)
    if tensor.zeros is not None:
        writer.write(f"{name}.zeros", tensor.zeros)
    return replace(made.loss, size_bytes=size)


def pack_original(model: Model, staged: Path) -> Bundle:
    """Write the model unquantised, in float32: what the compressed one is measured beside.

    Args:
        model: the source.
        staged: an empty folder.

    Returns:
        A bundle with the one variant "original".
    """
    decoder = model.decoder
    formats: dict[str, GroupFormat | None] = dict.fromkeys(decoder.matrices())
    (files,) = decoder_files(decoder, {ORIGINAL: StoredVariant(formats=formats, own=list(formats))})
    declared = files.written[WEIGHTS]
    with SafetensorsWriter(staged / WEIGHTS, declared) as writer:
        for name in declared:
            stored = name in formats
            weights = model.weights
            writer.write(name, weights.matrix(name) if stored else weights.vector(name))
        digest = writer.close()
    places = {name: (WEIGHTS, spec) for name, spec in writer.tensors.items()}
    graph = decoder_graph(decoder, formats, places.__getitem__, accuracy_level=0)
    (staged / _GRAPH).write_bytes(graph)
    variant = Variant(graph=_GRAPH, weights=(WEIGHTS,), matrices=formats, accuracy_level=0)
    provenance = {"source_sha256": model.sha256}
    return _finish(model, staged, {ORIGINAL: variant}, ORIGINAL, provenance, {WEIGHTS: digest})


def _finish(
    model: Model,
    staged: Path,
    variants: Mapping[str, Variant],
    default: str,
    provenance: Mapping[str, object],
    hashes: Mapping[str, str],
) -> Bundle:
    for name, content in model.files.items():
        (staged / name).write_bytes(content)
    manifest = Manifest(
        name=model.name,
        kind=LANGUAGE_MODEL,
        version=1 + parent_version(provenance),
        default_variant=default,
        variants=variants,
        model=model.decoder,
        files={},
        provenance=json.loads(json.dumps(provenance)),
    )
    return write_manifest(staged, manifest, hashes=hashes)
