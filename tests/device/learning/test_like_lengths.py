"""Texts of like length are computed together."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.learning.models import LinearTeachable, TableTeachable

from onhand.device.learning.base import Feeds, Taught, Values
from onhand.device.learning.like_lengths import (
    MOST_TOKENS,
    RUN_TOKENS,
    answered_rows,
    by_length,
    examples_by_length,
    groups_by_length,
)
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.preferences import PreferenceMethod
from onhand.device.learning.preference_feeds import PairSource
from onhand.device.learning.preferences import Preferring
from onhand.device.learning.text_feeds import TextSource, TokenSequence, batch_sequences
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan, Source

V = 13


class Watched(TableTeachable):
    """Remembers how many tokens each run had."""

    def __init__(self) -> None:
        super().__init__(V)
        self.sizes: list[int] = []

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """As ever, and noted."""
        self.sizes.append(feeds["tokens"].size)
        return super().teach(values, feeds)


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    """Tokens that are computed, padding included, and what the runs cost."""
    return sum(len(group) * max(lengths[i] for i in group) + RUN_TOKENS for group in groups)


def sequence(length: int) -> TokenSequence:
    """A text of which the last two tokens are learned."""
    tokens = np.arange(1, length + 1, dtype=np.int64)
    return TokenSequence(tokens, np.arange(length - 2, length))


def words(length: int) -> TokenSequence:
    """A text of a small vocabulary, whose last two tokens are learned."""
    return TokenSequence(np.arange(length, dtype=np.int64) % V, np.arange(length - 2, length))


def test_short_texts_are_not_padded_to_a_long_one() -> None:
    """One run for the short, one for the long."""
    assert groups_by_length([10, 400, 12, 11]) == [[0, 2, 3], [1]]


def test_a_run_is_not_worth_a_few_tokens() -> None:
    """Texts of nearly the same length stay together."""
    assert groups_by_length([30, 40, 35]) == [[0, 1, 2]]


@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=7))
def test_groups_hold_every_text_once_and_cost_no_more_than_one_or_all(lengths: list[int]) -> None:
    """Whatever the lengths are."""
    groups = groups_by_length(lengths)
    everyone = list(range(len(lengths)))

    assert sorted(i for group in groups for i in group) == everyone
    assert cost(groups, lengths) <= cost([[i] for i in everyone], lengths)
    if len(lengths) * max(lengths) <= MOST_TOKENS:
        assert cost(groups, lengths) <= cost([everyone], lengths)


def marked(lengths: list[int]) -> dict[str, np.ndarray]:
    """A batch of an encoder's texts, with what else a classifier is fed."""
    rng, B, S = np.random.default_rng(0), len(lengths), max(lengths)
    mask = (np.arange(S) < np.array(lengths)[:, None]).astype(np.int64)
    return {
        "attention_mask": mask,
        "input_ids": rng.integers(0, V, (B, S)) * mask,
        "labels": rng.integers(0, 3, B),
        "past_logits": rng.standard_normal((B, S)).astype(np.float32),  # as many classes as tokens
        "weights": rng.random(B).astype(np.float32),
    }


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=6))
def test_an_encoder_s_texts_come_once_and_whole_in_runs_that_are_not_large(
    lengths: list[int],
) -> None:
    """With all that is fed of each; only padding is left out."""
    batch = marked(lengths)
    seen: list[int] = []
    for rows, run in examples_by_length(batch):
        assert run["attention_mask"].size <= MOST_TOKENS or len(rows) == 1
        seen += rows.tolist()
        for place, row in enumerate(rows):
            for name in ("labels", "past_logits", "weights"):
                np.testing.assert_array_equal(run[name][place], batch[name][row])
            size = lengths[row]
            for name in ("attention_mask", "input_ids"):
                np.testing.assert_array_equal(run[name][place, :size], batch[name][row, :size])

    assert sorted(seen) == list(range(len(lengths)))


class Bags(LinearTeachable):
    """Tells texts apart by how often they hold each word."""

    def __init__(self) -> None:
        super().__init__(V)
        self.sizes: list[int] = []

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Loss and gradients of the counts of words."""
        self.sizes.append(feeds["input_ids"].size)
        words = np.eye(V, dtype=np.float32)[feeds["input_ids"]]  # (B, S, V)
        x = (words * feeds["attention_mask"][..., None]).mean(axis=1)
        x = x * feeds["attention_mask"].shape[1] / 100
        return super().teach(values, {**feeds, "x": x})


class Marked:
    """Texts of an encoder. See `Source`."""

    def __init__(self, lengths: list[int]) -> None:
        self.batch = marked(lengths)
        del self.batch["past_logits"]

    def __len__(self) -> int:
        """All of them."""
        return len(self.batch["labels"])

    def weight(self, number: int) -> float:
        """Each counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """One batch, all with the same padding."""
        chosen = {name: array[list(numbers)] for name, array in self.batch.items()}
        return chosen | {"weights": np.full(len(numbers), scale, np.float32)}


@pytest.mark.parametrize("name", ["naive", "der++", "er-ace"])
def test_an_encoder_learns_the_same_from_small_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from one large run, whatever the method asks of the answers."""
    source, plan = Marked([500, 20, 480, 30, 510, 490, 25, 10]), Plan(n_steps=4, batch=8)
    learned = []
    for most in (10**9, MOST_TOKENS):
        monkeypatch.setattr("onhand.device.learning.like_lengths.MOST_TOKENS", most)
        teachable = Bags()
        method = make_method(name, teachable.lesson, rng=np.random.default_rng(0))
        trained = Trainer(teachable, source, plan, method=method, width=3).run().training
        learned.append((trained, teachable.sizes))

    (one, _), (other, sizes) = learned
    for key, value in one.values.items():
        np.testing.assert_allclose(other.values[key], value, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(other.losses, one.losses, rtol=1e-4)
    assert max(size for size in sizes if size > 0) <= 8 * 510
    assert sum(size <= MOST_TOKENS for size in sizes) > 4


@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=9))
def test_no_group_is_larger_than_a_run_may_be(lengths: list[int]) -> None:
    """But for a single text that is longer by itself."""
    groups = groups_by_length(lengths)

    assert all(
        len(group) * max(lengths[i] for i in group) <= MOST_TOKENS or len(group) == 1
        for group in groups
    )


@given(lengths=st.lists(st.integers(3, 400), min_size=1, max_size=6))
def test_what_is_learned_is_the_same(lengths: list[int]) -> None:
    """Every scored place comes once, with its label, its weight and the tokens before it."""

    def scored(batch: dict[str, np.ndarray]) -> list[tuple[object, ...]]:
        S = batch["tokens"].shape[1]
        flat = batch["tokens"].reshape(-1)
        return [
            (*flat[row // S * S : row + 1].tolist(), int(label[0]), float(weight[0]))
            for row, label, weight in zip(
                batch["rows"], batch["labels"], batch["weights"], strict=True
            )
        ]

    whole = batch_sequences([sequence(length) for length in lengths], scale=0.5)
    runs = [dict(one) for one in by_length(whole)]

    assert sorted(row for run in runs for row in scored(run)) == sorted(scored(whole))


def test_a_batch_of_equal_lengths_is_one_run() -> None:
    """What follows the last scored place is left out."""
    (run,) = by_length(batch_sequences([sequence(20), sequence(20)], scale=1.0))

    assert run["tokens"].shape == (2, 19)


def test_answers_of_long_texts_are_those_of_one_run() -> None:
    """Each row's answer stands in its own place, whichever run it came from."""
    teachable = Watched()
    values = {"table": np.random.default_rng(0).standard_normal((V, V)).astype(np.float32)}
    batch = batch_sequences([words(n) for n in (900, 20, 800, 30, 25)], scale=0.5)
    whole = teachable.teach(values, batch).outputs["logprobs"]
    teachable.sizes.clear()

    np.testing.assert_array_equal(answered_rows(teachable, values, batch), whole)
    assert len(teachable.sizes) > 1
    assert max(teachable.sizes) <= MOST_TOKENS


PAIRS = PairSource(texts=tuple(words(n) for n in (40, 700, 35, 720, 30, 710)))
TEXTS = TextSource([words(n) for n in (40, 35, 30)])


@pytest.mark.parametrize("name", ["replay", "der++", "replay+lwf"])
@pytest.mark.parametrize("source", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_long_texts_of_the_memory_do_not_make_a_run_large(source: Source, name: str) -> None:
    """However many of them are drawn beside new examples, whatever those are."""
    teachable = Watched()
    method = make_method(name, teachable.lesson, rng=np.random.default_rng(0))
    long = [words(950 + i) for i in range(8)]
    method.remember(teachable, teachable.start(), batch_sequences(long, scale=1 / 16), width=V)
    if isinstance(source, PairSource):
        method = PreferenceMethod(method, source, Preferring())
    Trainer(teachable, source, Plan(n_steps=2, batch=8), method=method, width=V).run()

    assert max(teachable.sizes) <= MOST_TOKENS
    assert max(teachable.sizes) >= 950
