"""Matrices of a decoder become products of two thinner ones: fewer weights, a little error."""

import fnmatch
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.host.factors import factorise, spectrum_of
from onhand.host.model import Model
from onhand.host.passes.base import ShapeReport, ShapeWork
from onhand.host.passes.observed import STATISTICS, observe_inputs
from onhand.host.stored_model import write_model

__all__ = ["Factorize"]

# Products and statistics of the text; and, of n columns, a decomposition twice over.
_STATISTICS = 4
_DECOMPOSITION = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorize:
    """Store matrices as products of two thinner ones, where that loses least. See `ShapingPass`.

    Every matrix of the layers may take any rank; what loses the least of the outputs, as the
    calibration text moves them, for the weights that it saves goes first. The embedding, the
    positions and the head stay.

    Attributes:
        ratio: share of the layers' matrix weights that go.
        multiple: ranks are multiples of this: of what kernels and groups of codes like.
        most_lost: share of a matrix's outputs that may be lost, from 0 to 1.
        keep: patterns of names of matrices that stay whole, as "layers.0.*".
        ranks: matrix -> its rank, where these are known: no other matrix is changed then, and the
            options before do not count.

    Source:
        SVD-LLM, arXiv:2403.07378; unequal ranks as in `onhand.host.networks`.
    """

    name: ClassVar[str] = "factorize"

    ratio: float = 0.1
    multiple: int = 32
    most_lost: float = 0.5
    keep: tuple[str, ...] = field(default_factory=tuple)
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        keep: object = self.keep
        if not isinstance(keep, tuple | list) or not all(isinstance(item, str) for item in keep):
            raise InputError(f"keep is {keep!r}, must be a list of patterns")
        object.__setattr__(self, "keep", tuple(keep))
        ranks: object = self.ranks
        if not isinstance(ranks, Mapping) or not all(type(r) is int for r in ranks.values()):
            raise InputError(f"ranks is {ranks!r}, must be a table of matrices and their ranks")
        if not 0 < self.ratio < 1:
            raise InputError(f"ratio is {self.ratio}, must be a share: above 0.0, below 1")
        if not 0 <= self.most_lost <= 1:
            raise InputError(f"most_lost is {self.most_lost}, must be a share from 0 to 1")
        if self.multiple < 1:
            raise InputError(f"multiple is {self.multiple}, must be 1 or more")

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Say what would go, as if every matrix gave the same share. See `ShapingPass`.

        Raises:
            InputError: if a pattern fits no matrix, or none can become thinner.
        """
        for pattern in self.keep:
            if not fnmatch.filter(list(decoder.matrices()), pattern):
                raise InputError(f"keep: no matrix is called {pattern!r}")
        free = self._free(decoder)
        # Without a text every matrix is taken for one whose singular values fall evenly.
        curves = {
            name: [(1 - rank / min(shape)) ** 3 for rank in range(min(shape) + 1)]
            for name, shape in free.items()
        }
        ranks = self._chosen(free, curves, most_lost=1.0) if free else {}
        if not ranks:
            raise InputError(
                f"no matrix saves weights as a product of a rank that is a multiple of "
                f"{self.multiple}"
            )
        n = sum(a * b for a, b in free.values())
        decompositions = sum(max(s) * min(s) ** 2 for s in free.values())
        kept = dict.fromkeys(self.keep, "kept by this pattern")
        return ShapeReport(
            decoder=replace(decoder, ranks={**decoder.ranks, **ranks}),
            operations=float(tokens) * n * _STATISTICS + _DECOMPOSITION * float(decompositions),
            memory_bytes=8 * 6 * max(max(s) ** 2 for s in free.values()),
            kept=kept,
        )

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Choose ranks by the text, and write the factors. See `ShapingPass`.

        Raises:
            InputError: if nothing may go.
        """
        free = self._free(model.decoder)
        statistics = observe_inputs(model, work)
        work.progress.start("taking matrices apart", 2 * len(free))
        curves: dict[str, Sequence[float]] = {}
        for name in free:
            curves[name] = spectrum_of(model, name, statistics).lost().tolist()
            work.progress.advance(1)
        ranks = self._chosen(free, curves, most_lost=self.most_lost)
        if not ranks:
            raise InputError(
                f"factorize: no matrix saves weights and loses at most {self.most_lost} of its "
                "outputs: raise most_lost, or leave the step out"
            )
        made = factorise(model, {**model.decoder.ranks, **ranks}, statistics)
        stored = write_model(work.folder, made)
        work.progress.advance(len(free))
        shutil.rmtree(work.folder / STATISTICS, ignore_errors=True)
        return stored

    def _free(self, decoder: Decoder) -> dict[str, tuple[int, int]]:
        """Return the matrices that may become products: name -> (N, K).

        Raises:
            InputError: if some are products already.
        """
        if decoder.ranks:
            raise InputError("the model's matrices are products of factors already")
        if odd := sorted(self.ranks.keys() - decoder.matrices().keys()):
            raise InputError(f"ranks: no matrix is called {odd[0]!r}")
        return {
            name: shape
            for name, shape in decoder.matrices().items()
            if (name in self.ranks if self.ranks else name.startswith("layers."))
            and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.keep)
        }

    def _chosen(
        self,
        shapes: Mapping[str, tuple[int, int]],
        curves: Mapping[str, Sequence[float]],
        *,
        most_lost: float,
    ) -> dict[str, int]:
        """Return the ranks of what becomes thinner.

        Args:
            shapes: of each matrix, (N, K).
            curves: share of its outputs that ranks 0, 1, 2, ... lose.
            most_lost: of one matrix.
        """
        if self.ranks:
            return dict(self.ranks)
        budget = self.ratio * sum(n * k for n, k in shapes.values())
        steps: list[tuple[float, int, str, int, int]] = []
        for name, (n, k) in shapes.items():
            front = _front(n, k, curves[name], self.multiple, most_lost)
            for at, (before, after) in enumerate(pairwise(front)):
                saved = before[0] - after[0]
                steps.append(((after[1] - before[1]) / saved, at, name, after[2], saved))
        ranks: dict[str, int] = {}
        for _, _, name, rank, saved in sorted(steps):
            if budget <= 0:
                break
            ranks[name] = rank
            budget -= saved
        return ranks


def _front(
    n: int, k: int, lost: Sequence[float], multiple: int, most_lost: float
) -> list[tuple[int, float, int]]:
    """Return (weights, what is lost, rank), the whole matrix first, each step worth less."""
    points = [(n * k, 0.0, 0)]
    highest = (n * k - 1) // (n + k) // multiple * multiple
    for rank in range(highest, 0, -multiple):
        if lost[rank] > most_lost:
            break
        # Of a matrix of which half is lost already, each further part is worth more.
        point = (rank * (n + k), -math.log(max(1 - lost[rank], 1e-9)), rank)
        while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(points[-1], point):
            points.pop()
        points.append(point)
    return points


def _slope(before: tuple[int, float, int], after: tuple[int, float, int]) -> float:
    return (after[1] - before[1]) / (before[0] - after[0])
