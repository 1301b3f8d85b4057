"""A decoder's weights that matter least become zero: stored compactly, at the speed of before."""

import fnmatch
import shutil
from dataclasses import dataclass, field
from typing import ClassVar

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.sparse import parse_pattern
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.passes.base import ShapeReport, ShapeWork
from onhand.host.passes.observed import STATISTICS, observe_inputs
from onhand.host.prune import prune_matrices, pruned_names
from onhand.host.sparsify import METHODS, Share, zero_share
from onhand.host.stored_model import write_model

__all__ = ["PruneWeights"]

# Of a product: multiply and add; statistics take about as much again.
_STATISTICS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWeights:
    """Make the least important weights of a decoder's layers zero. See `ShapingPass`.

    Training behind it, and the pass that stores the weights as codes, keep the zeros; the bundle
    stores them in next to no space. Engines compute with them as with other numbers.

    Attributes:
        ratio: share of zeros in each row, from 0 to below 1; without a pattern.
        method: "sparsegpt", in which the other weights make good for those that go; "wanda", by
            weight times the size of its input; or "magnitude". See `prune_rows`.
        pattern: "2:4" leaves 2 of each 4 weights in a row; "" for any.
        keep: patterns of names of matrices that stay, as "layers.0.*".
    """

    name: ClassVar[str] = "prune-weights"

    ratio: float = 0.5
    method: str = "sparsegpt"
    pattern: str = ""
    keep: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        # A recipe's lists are lists, and a text would be a list of letters.
        keep: object = self.keep
        if not isinstance(keep, tuple | list) or not all(isinstance(one, str) for one in keep):
            raise InputError(f"keep is {keep!r}, must be a list of patterns")
        object.__setattr__(self, "keep", tuple(keep))
        if self.method not in METHODS:
            known = ", ".join(METHODS)
            raise InputError(f"method is {self.method!r}, must be one of {known}")
        if not isinstance(self.pattern, str):
            raise InputError(f"pattern is {self.pattern!r}, must be as '2:4'")
        self._share()

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Say which matrices lose weights; the shapes stay. See `ShapingPass`.

        Raises:
            InputError: if a pattern fits nothing, or nothing is left to be pruned.
        """
        names, kept = pruned_names(decoder, self._share(), keep=self.keep)
        for pattern in self.keep:
            if not fnmatch.filter(decoder.matrices(), pattern):
                raise InputError(f"keep: no matrix is called {pattern!r}")
        if not names:
            why = next(iter(kept.values()))
            raise InputError(f"prune-weights: no matrix is left to be pruned: {why}")
        shapes = [decoder.matrices()[name] for name in names]
        widest = max(k for _, k in shapes)
        memory = 8 * max(n * k for n, k in shapes)
        operations = 0.0
        if self.method != "magnitude":
            operations += float(tokens) * decoder.n_parameters * _STATISTICS
            memory += 4 * widest**2
        if self.method == "sparsegpt":
            operations += sum(n * k * k + k**3 for n, k in shapes)
            memory += 24 * widest**2  # factorised in float64
        return ShapeReport(decoder=decoder, operations=operations, memory_bytes=memory, kept=kept)

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Make the weights zero and write what came of it. See `ShapingPass`.

        Raises:
            InputError: if the method needs a text and there is none.
        """
        statistics = self._observe(model, work)
        pruned = prune_matrices(
            model, statistics, self._share(), method=self.method, keep=self.keep
        )
        work.progress.start("making weights zero", pruned.weights.decoder.n_parameters)
        stored = write_model(work.folder, pruned, advance=work.progress.advance)
        shutil.rmtree(work.folder / STATISTICS, ignore_errors=True)
        names, _ = pruned_names(model.decoder, self._share(), keep=self.keep)
        sizes = [n * k for n, k in (model.decoder.matrices()[name] for name in names)]
        zeros = sum(
            size * zero_share(stored.weights.matrix(name))
            for name, size in zip(names, sizes, strict=True)
        )
        work.progress.note(
            f"prune-weights: {zeros / sum(sizes):.1%} of the weights of {len(names)} matrices, "
            f"{zeros / model.decoder.n_parameters:.1%} of all, are zero"
        )
        return stored

    def _share(self) -> Share:
        return Share(self.ratio, parse_pattern(self.pattern) if self.pattern else None)

    def _observe(self, model: Model, work: ShapeWork) -> InputStatistics:
        if self.method == "magnitude":
            return InputStatistics()
        return observe_inputs(model, work)
