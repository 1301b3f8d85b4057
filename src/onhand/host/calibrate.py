"""One pass over the original, a layer at a time: input statistics, and its own answers.

Only one layer's weights are in memory at once, so a model larger than memory can be calibrated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import ResourceError, SourceError
from onhand.core.progress import Progress
from onhand.device.engines import forward
from onhand.host.array_files import damage, read_arrays, write_arrays
from onhand.host.model import Model, ModelWeights

__all__ = ["InputStatistics", "OriginalRun", "has_run", "head_logits", "run_original"]

# Rows of the head read at once: bounds its float32 copy.
_HEAD_ROWS = 16384
_STREAMS = "streams.npz"


@dataclass(slots=True)
class InputStatistics:
    """Second moments of each matrix's inputs, summed over tokens: one pass serves all methods.

    Attributes:
        block: inputs of one block: the largest group size there is.
        whole: whether the moments of all pairs of inputs are kept, not only those within a block.
        folder: where `settle` keeps finished moments; None for memory.
        products: matrix name -> float32 sums of x x^T: (K, K) if `whole`, else (blocks, block,
            block), the last block padded with zeros; or the file that holds them. Files are read
            anew each time: mapped, all of them would count as this process's memory.
        n_tokens: tokens seen.
        divisors: matrix name -> (K,) numbers by which its inputs were divided since they were
            observed; only if `whole`.
    """

    block: int = 128
    whole: bool = False
    folder: Path | None = None
    products: dict[str, FloatArray | Path] = field(default_factory=dict)
    n_tokens: int = 0
    divisors: dict[str, FloatArray] = field(default_factory=dict)

    def observe(self, name: str, inputs: FloatArray) -> None:
        """Add a matrix's inputs, (T, K)."""
        if self.whole:
            self._add(name, inputs.T @ inputs)
            return
        T, K = inputs.shape
        blocks = -(-K // self.block)
        padded = np.pad(inputs, ((0, 0), (0, blocks * self.block - K)))
        columns = padded.reshape(T, blocks, self.block).transpose(1, 2, 0)  # (blocks, block, T)
        self._add(name, columns @ columns.transpose(0, 2, 1))  # (blocks, block, block)

    def _add(self, name: str, total: FloatArray) -> None:
        found = self._total(name)
        if found is not None:
            found += total
            total = found
        self.products[name] = total

    def settle(self) -> None:
        """Move what was observed so far from memory to the folder, if there is one."""
        if self.folder is None:
            return
        for name, total in self.products.items():
            if isinstance(total, Path):
                continue
            place = self.folder / f"{name}.npy"
            beside = place.with_suffix(".new")
            with beside.open("wb") as file:
                np.save(file, total)
            beside.replace(place)
            self.products[name] = place

    def _total(self, name: str) -> FloatArray | None:
        found = self.products.get(name)
        if not isinstance(found, Path):
            return found
        try:
            total: FloatArray = np.load(found)
        except (OSError, ValueError) as error:
            raise ResourceError(damage(found)) from error
        return total

    def second_moments(self, name: str) -> FloatArray | None:
        """Return the mean second moments of all of a matrix's inputs.

        Args:
            name: the matrix.

        Returns:
            (K, K) float32, or None if the matrix was not observed or `whole` is False.
        """
        total = self._total(name)
        if total is None or not self.n_tokens or not self.whole:
            return None
        mean: FloatArray = total / np.float32(self.n_tokens)
        if (divisor := self.divisors.get(name)) is not None:
            mean = mean / (divisor[:, None] * divisor)
        return mean

    def moments(self, name: str, group_size: int, n_inputs: int) -> FloatArray | None:
        """Return the mean second moments of each group of a matrix's inputs.

        Args:
            name: the matrix.
            group_size: divides `block`.
            n_inputs: K.

        Returns:
            (G, group_size, group_size) float32, or None if the matrix was not observed.
        """
        if (whole := self.second_moments(name)) is not None:
            return _groups(whole, group_size)
        total = self._total(name)
        if total is None or not self.n_tokens:
            return None
        inside = self.block // group_size
        split = total.reshape(-1, inside, group_size, inside, group_size)
        groups = np.einsum("biuiv->biuv", split).reshape(-1, group_size, group_size)
        mean: FloatArray = groups[: -(-n_inputs // group_size)] / np.float32(self.n_tokens)
        return mean


def _groups(whole: FloatArray, group_size: int) -> FloatArray:
    """Return the blocks on the diagonal: (K, K) -> (G, g, g), the last one padded with zeros."""
    starts = range(0, len(whole), group_size)
    found = np.zeros((len(starts), group_size, group_size), dtype=np.float32)
    for group, start in enumerate(starts):
        part = whole[start : start + group_size, start : start + group_size]
        found[group, : len(part), : len(part)] = part
    return found


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
        self._layer: list[str] = []

    @property
    def decoder(self) -> Decoder:
        """See `forward.Weights`."""
        return self._inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `forward.Weights`."""
        layer = name.split(".")[:2]
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
    whole: bool = False,
    folder: Path | None = None,
) -> OriginalRun:
    """Run the original over both texts, layer by layer.

    Args:
        model: the source.
        calibration: token sequences for the statistics; may be empty.
        heldout: token sequences for the original's answers; may be empty.
        threads: threads to use; None for as many as numpy takes by itself.
        progress: told of every layer.
        whole: see `InputStatistics`.
        folder: keeps what is finished of the run, for one that goes on from there; None for
            memory.

    Returns:
        Statistics and held-out hidden states.

    Raises:
        SourceError: if the model's numbers overflow on the way.
    """
    from threadpoolctl import threadpool_limits

    decoder, weights = model.decoder, _OneLayer(model.weights)
    statistics = InputStatistics(
        n_tokens=sum(tokens.size for tokens in calibration), whole=whole, folder=folder
    )
    sequences = [*calibration, *heldout]
    first, streams = _restored(folder, statistics)
    streams = streams or [forward.embed(weights, tokens) for tokens in sequences]  # (T, D) each
    tables = forward.RopeCache(decoder, max((tokens.size for tokens in sequences), default=0))
    if sequences:
        progress.start("running the original", len(decoder.layers) * len(sequences))
    # Overflows are judged after each layer, not warned of on the way.
    with threadpool_limits(threads), np.errstate(over="ignore", invalid="ignore"):
        if first:
            progress.advance(first * len(sequences))
        for i, layer in islice(enumerate(decoder.layers), first, None):
            for number, x in enumerate(streams):
                memory = forward.LayerMemory.empty(layer, x.shape[0])
                observe = statistics.observe if number < len(calibration) else _ignore
                rope = tables.tables(i, x.shape[0])
                streams[number] = forward.run_layer(
                    weights, i, x, memory, start=0, rope=rope, observe=observe
                )
                if not np.isfinite(streams[number]).all():
                    raise SourceError(f"{model.location}: layer {i} gives a NaN or an infinity")
                progress.advance(1)
            _keep(folder, statistics, i + 1, streams)
    hidden = [forward.final_hidden(weights, x) for x in streams]
    _observe_head(weights, hidden[: len(calibration)], statistics)
    return OriginalRun(statistics=statistics, hidden=hidden[len(calibration) :])


def _observe_head(
    weights: _OneLayer, hidden: list[FloatArray], statistics: InputStatistics
) -> None:
    head = weights.decoder.head
    for x in hidden:
        last, inputs = forward.before_last(weights, head, x, observe=statistics.observe)
        statistics.observe(last, inputs)
    statistics.settle()


def _ignore(name: str, inputs: FloatArray) -> None:
    pass


def has_run(folder: Path) -> bool:
    """Say whether a folder keeps a finished layer of `run_original`."""
    return (folder / _STREAMS).exists()


def _keep(
    folder: Path | None, statistics: InputStatistics, n_layers: int, streams: list[FloatArray]
) -> None:
    """Keep the statistics of the layers that were run, then the states that the next one takes."""
    if folder is not None:
        statistics.settle()
        arrays = {str(number): x for number, x in enumerate(streams)}
        write_arrays(folder / _STREAMS, arrays, {"n_layers": n_layers})


def _restored(folder: Path | None, statistics: InputStatistics) -> tuple[int, list[FloatArray]]:
    """Return how many layers were run before, and the states after the last of them.

    Raises:
        ResourceError: if a kept file is damaged.
    """
    if folder is None or not has_run(folder):
        return 0, []
    arrays, about = read_arrays(folder / _STREAMS)
    n_layers = int(about["n_layers"])
    for place in folder.glob("layers.*.npy"):
        # What was only begun is observed again.
        if int(place.name.split(".")[1]) < n_layers:
            try:
                np.load(place, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise ResourceError(damage(place)) from error
            statistics.products[place.name.removesuffix(".npy")] = place
    return n_layers, [arrays[str(number)] for number in range(len(arrays))]


def head_logits(model: Model) -> Callable[[FloatArray], FloatArray]:
    """Return a function that applies the original's head to hidden rows: (T, D) -> (T, V)."""
    decoder = model.decoder
    name = decoder.head

    def apply(hidden: FloatArray) -> FloatArray:
        last, hidden = forward.before_last(model.weights, name, hidden)
        scores = np.empty((hidden.shape[0], decoder.vocab_size), dtype=np.float32)
        for low in range(0, decoder.vocab_size, _HEAD_ROWS):
            high = min(low + _HEAD_ROWS, decoder.vocab_size)
            scores[:, low:high] = hidden @ model.weights.block(last, low, high).T
        return forward.soft_cap(scores, decoder.logit_softcap)

    return apply
