"""What a model loses when single matrices change: measured, many trials in one run.

All trials travel through the layers together: a trial follows the original up to the layer that
its first changed matrix is in, and has a stream of its own from there on. So the weights are read
once, and what comes before a change is computed once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.progress import Progress
from onhand.device.engines import forward
from onhand.host.calibrate import head_logits
from onhand.host.compare import log_softmax
from onhand.host.model import Model, ModelWeights

__all__ = ["ChangedWeights", "Trial", "TrialLoss", "run_trials"]

# Streams of all trials at once, in bytes; more trials than fit take several runs.
_STREAM_BYTES = 400 * 2**20
# The original's answers are kept for all trials if they take no more.
_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Trial:
    """One changed model.

    Attributes:
        matrices: name of each changed matrix -> what reads it, (N, K) float32.
    """

    matrices: Mapping[str, Callable[[], FloatArray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLoss:
    """What a changed model loses on a text.

    Attributes:
        divergence: mean KL(original || changed) of the next token's distribution, in nats.
        loss_increase: mean increase of the negative log likelihood of what came, in nats.
    """

    divergence: float
    loss_increase: float


@dataclass(frozen=True, slots=True)
class ChangedWeights:
    """A model's weights with some matrices in place of its own. See `ModelWeights`.

    Attributes:
        inner: the model's.
        changed: matrix name -> (N, K) float32.
    """

    inner: ModelWeights
    changed: Mapping[str, FloatArray]

    @property
    def decoder(self) -> Decoder:
        """See `ModelWeights`."""
        return self.inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.changed[name] if name in self.changed else self.inner.matrix(name)

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        if name in self.changed:
            return self.changed[name][start:stop]
        return self.inner.block(name, start, stop)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.changed[name][ids] if name in self.changed else self.inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.vector(name)


def run_trials(
    model: Model,
    trials: Sequence[Trial],
    sequences: Sequence[TokenArray],
    *,
    threads: int,
    progress: Progress,
    what: str = "measuring what layers lose",
) -> list[TrialLoss]:
    """Run changed models over a text beside the original.

    Args:
        model: the original.
        trials: what is changed in each.
        sequences: (T,) int64 each.
        threads: threads to use.
        progress: told of every trial and layer.
        what: name of the stage, for people.

    Returns:
        One loss for each trial, in order.
    """
    from threadpoolctl import threadpool_limits

    n_tokens = sum(tokens.size for tokens in sequences)
    at_once = max(_STREAM_BYTES // max(4 * n_tokens * model.decoder.width, 1), 1)
    # Trials that begin late are cheap together with others that do.
    order = sorted(range(len(trials)), key=lambda i: (_begins(trials[i], model.decoder), i))
    progress.start(what, max(len(trials), 1))
    found: dict[int, TrialLoss] = {}
    with threadpool_limits(threads), np.errstate(over="ignore", invalid="ignore"):
        for low in range(0, len(order), at_once):
            chosen = order[low : low + at_once]
            losses = _run(model, [trials[i] for i in chosen], sequences, progress)
            found |= dict(zip(chosen, losses, strict=True))
    return [found[i] for i in range(len(trials))]


def _layer(name: str) -> int | None:
    """Return the layer that a matrix is in; None for the embedding and the head."""
    first, _, rest = name.partition(".")
    return int(rest.split(".")[0]) if first == "layers" else None


def _begins(trial: Trial, decoder: Decoder) -> int:
    """Return the layer from which on a trial differs: -1 from the start, as many as there are."""
    heads = set(decoder.factors(decoder.head)) - {"embed"}
    places = [
        len(decoder.layers) if name in heads else -1 if (at := _layer(name)) is None else at
        for name in trial.matrices
    ]
    return min(places, default=len(decoder.layers))


class _LayerOnce:
    """Keeps the matrices of the layer at hand, which all trials read. See `ModelWeights`."""

    def __init__(self, inner: ModelWeights) -> None:
        self._inner = inner
        self._kept: dict[str, FloatArray] = {}
        self.decoder = inner.decoder

    def forget(self) -> None:
        """Let go of what was kept."""
        self._kept = {}

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        if name not in self._kept:
            self._kept[name] = self._inner.matrix(name)
        return self._kept[name]

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        return self._inner.block(name, start, stop)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self._inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self._inner.vector(name)


def _run(
    model: Model, trials: Sequence[Trial], sequences: Sequence[TokenArray], progress: Progress
) -> list[TrialLoss]:
    """Run some trials beside each other."""
    decoder = model.decoder
    weights = _LayerOnce(model.weights)
    ropes = forward.RopeCache(decoder, max(tokens.size for tokens in sequences))
    begins = [_begins(trial, decoder) for trial in trials]
    original = [forward.embed(weights, tokens) for tokens in sequences]  # (T, D) each
    streams: list[list[FloatArray]] = [original for _ in trials]
    for number, trial in enumerate(trials):
        if begins[number] < 0:
            changed = ChangedWeights(weights, _dense(trial, lambda name: _layer(name) is None))
            streams[number] = [forward.embed(changed, tokens) for tokens in sequences]
    for i in range(len(decoder.layers)):
        weights.forget()
        before = original
        original = _through(weights, i, before, ropes)
        for number, trial in enumerate(trials):
            if begins[number] > i:
                continue
            here = _dense(trial, lambda name, i=i: _layer(name) == i)  # type: ignore[misc]
            source = before if begins[number] == i else streams[number]
            streams[number] = _through(ChangedWeights(weights, here), i, source, ropes)
            progress.advance(1 / (len(decoder.layers) + 1))
    weights.forget()
    ends = [
        original if begin >= len(decoder.layers) else stream
        for begin, stream in zip(begins, streams, strict=True)
    ]
    return list(_judged(model, trials, sequences, original, ends, progress))


def _judged(
    model: Model,
    trials: Sequence[Trial],
    sequences: Sequence[TokenArray],
    original: Sequence[FloatArray],
    ends: Sequence[Sequence[FloatArray]],
    progress: Progress,
) -> Iterator[TrialLoss]:
    """Yield what each trial lost."""
    theirs = _Answers(model, original)
    for trial, stream in zip(trials, ends, strict=True):
        changed = ChangedWeights(model.weights, _dense(trial, lambda name: _layer(name) is None))
        ours = _Answers(replace(model, weights=changed), stream)
        sums, n_tokens = np.zeros(2), 0
        for number, tokens in enumerate(sequences):
            first, second = theirs.scores(number), ours.scores(number)  # (T - 1, V) each
            rows, targets = np.arange(tokens.size - 1), tokens[1:]
            gap = first - second
            sums += (
                float(np.einsum("tv,tv->", np.exp(first), gap, dtype=np.float64)),
                float(gap[rows, targets].sum(dtype=np.float64)),
            )
            n_tokens += rows.size
        progress.advance(1 / (len(model.decoder.layers) + 1))
        divergence, increase = sums / max(n_tokens, 1)
        # Numbers beyond float32 are a loss without bound, not a missing one.
        yield TrialLoss(
            divergence=max(float(divergence), 0.0) if np.isfinite(divergence) else float("inf"),
            loss_increase=float(increase) if np.isfinite(increase) else float("inf"),
        )


class _Answers:
    """A model's logarithms of probabilities for each sequence; kept if they are few."""

    def __init__(self, model: Model, streams: Sequence[FloatArray]) -> None:
        self._hidden = [forward.final_hidden(model.weights, x) for x in streams]
        self._head = head_logits(model)
        n_tokens = sum(len(x) for x in streams)
        self._keeps = 4 * n_tokens * model.decoder.vocab_size <= _KEPT_BYTES
        self._kept: dict[int, FloatArray] = {}

    def scores(self, number: int) -> FloatArray:
        """Return those of a sequence, but for what comes after its last token: (T - 1, V)."""
        if (found := self._kept.get(number)) is not None:
            return found
        found = log_softmax(self._head(self._hidden[number][:-1]))
        if self._keeps:
            self._kept[number] = found
        return found


def _dense(trial: Trial, wanted: Callable[[str], bool]) -> dict[str, FloatArray]:
    return {name: read() for name, read in trial.matrices.items() if wanted(name)}


def _through(
    weights: ModelWeights, i: int, streams: Sequence[FloatArray], ropes: forward.RopeCache
) -> list[FloatArray]:
    """Run a layer over every sequence: (T, D) each."""
    layer = weights.decoder.layers[i]
    return [
        forward.run_layer(
            weights,
            i,
            x,
            forward.LayerMemory.empty(layer, x.shape[0]),
            start=0,
            rope=ropes.tables(i, x.shape[0]),
        )
        for x in streams
    ]
