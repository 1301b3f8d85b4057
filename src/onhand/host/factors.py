"""A model whose chosen matrices are products of two factors, by truncated decomposition."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, decoder_from_json
from onhand.host.calibrate import InputStatistics
from onhand.host.lowrank import Spectrum, whitening
from onhand.host.model import Model, ModelWeights

__all__ = ["factorise", "spectrum_of"]


def factorise(
    model: Model, ranks: Mapping[str, int], statistics: InputStatistics | None = None
) -> Model:
    """Replace matrices by their best approximation of a lower rank, as two factors each.

    The factors are kept in memory, in float32: they are smaller than what they replace wherever
    they are of use.

    Args:
        model: the source.
        ranks: name of a matrix (N, K) -> R, from 1 to min(N, K); not `embed` or `positions`.
        statistics: whole second moments of the matrices' inputs: what is least is then the error
            of the outputs; None for that of the weights.

    Returns:
        The model; it differs from the source by nothing but the factors.

    Raises:
        InputError: if a name or a rank cannot be.
        SourceError: if a weight is not finite.

    Source:
        C. Eckart and G. Young, The approximation of one matrix by another of lower rank,
        Psychometrika 1 (1936): the truncated singular value decomposition has the least error.
        With inputs known: SVD-LLM, arXiv:2403.07378.
    """
    decoder = decoder_from_json(model.decoder.to_json() | {"ranks": dict(ranks)})
    factors: dict[str, FloatArray] = {}
    for name, rank in ranks.items():
        left, right = spectrum_of(model, name, statistics).factors(rank)
        factors |= {f"{name}.left": left, f"{name}.right": right}
    return replace(model, weights=_FactorWeights(decoder, model.weights, factors))


def spectrum_of(model: Model, name: str, statistics: InputStatistics | None) -> Spectrum:
    """Take one matrix apart; see `factorise`.

    Args:
        model: the source.
        name: of the matrix.
        statistics: of its inputs; None where they do not count.

    Raises:
        SourceError: if its inputs' moments are not finite.
    """
    moments = None if statistics is None else statistics.second_moments(name)
    root = None if moments is None else whitening(moments)
    return Spectrum.of(model.weights.matrix(name), root)


@dataclass(frozen=True, slots=True)
class _FactorWeights:
    """See `ModelWeights`."""

    decoder: Decoder
    inner: ModelWeights
    factors: Mapping[str, FloatArray]

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.factors[name] if name in self.factors else self.inner.matrix(name)

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        if name in self.factors:
            return self.factors[name][start:stop]
        return self.inner.block(name, start, stop)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.vector(name)
