"""Inputs scaled so that what matters most rounds best: the model computes the same as before.

Each input channel of a matrix is multiplied by a factor, and what gives that input is divided by
it: the norm in front, or the rows of the matrix before. Nothing changes but what rounding loses.

Source:
    AWQ, arXiv:2306.00978: factors s_j = x_j^a / w_j^(1 - a), normalised by sqrt(max * min), with
    x_j the size of input j and w_j that of its weights, a searched on a grid. Here x_j is the root
    mean square, and the loss of each a is taken from the second moments, tr(D H D^T), with no
    further run of the model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model, ModelWeights
from onhand.host.rounding import round_matrix

__all__ = ["scale_inputs"]

_GRID = np.linspace(0.0, 1.0, 21)
# Rows that stand for all of a matrix when factors are compared.
_SAMPLE_ROWS = 512
_EXTREME = 1e4


def scale_inputs(
    model: Model,
    statistics: InputStatistics,
    formats: Mapping[str, GroupFormat | None],
    *,
    advance: Callable[[float], None],
) -> tuple[Model, InputStatistics]:
    """Scale the inputs of every matrix that has something in front of it to take the factor.

    Args:
        model: the source.
        statistics: whole second moments of the calibration text.
        formats: how each matrix will be stored; None leaves its inputs alone.
        advance: told the number of matrices looked at since the last call.

    Returns:
        A model that computes the same function, and the statistics of its inputs.
    """
    scaled = _Scaled(model.weights)
    divisors: dict[str, FloatArray] = {}
    for join in _joins(model.decoder):
        form, second = formats[join.target], statistics.second_moments(join.target)
        if form is not None and second is not None:
            factors = _searched(model.weights, join, second, form)
            if factors is not None:
                scaled.add(join, factors)
                divisors[join.target] = join.spread(factors)
        advance(1)
    return replace(model, weights=scaled), replace(statistics, divisors=divisors)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join:
    """A matrix, and what gives its inputs.

    Attributes:
        target: the matrix whose inputs are scaled.
        vectors: norms and biases that give the inputs: name -> first element that does.
        rows: the matrix whose rows give the inputs, and the first of these rows; or None.
        n_factors: how many factors there are.
        repeats: (head_dim, query heads that share one key head) if an input is used by several
            columns of the target, as values are; None if each has its own.
    """

    target: str
    vectors: Mapping[str, int]
    rows: tuple[str, int] | None
    n_factors: int
    repeats: tuple[int, int] | None = None

    def spread(self, factors: FloatArray) -> FloatArray:
        """Return one factor for each column of the target."""
        if self.repeats is None:
            return factors
        head_dim, shared = self.repeats
        heads = factors.reshape(-1, 1, head_dim)
        return np.repeat(heads, shared, axis=1).reshape(-1)

    def gather(self, columns: FloatArray, how: Callable[..., FloatArray]) -> FloatArray:
        """Combine what belongs to one factor: (K,) -> (n_factors,)."""
        if self.repeats is None:
            return columns
        head_dim, shared = self.repeats
        return how(columns.reshape(-1, shared, head_dim), axis=1).reshape(-1)


def _joins(decoder: Decoder) -> Iterator[_Join]:
    """Yield every matrix of which the inputs can be scaled."""
    known = decoder.vectors()

    def first_of(name: str) -> str:
        return decoder.factors(name)[0]

    def norm(name: str) -> dict[str, int]:
        return {vector: 0 for vector in (name, f"{name}_bias") if vector in known}

    for i, layer in enumerate(decoder.layers):
        at = f"layers.{i}."
        yield _Join(
            target=first_of(f"{at}qkv"),
            vectors=norm(f"{at}attention_norm"),
            rows=None,
            n_factors=decoder.width,
        )
        first = layer.query_width + layer.kv_width
        yield _Join(
            target=first_of(f"{at}out"),
            vectors={f"{at}qkv_bias": first} if decoder.qkv_bias else {},
            rows=(decoder.factors(f"{at}qkv")[-1], first),
            n_factors=layer.kv_width,
            repeats=(layer.head_dim, layer.n_heads // layer.n_kv_heads),
        )
        inner = f"{at}{decoder.inner}"
        yield _Join(
            target=first_of(inner),
            vectors=norm(f"{at}mlp_norm"),
            rows=None,
            n_factors=decoder.width,
        )
        if decoder.gated:
            # The second half of the rows is multiplied with the activated first half.
            half = layer.mlp_width
            yield _Join(
                target=first_of(f"{at}down"),
                vectors={f"{inner}_bias": half} if decoder.mlp_bias else {},
                rows=(decoder.factors(inner)[-1], half),
                n_factors=half,
            )
    if not decoder.tied:
        yield _Join(
            target=first_of("head"), vectors=norm("final_norm"), rows=None, n_factors=decoder.width
        )


def _searched(
    weights: ModelWeights, join: _Join, moments: FloatArray, form: GroupFormat
) -> FloatArray | None:
    """Return the factors that lose least when rounded plainly, or None for none at all."""
    n = weights.decoder.matrices()[join.target][0]
    places = range(0, n, -(-n // _SAMPLE_ROWS))
    sample = np.concatenate([weights.block(join.target, row, row + 1) for row in places])  # (S, K)
    energy = np.sqrt(np.maximum(np.diagonal(moments), 0))  # (K,)
    x = join.gather(energy, np.mean) + 1e-12
    w = join.gather(np.abs(sample).mean(axis=0), np.mean) + 1e-12
    best, least = None, _lost(sample, np.ones_like(energy), moments, form)
    for a in _GRID:
        factors = x**a / w ** (1 - a)
        factors /= np.sqrt(factors.max() * factors.min())
        factors = np.clip(factors, 1 / _EXTREME, _EXTREME).astype(np.float32)
        lost = _lost(sample, join.spread(factors), moments, form)
        if lost < least:
            best, least = factors, lost
    return best


def _lost(sample: FloatArray, columns: FloatArray, moments: FloatArray, form: GroupFormat) -> float:
    rounded = round_matrix(sample * columns, form, method="rtn").tensor.dequantize()
    difference = rounded / columns - sample
    return float(np.einsum("nk,nk->", difference @ moments, difference, dtype=np.float64))


class _Scaled:
    """A source's weights with some inputs scaled. See `ModelWeights`."""

    def __init__(self, inner: ModelWeights) -> None:
        self._inner = inner
        self._columns: dict[str, FloatArray] = {}
        self._divisors: dict[str, FloatArray] = {}

    def add(self, join: _Join, factors: FloatArray) -> None:
        """Scale the inputs of one matrix, and what gives them."""
        self._columns[join.target] = join.spread(factors)
        known = self.decoder.vectors()
        for name, first in join.vectors.items():
            self._divide(name, known[name][0], first, factors)
        if join.rows is not None:
            name, first = join.rows
            self._divide(name, self.decoder.matrices()[name][0], first, factors)

    def _divide(self, name: str, size: int, first: int, factors: FloatArray) -> None:
        divisors = self._divisors.setdefault(name, np.ones(size, dtype=np.float32))
        divisors[first : first + len(factors)] *= factors

    @property
    def decoder(self) -> Decoder:
        """See `ModelWeights`."""
        return self._inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.block(name, 0, self.decoder.matrices()[name][0])

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        found = self._inner.block(name, start, stop)
        if name in self._columns:
            found = found * self._columns[name]
        if name in self._divisors:
            found = found / self._divisors[name][start:stop, None]
        return found

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`. Matrices that are looked up are never scaled."""
        return self._inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        found = self._inner.vector(name)
        return found / self._divisors[name] if name in self._divisors else found
