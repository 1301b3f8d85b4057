"""A model of which the least important weights are zero, computed as it is read."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model, ModelWeights
from onhand.host.sparsify import METHODS, Repair, Share, prune_rows

__all__ = ["prune_matrices", "pruned_names"]


def pruned_names(
    decoder: Decoder, share: Share, *, keep: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Say which matrices lose weights.

    Args:
        decoder: the model's description.
        share: how many.
        keep: patterns of names that stay, as "layers.0.*".

    Returns:
        The names, and name -> why the others stay. Tables that are looked up and the head stay.
    """
    names: list[str] = []
    kept: dict[str, str] = {}
    for name, (_, n_inputs) in decoder.matrices().items():
        fits = [pattern for pattern in keep if fnmatchcase(name, pattern)]
        if fits:
            kept[name] = f"kept by the pattern {fits[0]!r}"
        elif not name.startswith("layers."):
            kept[name] = "tables that are looked up and the head stay whole"
        elif why := share.why_not(n_inputs):
            kept[name] = why
        else:
            names.append(name)
    return tuple(names), kept


def prune_matrices(
    model: Model,
    statistics: InputStatistics,
    share: Share,
    *,
    method: str = "sparsegpt",
    keep: tuple[str, ...] = (),
) -> Model:
    """Make the least important weights of a model's layers zero.

    Nothing is computed until a matrix is read, and of what is computed only one matrix's factor is
    kept, so that a model larger than memory can be pruned. Quantising reads the pruned weights;
    symmetric formats keep zeros exactly.

    Args:
        model: the source.
        statistics: of its inputs, whole second moments for "wanda" and "sparsegpt".
        share: how many weights of each row.
        method: see `prune_rows`.
        keep: patterns of names that stay.

    Returns:
        The model; it differs from the source by nothing but zeros and what makes good for them.

    Raises:
        InputError: if the method is unknown, or the statistics do not hold what it needs.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}, must be one of {', '.join(METHODS)}")
    names, _ = pruned_names(model.decoder, share, keep=keep)
    if method != "magnitude":
        unseen = [name for name in names if statistics.second_moments(name) is None]
        if unseen:
            raise InputError(
                f"{method!r} needs whole second moments of {unseen[0]}: give a calibration text"
            )
    weights = _Pruned(model.weights, statistics, share, method, frozenset(names))
    # What the source holds as codes is no longer what the weights are.
    return replace(model, weights=weights, coded=None)


@dataclass(slots=True)
class _Pruned:
    """A source's weights, some of them zero; of one thread. See `ModelWeights`."""

    inner: ModelWeights
    statistics: InputStatistics
    share: Share
    method: str
    names: frozenset[str]
    _repairs: dict[str, Repair] = field(default_factory=dict)
    _moments: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def decoder(self) -> Decoder:
        """See `ModelWeights`."""
        return self.inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self._pruned(name, self.inner.matrix(name))

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        return self._pruned(name, self.inner.block(name, start, stop))

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self._pruned(name, self.inner.rows(name, ids))

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.vector(name)

    def _pruned(self, name: str, rows: FloatArray) -> FloatArray:
        if name not in self.names:
            return rows
        if self.method == "magnitude":
            return prune_rows(rows, self.share, method=self.method)
        self._look_up(name)
        return prune_rows(
            rows,
            self.share,
            method=self.method,
            moments=self._moments[name],
            repair=self._repairs.get(name),
        )

    def _look_up(self, name: str) -> None:
        """Keep what the method needs of one matrix's inputs, and of no other.

        Raises:
            InputError: if they were not observed.
        """
        if name in self._moments:
            return
        found = self.statistics.second_moments(name)
        if found is None:
            raise InputError(f"the inputs of {name} were not observed")
        self._moments, self._repairs = {name: found}, {}
        if self.method == "wanda":
            self._moments[name] = np.diagonal(found).copy()
        else:
            self._repairs[name] = Repair.of(found)
