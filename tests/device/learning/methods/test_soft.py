"""Losses that a lesson's graph does not have."""

import numpy as np
from tests.device.learning.methods.models import HeadTeachable, latents
from tests.device.learning.models import TableTeachable

from onhand.core.arrays import FloatArray
from onhand.device.learning.methods.batches import completed
from onhand.device.learning.methods.soft import (
    best_tokens,
    logits_of,
    pull_to_given,
    pulled,
    softmax,
)


def head(seed: int = 0) -> tuple[HeadTeachable, dict[str, FloatArray]]:
    """Return a head with values."""
    teachable, rng = HeadTeachable(), np.random.default_rng(seed)
    return teachable, {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in teachable.shapes.items()
    }


def test_a_pull_comes_out_of_the_graph_as_the_gradient_it_is() -> None:
    """Whatever loss it belongs to, times each example's weight, beside the labels' own."""
    teachable, values = head()
    feeds = completed(latents([0, 1, 2, 1]), width=3)
    wanted = np.random.default_rng(1).standard_normal((4, 3))
    wanted -= wanted.mean(axis=1, keepdims=True)

    made = pulled(teachable, values, feeds, [lambda _: wanted], width=3)
    plain = teachable.teach(values, feeds).gradients["bias"]
    found = teachable.teach(values, made).gradients["bias"]

    np.testing.assert_allclose(found - plain, wanted.sum(axis=0) / 4, atol=2e-6)


def test_cross_entropy_among_the_given_classes_leaves_the_others_alone() -> None:
    """Its gradient is that of a softmax over those classes, and 0 for the rest."""
    logits = np.array([[1.0, 2.0, 5.0], [0.0, 1.0, 9.0]])
    gradient = pull_to_given(np.array([0, 1]), width=3)(logits)

    assert gradient[:, 2].tolist() == [0, 0]
    np.testing.assert_allclose(gradient[:, :2], softmax(logits[:, :2]) - np.eye(2))


def test_answers_are_asked_for_without_the_labels() -> None:
    """A label may be of a class that the values asked do not have."""
    teachable, values = head()
    batch = latents([0, 1])
    found = logits_of(teachable, values, batch | {"labels": np.array([0, 7])}, width=3)

    expected = batch["latent"] @ values["weight"].T + values["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_likeliest_tokens_come_first_and_their_chances_sum_to_one() -> None:
    """Of 150 rows, which take three runs of the graph."""
    teachable, rng = TableTeachable(11), np.random.default_rng(0)
    table = rng.standard_normal((11, 11)).astype(np.float32)
    batch = {"tokens": rng.integers(0, 11, (3, 50)), "rows": np.arange(150)}

    tokens, chances = best_tokens(teachable, {"table": table}, batch, best=4, width=11)

    asked = table[batch["tokens"].reshape(-1)]
    np.testing.assert_array_equal(tokens, np.argsort(-asked, axis=1)[:, :4])
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)
    four = np.take_along_axis(asked, tokens.astype(int), axis=1).astype(float)
    np.testing.assert_allclose(chances, softmax(four), rtol=1e-5)


def test_a_small_vocabulary_gives_all_of_its_tokens() -> None:
    """More than there are cannot be given."""
    batch = {"tokens": np.array([[0, 1]]), "rows": np.array([0, 1])}
    table = np.array([[0, 1], [1, 0]], np.float32)
    tokens, _ = best_tokens(TableTeachable(2), {"table": table}, batch, best=8, width=2)

    assert tokens.tolist() == [[1, 0], [0, 1]]
