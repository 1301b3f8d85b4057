"""KL divergence, agreement and perplexity, beside the formulas written out."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import EngineError
from onhand.core.progress import Quiet
from onhand.device.engines.base import Session
from onhand.host.compare import TokenFigures, compare_tokens, quality_figures

V = 11
Wide = NDArray[np.float64]


class Parrot:
    """Logits from a table, by position; it remembers only how far it is. See `Loaded`."""

    def __init__(self, tables: Sequence[FloatArray]) -> None:
        self.tables = list(tables)
        self.given: dict[int, FloatArray] = {}
        self.kept: list[Listener] = []
        self.vocab_size = V
        self.context = 10_000

    def session(self, *, context: int | None = None) -> "Listener":
        """The next table."""
        made = Listener(self.tables[0])
        self.given[id(made)] = self.tables.pop(0)
        self.kept.append(made)
        return made

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """Not used."""
        raise NotImplementedError

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """Rows of the session's table."""
        start, table = session.length, self.given[id(session)]
        session.rewind(start + tokens.size)
        return table[start : session.length].copy()

    def close(self) -> None:
        """Nothing to release."""


class Listener:
    """See `Session`."""

    def __init__(self, table: FloatArray) -> None:
        self.table = table
        self.length = 0
        self.context = len(table)

    def rewind(self, length: int) -> None:
        """Stand there."""
        self.length = length

    def fork(self) -> "Listener":
        """Not used."""
        raise NotImplementedError

    def save_state(self) -> bytes:
        """Not used."""
        raise NotImplementedError

    def load_state(self, state: bytes) -> None:
        """Not used."""

    def close(self) -> None:
        """Nothing to release."""


def logits(n: int, *, seed: int) -> FloatArray:
    """Random rows."""
    return (3 * np.random.default_rng(seed).standard_normal((n, V))).astype(np.float32)


def texts(*lengths: int) -> list[TokenArray]:
    """Random tokens."""
    random = np.random.default_rng(0)
    return [random.integers(0, V, n) for n in lengths]


def compare(
    theirs: Sequence[FloatArray], ours: Sequence[FloatArray], sequences: Sequence[TokenArray]
) -> TokenFigures:
    """The original's hidden states are its logits, and its head changes nothing."""
    return compare_tokens(
        Parrot(ours), sequences, list(theirs), np.copy, progress=Quiet(), what="comparing"
    )


def softmax(rows: FloatArray) -> Wide:
    """Float64, as a textbook has it."""
    wide = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    shares: Wide = wide / wide.sum(axis=1, keepdims=True)
    return shares


def test_figures_are_the_formulas() -> None:
    """On sequences longer and shorter than a block of rows."""
    sequences = texts(300, 5, 2)
    theirs = [logits(row.size, seed=i) for i, row in enumerate(sequences)]
    ours = [rows + logits(len(rows), seed=9) / np.float32(6) for rows in theirs]

    found = compare(theirs, ours, sequences)
    summary = quality_figures(found, how="here")

    losses, others, divergences, agreements, flips = [], [], [], [], []
    for row, p_logits, q_logits in zip(sequences, theirs, ours, strict=True):
        p, q = softmax(p_logits), softmax(q_logits)
        for t, target in enumerate(row[1:]):
            losses.append(-np.log(q[t, target]))
            others.append(-np.log(p[t, target]))
            divergences.append(np.sum(p[t] * np.log(p[t] / q[t])))
            agreements.append(p[t].argmax() == q[t].argmax())
            flips.append((p[t].argmax() == target) != (q[t].argmax() == target))
    np.testing.assert_allclose(found.loss, losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.divergence, divergences, rtol=1e-3, atol=1e-5)
    expected = {
        "perplexity": np.exp(np.mean(losses)),
        "original_perplexity": np.exp(np.mean(others)),
        "perplexity_increase": np.exp(np.mean(losses)) / np.exp(np.mean(others)) - 1,
        "kl_divergence": np.mean(divergences),
        "top1_agreement": np.mean(agreements),
        "flip_rate": np.mean(flips),
    }
    assert 0.5 < expected["top1_agreement"] < 1
    assert {name: figure.value for name, figure in summary.items()} == pytest.approx(
        expected, rel=1e-4
    )
    assert {figure.samples for figure in summary.values()} == {299 + 4 + 1}


def test_the_same_model_loses_nothing() -> None:
    """No divergence, full agreement, the same perplexity; exactly."""
    sequences = texts(100)
    rows = [logits(100, seed=1)]

    summary = quality_figures(compare(rows, rows, sequences), how="here")

    values = {name: figure.value for name, figure in summary.items()}
    intervals = {name: figure.interval for name, figure in summary.items()}
    assert values["kl_divergence"] == values["perplexity_increase"] == 0
    assert values["top1_agreement"] == 1
    assert values["flip_rate"] == 0
    assert values["perplexity"] == values["original_perplexity"]
    assert [intervals[name] for name in ("kl_divergence", "top1_agreement")] == [(0, 0), (1, 1)]


def test_a_vocabulary_as_likely_all_over_has_its_size_as_perplexity() -> None:
    """By hand: 11 tokens, all alike."""
    rows = [np.full((50, V), 7, dtype=np.float32)]

    summary = quality_figures(compare(rows, rows, texts(50)), how="here")

    assert summary["perplexity"].value == pytest.approx(11, rel=1e-6)


def test_extreme_logits_stay_finite() -> None:
    """A model that is quite sure, and wrong."""
    rows = [np.zeros((10, V), dtype=np.float32) for _ in range(2)]
    rows[0][:, 0], rows[1][:, 1] = 1e4, 1e4

    found = compare(rows[:1], rows[1:], [np.zeros(10, dtype=np.int64)])

    assert found.divergence == pytest.approx(np.full(9, 1e4))
    assert found.agrees.max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bundle_that_gives_no_numbers_is_an_error(value: float) -> None:
    """It would make any average meaningless."""
    rows = [logits(20, seed=1)]
    spoilt = [rows[0].copy()]
    spoilt[0][13, 2] = value

    with pytest.raises(EngineError, match="gives a NaN or an infinity"):
        compare(rows, spoilt, texts(20))


def figures(n: int) -> TokenFigures:
    """Losses as text has them: neighbours are alike."""
    random = np.random.default_rng(4)
    slow = np.repeat(random.normal(2, 1, -(-n // 40)), 40)[:n]
    loss = slow + random.normal(0, 0.3, n)
    other = loss - 0.05 + random.normal(0, 0.1, n)
    return TokenFigures(
        original_loss=other,
        loss=loss,
        divergence=random.exponential(0.02, n),
        agrees=(random.random(n) < 0.9).astype(np.float64),
        flips=(random.random(n) < 0.1).astype(np.float64),
    )


@pytest.mark.parametrize("n", [1, 2, 31, 64, 65, 1000, 20_000])
def test_the_interval_holds_the_value(n: int) -> None:
    """For every figure, whatever the number of tokens."""
    for figure in quality_figures(figures(n), how="here").values():
        assert figure.interval is not None
        low, high = figure.interval
        tiny = 1e-12 * abs(figure.value)
        assert low - tiny <= figure.value <= high + tiny, figure.name


def test_more_tokens_make_the_interval_narrower() -> None:
    """About by the root of their number."""
    few, many = (quality_figures(figures(n), how="here") for n in (2000, 32_000))

    for name, figure in many.items():
        narrow, wide = figure.interval, few[name].interval
        assert narrow is not None
        assert wide is not None
        assert 0.1 < (narrow[1] - narrow[0]) / (wide[1] - wide[0]) < 0.5, name


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    """Tokens in blocks are not independent: shuffled, the same losses look surer than they are."""
    given = figures(20_000)
    shuffled = np.random.default_rng(0).permutation(given.loss)
    mixed = TokenFigures(
        original_loss=given.original_loss,
        loss=shuffled,
        divergence=given.divergence,
        agrees=given.agrees,
        flips=given.flips,
    )

    widths = [
        interval[1] - interval[0]
        for each in (given, mixed)
        if (interval := quality_figures(each, how="here")["perplexity"].interval) is not None
    ]

    assert widths[0] > 2 * widths[1]
