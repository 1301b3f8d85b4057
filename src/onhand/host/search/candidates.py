"""A point of the front, built and measured as it would ship; what is finished is kept."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError, ResourceError
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.progress import Progress
from onhand.host.calibrate import InputStatistics
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model
from onhand.host.pack import Packed, VariantPlan, pack_bundle, plan_variants
from onhand.host.prove import Proof, measure_variant
from onhand.host.search.store import SearchStore, content_key
from onhand.host.search.treatments import (
    Stored,
    as_quantize,
    named_treatment,
    stored_as,
    stored_names,
)
from onhand.host.work import FinishedMatrices

__all__ = ["Candidates", "ProofOf", "lend_matrices", "take_matrices"]

ProofOf = Callable[[Packed, list[VariantPlan], Stored], Proof]
"""What there is to prove of a bundle: of its plans, and of the model that it stores."""

_VARIANT = "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Builds points in a folder, each once.

    Attributes:
        proof_of: what there is to prove of a bundle.
        model: what is stored.
        statistics: of the calibration text.
        method: how weights are rounded.
        scale_bits: of the scales.
        store: keeps finished matrices.
        folder: keeps what was measured, for a build that goes on from there.
        guard: the build's memory ceiling.
        progress: told how far it is.
        accuracy_level: of the graphs.
        threads: threads to use.
    """

    proof_of: ProofOf
    model: Model
    statistics: InputStatistics
    method: str
    scale_bits: int
    store: SearchStore
    folder: Path
    guard: MemoryGuard
    progress: Progress
    accuracy_level: int
    threads: int

    def measure(self, choices: Mapping[str, str]) -> dict[str, Measurement]:
        """Return the figures of a point: those that are kept, or it is built now.

        Args:
            choices: matrix -> its format in words.

        Returns:
            The measurements by name.

        Raises:
            EngineError: if the bundle does not run.
            ResourceError: if disk or memory does not suffice.
        """
        place = self.folder / f"{content_key(dict(choices))}.json"
        if (kept := _read(place)) is not None:
            return kept
        figures = self._build(choices)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = place.with_suffix(".new")
            beside.write_text(
                json.dumps({name: one.to_json() for name, one in figures.items()}),
                encoding="utf-8",
            )
            beside.replace(place)
        except OSError as error:
            raise ResourceError(f"{place}: cannot be written: {error.strerror}") from error
        return figures

    def _build(self, choices: Mapping[str, str]) -> dict[str, Measurement]:
        stored = stored_as(self.model, self.statistics, choices)
        transform = as_quantize(choices, method=self.method, scale_bits=self.scale_bits)
        plans = plan_variants(stored.model.decoder, {_VARIANT: transform})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{self.folder}: cannot be made: {error.strerror}") from error
        with TemporaryDirectory(dir=self.folder, prefix=".candidate-") as scratch:
            matrices, root = Path(scratch) / "matrices", Path(scratch) / "bundle"
            root.mkdir()
            lend_matrices(self.store, choices, matrices / _VARIANT)
            packed = pack_bundle(
                stored.model,
                plans,
                stored.statistics,
                root,
                accuracy_level=self.accuracy_level,
                provenance={},
                threads=self.threads,
                progress=self.progress,
                work=matrices,
            )
            take_matrices(self.store, choices, matrices / _VARIANT)
            proof = self.proof_of(packed, plans, stored)
            figures, _ = measure_variant(
                proof, read_bundle(root), _VARIANT, guard=self.guard, progress=self.progress
            )
        return figures


def lend_matrices(store: SearchStore, choices: Mapping[str, str], folder: Path) -> None:
    """Put finished matrices where a build looks for those of a variant.

    Args:
        store: where they are kept.
        choices: matrix -> its treatment in words.
        folder: of the variant.
    """
    for name, text in _coded(choices):
        store.lend(name, text, FinishedMatrices(folder))


def take_matrices(store: SearchStore, choices: Mapping[str, str], folder: Path) -> None:
    """Keep the matrices that a build of a variant has finished.

    Args:
        store: where they are kept.
        choices: matrix -> its treatment in words.
        folder: of the variant.
    """
    for name, text in _coded(choices):
        store.take(name, text, FinishedMatrices(folder))


def _coded(choices: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and treatment of every matrix as it is stored, but for those in float32."""
    for name, text in choices.items():
        if named_treatment(text).form is not None:
            for part in stored_names(name, text):
                yield part, text


def _read(place: Path) -> dict[str, Measurement] | None:
    """Return kept figures, or None if there are none that are whole."""
    try:
        table = json.loads(place.read_text(encoding="utf-8"))
        return {str(name): measurement_from_json(one) for name, one in table.items()}
    except (OSError, ValueError, AttributeError, InputError):
        return None
