"""Batches taken apart and put together."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, latents
from tests.device.learning.models import TableTeachable

from onhand.core.errors import InputError
from onhand.device.learning.methods.batches import (
    check_batch,
    completed,
    join_examples,
    join_texts,
    split,
    stacked,
)

TEXTS = TableTeachable(9).lesson
CLASSES = HeadTeachable().lesson


def texts() -> dict[str, np.ndarray]:
    """Return two texts of 4 and 2 tokens, padded, with three scored rows."""
    return {
        "tokens": np.array([[1, 2, 3, 4], [5, 6, 0, 0]], np.int64),
        "rows": np.array([0, 2, 4], np.int64),
        "labels": np.array([[2], [4], [6]], np.int64),
        "weights": np.array([[0.25], [0.25], [0.5]], np.float32),
    }


def test_a_text_keeps_its_own_rows_and_no_padding() -> None:
    """Tokens after the last scored row change nothing that is scored."""
    first, second = split(TEXTS, texts())
    assert first is not None
    assert second is not None

    assert first["tokens"].tolist() == [1, 2, 3]
    assert first["rows"].tolist() == [0, 2]
    assert second["tokens"].tolist() == [5]
    assert second["labels"].tolist() == [[6]]


def test_weights_of_a_text_are_kept_relative_to_each_other() -> None:
    """Their absolute values sum to 1, their signs stay."""
    batch = texts() | {"weights": np.array([[0.5], [-1.5], [9]], np.float32)}
    first = split(TEXTS, batch)[0]
    assert first is not None

    assert first["weights"].ravel().tolist() == [0.25, -0.75]


def test_a_text_whose_rows_count_nothing_is_none() -> None:
    """There is nothing in it to learn again."""
    batch = texts() | {"weights": np.array([[1], [1], [0]], np.float32)}

    assert split(TEXTS, batch)[1] is None


def test_texts_put_together_score_the_same_tokens() -> None:
    """Rows point to the same tokens whatever the padding, and K may differ."""
    items = [item for item in split(TEXTS, texts()) if item is not None]
    two = np.array([[6, 7]])
    joined = join_texts([
        (items[0], items[0]["labels"], items[0]["weights"]),
        (items[1], two, np.array([[0.5, 0.5]])),
    ])

    assert joined["tokens"].reshape(-1)[joined["rows"]].tolist() == [1, 3, 5]
    assert joined["labels"].tolist() == [[2, 0], [4, 0], [6, 7]]
    assert joined["weights"][:2, 1].tolist() == [0, 0]


def test_examples_taken_apart_and_put_together_are_the_same() -> None:
    """Each counts 1 then."""
    batch = latents([0, 1, 2])
    again = join_examples([item for item in split(CLASSES, batch) if item is not None])

    np.testing.assert_array_equal(again["latent"], batch["latent"])
    np.testing.assert_array_equal(again["labels"], batch["labels"])
    assert again["weights"].tolist() == [1, 1, 1]


def test_an_encoders_texts_are_kept_without_padding_and_padded_again() -> None:
    """Each batch is as long as its longest text."""
    batch: dict[str, np.ndarray] = {
        "input_ids": np.array([[7, 8, 9], [4, 0, 0]], np.int64),
        "attention_mask": np.array([[1, 1, 1], [1, 0, 0]], np.int64),
        "labels": np.array([0, 1], np.int64),
        "weights": np.ones(2, np.float32),
    }
    items = [item for item in split(CLASSES, batch) if item is not None]

    assert [len(item["input_ids"]) for item in items] == [3, 1]
    both = stacked([join_examples([items[1]]), join_examples([items[0]])])
    assert both["input_ids"].tolist() == [[4, 0, 0], [7, 8, 9]]
    assert both["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]


def test_latents_as_wide_as_a_text_is_long_are_no_tokens() -> None:
    """Fractions of one row are a vector: they are neither cut nor padded."""
    batch: dict[str, np.ndarray] = {
        "latent": np.ones((1, 3), np.float32),
        "attention_mask": np.array([[1, 1, 0]], np.int64),
        "labels": np.array([0], np.int64),
        "weights": np.ones(1, np.float32),
    }
    item = split(CLASSES, batch)[0]
    assert item is not None

    assert item["latent"].shape == (3,)
    assert item["attention_mask"].tolist() == [1, 1]


def test_examples_of_another_model_are_refused() -> None:
    """A memory that does not fit is no reason to crash later, in a graph."""
    ours, theirs = (completed(latents([0], width=width), width=3) for width in (4, 5))

    with pytest.raises(InputError, match="the memory is another model's"):
        stacked([ours, theirs])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"labels": np.array([0, 3])}, "there are 3 classes"),
        ({"labels": np.array([0, -1])}, "there are 3 classes"),
        ({"labels": np.array([0.5, 1])}, "there are 3 classes"),
        ({"labels": np.array([0])}, "one for each"),
        ({"weights": np.array([1, np.nan])}, "not finite"),
        ({"latent": np.zeros((3, 4))}, "one row for each"),
    ],
)
def test_attack_a_batch_of_classes_that_does_not_fit(
    changed: dict[str, np.ndarray], why: str
) -> None:
    """What comes from outside is checked before it is learned from, or remembered."""
    with pytest.raises(InputError, match=why):
        check_batch(CLASSES, latents([0, 1]) | changed, width=3)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rows": np.array([0, 2, 8])}, "there are 8 tokens"),
        ({"rows": np.array([0, 2])}, "one for each"),
        ({"tokens": np.array([[1, 2, 3, 9], [5, 6, 0, 0]])}, "tokens from 0 to 9"),
        ({"labels": np.array([[2], [4], [-1]])}, "labels from -1"),
        ({"labels": np.array([2, 4, 6])}, r"need \(B, S\)"),
        ({"weights": np.array([[1], [np.inf], [1]])}, "not finite"),
    ],
)
def test_attack_a_batch_of_texts_that_does_not_fit(
    changed: dict[str, np.ndarray], why: str
) -> None:
    """As above."""
    with pytest.raises(InputError, match=why):
        check_batch(TEXTS, texts() | changed, width=9)


def test_a_batch_without_labels_is_refused() -> None:
    """By the name of what is missing."""
    batch = {name: array for name, array in latents([0]).items() if name != "labels"}

    with pytest.raises(InputError, match="no 'labels'"):
        check_batch(CLASSES, batch, width=3)
