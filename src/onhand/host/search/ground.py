"""What a search stands on: a model, its statistics, and a store of treated matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onhand.core.arrays import FloatArray, TokenArray
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.scale_tables import coded_bytes
from onhand.host.search.perturb import Trial
from onhand.host.search.store import SearchStore
from onhand.host.search.treatments import (
    as_quantize,
    named_treatment,
    stored_as,
    stored_names,
)
from onhand.host.sparse_storage import saved_bytes

__all__ = ["Ground", "StoredMatrix", "round_into_store", "stored_bytes", "stored_trial"]

# A model up to this size is rounded as a whole in every format: seconds, and used again later.
_WHOLE_PARAMETERS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a search stands on.

    Attributes:
        model: what is stored.
        statistics: of the calibration text.
        sequences: the calibration text, (T,) int64 each.
        method: how weights are rounded, see `Quantize`.
        scale_bits: of the scales, see `Quantize`.
        store: keeps rounded matrices and tables.
        threads: threads to use.
    """

    model: Model
    statistics: InputStatistics
    sequences: Sequence[TokenArray]
    method: str
    scale_bits: int
    store: SearchStore
    threads: int

    @property
    def is_small(self) -> bool:
        """Whether all matrices are rounded in all formats."""
        return self.model.decoder.n_parameters <= _WHOLE_PARAMETERS


def stored_trial(ground: Ground, choices: Mapping[str, str]) -> Trial:
    """Return a trial with matrices of the store, which are made if need be.

    Args:
        ground: model and store.
        choices: matrix -> its treatment in words; those in float32 stay as they are.
    """
    coded = {name: text for name, text in choices.items() if named_treatment(text).form is not None}
    for name, text in coded.items():
        round_into_store(ground, [name], text)
    return Trial({name: StoredMatrix(ground.store, name, text) for name, text in coded.items()})


def stored_bytes(ground: Ground, name: str, text: str) -> int:
    """Return the bytes that a matrix takes in a bundle; without zeros where that is smaller.

    Args:
        ground: model and store.
        name: of the matrix.
        text: its treatment in words. Of one that is not in the store, zeros are not known.
    """
    finished, total = ground.store.matrices(text), 0
    for part in stored_names(name, text):
        if part not in finished:
            form = named_treatment(text).form
            n, k = ground.model.decoder.matrices()[name]
            if form is None:
                return 4 * n * k
            return coded_bytes((n, k), form, scale_bits=ground.scale_bits)
        tensor = finished.find(part).tensor
        total += tensor.size_bytes - saved_bytes(part, tensor)
    return total


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """Reads a rounded matrix of the store, dequantised.

    Attributes:
        store: where it is.
        name: of the matrix.
        text: its treatment in words.
    """

    store: SearchStore
    name: str
    text: str

    def __call__(self) -> FloatArray:
        """Return the matrix, (N, K)."""
        finished = self.store.matrices(self.text)
        first, *rest = (
            finished.find(part).tensor.dequantize() for part in stored_names(self.name, self.text)
        )
        return first @ rest[0] if rest else first


def round_into_store(ground: Ground, names: Sequence[str], text: str) -> None:
    """Treat matrices as words say and keep them, but for those that are kept already.

    Args:
        ground: model, statistics and store.
        names: of the matrices.
        text: the treatment in words.
    """
    finished = ground.store.matrices(text)
    waiting = {
        name: text
        for name in names
        if any(part not in finished for part in stored_names(name, text))
    }
    if not waiting:
        return
    stored = stored_as(ground.model, ground.statistics, waiting)
    transform = as_quantize(waiting, method=ground.method, scale_bits=ground.scale_bits)
    for matrix in transform.apply(
        stored.model,
        stored.statistics,
        names=[part for name in waiting for part in stored_names(name, text)],
        threads=ground.threads,
        advance=_ignore,
    ):
        finished.keep(matrix)


def _ignore(_: float) -> None:
    pass
