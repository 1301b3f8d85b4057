"""Texts of like length are computed together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.learning.like_lengths import RUN_TOKENS, by_length, groups_by_length
from onhand.device.learning.text_feeds import TokenSequence, batch_sequences


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    """Tokens that are computed, padding included, and what the runs cost."""
    return sum(len(group) * max(lengths[i] for i in group) + RUN_TOKENS for group in groups)


def sequence(length: int) -> TokenSequence:
    """A text of which the last two tokens are learned."""
    tokens = np.arange(1, length + 1, dtype=np.int64)
    return TokenSequence(tokens, np.arange(length - 2, length))


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
    assert cost(groups, lengths) <= cost([everyone], lengths)
    assert cost(groups, lengths) <= cost([[i] for i in everyone], lengths)


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
