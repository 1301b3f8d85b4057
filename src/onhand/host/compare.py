"""The compressed model beside the original on held-out text, in the engine that ships.

Source:
    KL divergence and top-1 agreement as in llama.cpp's `perplexity --kl-divergence`. Flips:
    arXiv:2407.09141, here of the next token. Intervals: block bootstrap (Kuensch 1989), because
    neighbouring tokens are not independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import EngineError
from onhand.core.measurement import Measurement, Unit
from onhand.core.progress import Progress
from onhand.device.engines.base import Loaded

__all__ = ["TokenFigures", "compare_states", "compare_tokens", "log_softmax", "quality_figures"]

_ROWS = 128
_BLOCK = 32
_RESAMPLES = 1000
_SEED = 20260101


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures:
    """One figure for each predicted token, (M,) float64 each.

    Attributes:
        original_loss: -log p of the token that came, by the original.
        loss: the same, by the compressed model.
        divergence: KL(original || compressed) of the whole distribution, in nats.
        agrees: 1 where both have the same likeliest token.
        flips: 1 where one of them finds the token that came likeliest, and the other does not.
    """

    original_loss: NDArray[np.float64]
    loss: NDArray[np.float64]
    divergence: NDArray[np.float64]
    agrees: NDArray[np.float64]
    flips: NDArray[np.float64]


def compare_tokens(
    loaded: Loaded,
    sequences: Sequence[TokenArray],
    hidden: Sequence[FloatArray],
    head: Callable[[FloatArray], FloatArray],
    *,
    progress: Progress,
    what: str,
) -> TokenFigures:
    """Run the compressed model over the sequences and compare every distribution.

    Args:
        loaded: the compressed model, opened.
        sequences: held-out tokens.
        hidden: for each sequence the original's inputs of its head, (T, D).
        head: applies the original's head: (T, D) -> (T, V).
        progress: told of every block of tokens.
        what: name of the stage, for people.

    Returns:
        The figures, all sequences behind each other.

    Raises:
        EngineError: if the compressed model gives a NaN.
    """
    progress.start(what, max(sum(tokens.size - 1 for tokens in sequences), 1))
    columns: list[NDArray[np.float64]] = []
    for tokens, states in zip(sequences, hidden, strict=True):
        session = loaded.session(context=tokens.size)
        for low in range(0, tokens.size - 1, _ROWS):
            high = min(low + _ROWS, tokens.size - 1)
            scores = loaded.score(session, tokens[low:high])
            if not np.isfinite(scores).all():
                raise EngineError("the compressed model gives a NaN or an infinity")
            ours, theirs = log_softmax(scores), log_softmax(head(states[low:high]))
            columns.append(_figures(theirs, ours, tokens[low + 1 : high + 1]))
            progress.advance(high - low)
        session.close()
    return _gathered(columns)


# For each sequence the inputs of a head, (T, D), and the head: (T, D) -> (T, V).
States = tuple[Sequence[FloatArray], Callable[[FloatArray], FloatArray]]


def compare_states(
    sequences: Sequence[TokenArray], original: States, changed: States, *, progress: Progress
) -> TokenFigures:
    """Compare two models of which the inputs of the heads are known already.

    Args:
        sequences: held-out tokens.
        original: of the original.
        changed: of the changed model; of the same vocabulary.
        progress: told of every block of tokens.

    Returns:
        The figures, all sequences behind each other.
    """
    total = sum(tokens.size - 1 for tokens in sequences)
    progress.start("comparing with the original", max(total, 1))
    columns: list[NDArray[np.float64]] = []
    for tokens, theirs, ours in zip(sequences, original[0], changed[0], strict=True):
        for low in range(0, tokens.size - 1, _ROWS):
            high = min(low + _ROWS, tokens.size - 1)
            first, second = original[1](theirs[low:high]), changed[1](ours[low:high])
            targets = tokens[low + 1 : high + 1]
            columns.append(_figures(log_softmax(first), log_softmax(second), targets))
            progress.advance(high - low)
    return _gathered(columns)


def _gathered(columns: Sequence[NDArray[np.float64]]) -> TokenFigures:
    table = np.concatenate(columns, axis=1)  # (5, M)
    return TokenFigures(
        original_loss=table[0],
        loss=table[1],
        divergence=table[2],
        agrees=table[3],
        flips=table[4],
    )


def _figures(theirs: FloatArray, ours: FloatArray, targets: TokenArray) -> NDArray[np.float64]:
    rows = np.arange(targets.size)
    divergence = np.einsum("tv,tv->t", np.exp(theirs), theirs - ours, dtype=np.float64)
    first, other = theirs.argmax(axis=1), ours.argmax(axis=1)
    return np.stack([
        -theirs[rows, targets],
        -ours[rows, targets],
        np.maximum(divergence, 0),
        first == other,
        (first == targets) != (other == targets),
    ]).astype(np.float64)


def log_softmax(scores: FloatArray) -> FloatArray:
    """Normalise rows of logits in place.

    Args:
        scores: (T, V) float32, changed.

    Returns:
        The same array: logarithms of probabilities.
    """
    scores -= scores.max(axis=1, keepdims=True)
    total = np.exp(scores).sum(axis=1, keepdims=True, dtype=np.float64)
    scores -= np.log(total).astype(np.float32)
    return scores


def quality_figures(figures: TokenFigures, *, how: str) -> dict[str, Measurement]:
    """Summarise per-token figures, each with a 95 % confidence interval.

    Args:
        figures: of the held-out text.
        how: the command that measures them again.

    Returns:
        By name: perplexity, original_perplexity, perplexity_increase, kl_divergence,
        top1_agreement and flip_rate.
    """

    def made(
        name: str, unit: Unit, per_token: NDArray[np.float64], shape: Callable[[float], float]
    ) -> Measurement:
        low, high = _interval(per_token)
        return Measurement(
            name=name,
            value=shape(float(per_token.mean())),
            unit=unit,
            samples=per_token.size,
            spread=0.0,
            how=how,
            interval=(shape(low), shape(high)),
        )

    def perplexity(loss: float) -> float:
        return float(np.exp(loss))

    figure_list = [
        made("perplexity", "one", figures.loss, perplexity),
        made("original_perplexity", "one", figures.original_loss, perplexity),
        made(
            "perplexity_increase",
            "fraction",
            figures.loss - figures.original_loss,
            lambda difference: float(np.expm1(difference)),
        ),
        made("kl_divergence", "nat", figures.divergence, float),
        made("top1_agreement", "fraction", figures.agrees, float),
        made("flip_rate", "fraction", figures.flips, float),
    ]
    return {figure.name: figure for figure in figure_list}


def _interval(per_token: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by a block bootstrap with a fixed seed."""
    n_blocks = max(per_token.size // _BLOCK, 1)
    blocks = np.array([part.mean() for part in np.array_split(per_token, n_blocks)])
    draws = np.random.default_rng(_SEED).integers(0, n_blocks, (_RESAMPLES, n_blocks))
    low, high = np.quantile(blocks[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
