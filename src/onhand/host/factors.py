"""A model whose chosen matrices are products of two factors, by truncated decomposition."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, decoder_from_json
from onhand.host.model import Model, ModelWeights

__all__ = ["factorise"]


def factorise(model: Model, ranks: Mapping[str, int]) -> Model:
    """Replace matrices by their best approximation of a lower rank, as two factors each.

    The factors are kept in memory, in float32: they are smaller than what they replace wherever
    they are of use.

    Args:
        model: the source.
        ranks: name of a matrix (N, K) -> R, from 1 to min(N, K); not `embed` or `positions`.

    Returns:
        The model; it differs from the source by nothing but the factors.

    Raises:
        InputError: if a name or a rank cannot be.
        SourceError: if a weight is not finite.

    Source:
        C. Eckart and G. Young, The approximation of one matrix by another of lower rank,
        Psychometrika 1 (1936): the truncated singular value decomposition has the least error.
    """
    decoder = decoder_from_json(model.decoder.to_json() | {"ranks": dict(ranks)})
    factors: dict[str, FloatArray] = {}
    for name, rank in ranks.items():
        left, right = _decomposed(model.weights.matrix(name), rank)
        factors |= {f"{name}.left": left, f"{name}.right": right}
    return replace(model, weights=_FactorWeights(decoder, model.weights, factors))


def _decomposed(weight: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """Return (N, R) and (R, K); each takes the root of the singular values, so both round alike."""
    left, values, right = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    roots = np.sqrt(values[:rank])
    return (
        (left[:, :rank] * roots).astype(np.float32),
        (right[:rank] * roots[:, None]).astype(np.float32),
    )


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
