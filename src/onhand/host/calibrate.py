"""One pass over the original, a layer at a time: input statistics, and its own answers.

Only one layer's weights are in memory at once, so a model larger than memory can be calibrated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import SourceError
from onhand.core.progress import Progress
from onhand.device.engines import forward
from onhand.host.model import Model, ModelWeights

__all__ = ["InputStatistics", "OriginalRun", "head_logits", "run_original"]

# Rows of the head read at once: bounds its float32 copy.
_HEAD_ROWS = 16384


@dataclass(slots=True)
class InputStatistics:
    """Second moments of each matrix's inputs, summed over tokens, within blocks of inputs.

    Attributes:
        block: inputs of one block: the largest group size there is.
        products: matrix name -> (blocks, block, block) float32 sums of x x^T; the last block is
            padded with zeros.
        n_tokens: tokens seen.
    """

    block: int = 128
    products: dict[str, FloatArray] = field(default_factory=dict)
    n_tokens: int = 0

    def observe(self, name: str, inputs: FloatArray) -> None:
        """Add a matrix's inputs, (T, K)."""
        T, K = inputs.shape
        blocks = -(-K // self.block)
        padded = np.pad(inputs, ((0, 0), (0, blocks * self.block - K)))
        columns = padded.reshape(T, blocks, self.block).transpose(1, 2, 0)  # (blocks, block, T)
        total = columns @ columns.transpose(0, 2, 1)  # (blocks, block, block)
        if name in self.products:
            self.products[name] += total
        else:
            self.products[name] = total

    def moments(self, name: str, group_size: int, n_inputs: int) -> FloatArray | None:
        """Return the mean second moments of each group of a matrix's inputs.

        Args:
            name: the matrix.
            group_size: divides `block`.
            n_inputs: K.

        Returns:
            (G, group_size, group_size) float32, or None if the matrix was not observed.
        """
        total = self.products.get(name)
        if total is None or not self.n_tokens:
            return None
        inside = self.block // group_size
        split = total.reshape(-1, inside, group_size, inside, group_size)
        groups = np.einsum("biuiv->biuv", split).reshape(-1, group_size, group_size)
        mean: FloatArray = groups[: -(-n_inputs // group_size)] / np.float32(self.n_tokens)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalRun:
    """What one run of the original gave.

    Attributes:
        statistics: of the calibration sequences.
        hidden: the head's inputs for each held-out sequence, (T, D) float32.
    """

    statistics: InputStatistics
    hidden: list[FloatArray]


class _OneLayer:
    """A source's weights that keeps the matrices of the layer at hand. See `forward.Weights`."""

    def __init__(self, inner: ModelWeights) -> None:
        self._inner = inner
        self._kept: dict[str, FloatArray] = {}
        self._layer = ""

    @property
    def decoder(self) -> Decoder:
        """See `forward.Weights`."""
        return self._inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `forward.Weights`."""
        layer = name.rpartition(".")[0]
        if layer != self._layer:
            self._kept, self._layer = {}, layer
        if name not in self._kept:
            self._kept[name] = self._inner.matrix(name)
        return self._kept[name]

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `forward.Weights`."""
        return self._inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `forward.Weights`."""
        return self._inner.vector(name)


def run_original(
    model: Model,
    *,
    calibration: Sequence[TokenArray],
    heldout: Sequence[TokenArray],
    threads: int | None = None,
    progress: Progress,
) -> OriginalRun:
    """Run the original over both texts, layer by layer.

    Args:
        model: the source.
        calibration: token sequences for the statistics; may be empty.
        heldout: token sequences for the original's answers; may be empty.
        threads: threads to use; None for as many as numpy takes by itself.
        progress: told of every layer.

    Returns:
        Statistics and held-out hidden states.

    Raises:
        SourceError: if the model's numbers overflow on the way.
    """
    from threadpoolctl import threadpool_limits

    decoder = model.decoder
    weights = _OneLayer(model.weights)
    statistics = InputStatistics(n_tokens=sum(tokens.size for tokens in calibration))
    sequences = [*calibration, *heldout]
    streams = [forward.embed(weights, tokens) for tokens in sequences]  # (T, D) each
    longest = max((tokens.size for tokens in sequences), default=0)
    tables = forward.RopeCache(decoder, longest)
    progress.start("running the original", max(len(decoder.layers) * len(sequences), 1))
    # Overflows are judged after each layer, not warned of on the way.
    with threadpool_limits(threads), np.errstate(over="ignore", invalid="ignore"):
        for i, layer in enumerate(decoder.layers):
            for number, x in enumerate(streams):
                memory = forward.LayerMemory.empty(layer, x.shape[0])
                observe = statistics.observe if number < len(calibration) else _ignore
                streams[number] = forward.run_layer(
                    weights,
                    i,
                    x,
                    memory,
                    start=0,
                    rope=tables.tables(i, x.shape[0]),
                    observe=observe,
                )
                if not np.isfinite(streams[number]).all():
                    raise SourceError(f"{model.location}: layer {i} gives a NaN or an infinity")
                progress.advance(1)
    hidden = [forward.final_hidden(weights, x) for x in streams]
    head = "embed" if decoder.tied else "head"
    for x in hidden[: len(calibration)]:
        statistics.observe(head, x)
    return OriginalRun(statistics=statistics, hidden=hidden[len(calibration) :])


def _ignore(name: str, inputs: FloatArray) -> None:
    pass


def head_logits(model: Model) -> Callable[[FloatArray], FloatArray]:
    """Return a function that applies the original's head to hidden rows: (T, D) -> (T, V)."""
    decoder = model.decoder
    name = "embed" if decoder.tied else "head"

    def apply(hidden: FloatArray) -> FloatArray:
        scores = np.empty((hidden.shape[0], decoder.vocab_size), dtype=np.float32)
        for low in range(0, decoder.vocab_size, _HEAD_ROWS):
            high = min(low + _HEAD_ROWS, decoder.vocab_size)
            scores[:, low:high] = hidden @ model.weights.block(name, low, high).T
        return forward.soft_cap(scores, decoder.logit_softcap)

    return apply
