"""A head without training."""

import numpy as np
import pytest
from tests.device.learning.methods.models import (
    HeadTeachable,
    LowRankTeachable,
    PerceptronTeachable,
    latents,
)
from typing_extensions import override

from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.prototypes import Prototypes

TEACHABLE = HeadTeachable()


def taught(*batches: dict[str, np.ndarray], shrinkage: float = 0.1, width: int = 3) -> Prototypes:
    """Return prototypes of batches."""
    made = Prototypes(TEACHABLE.lesson, MethodOptions(shrinkage=shrinkage))
    for batch in batches:
        made.take(TEACHABLE, TEACHABLE.start(), batch, width=3)
    return made


def answers(head: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> np.ndarray:
    """Return the classes that a head answers."""
    found: np.ndarray = (batch["latent"] @ head["weight"].T + head["bias"]).argmax(axis=1)
    return found


def test_five_examples_of_each_class_are_enough() -> None:
    """Of classes that lie apart, with no step of training."""
    head = taught(latents([0, 1, 2] * 5)).head(TEACHABLE.start(), width=3)
    batch = latents([0, 1, 2] * 30, seed=7)

    assert (answers(head, batch) == batch["labels"]).mean() > 0.97


@pytest.mark.parametrize("n", [1, 4])
def test_with_full_shrinkage_the_nearest_mean_wins(n: int) -> None:
    """By distance, as one would write it down."""
    batch = latents([0, 1, 2] * n)
    head = taught(batch, shrinkage=1.0).head(TEACHABLE.start(), width=3)
    asked = latents([0, 1, 2] * 30, seed=3)
    asked["latent"] = asked["latent"] + np.random.default_rng(0).normal(0, 2, (90, 4))
    means = np.stack([batch["latent"][batch["labels"] == c].mean(axis=0) for c in range(3)])
    apart = np.linalg.norm(asked["latent"][:, None] - means, axis=2)

    np.testing.assert_array_equal(answers(head, asked), apart.argmin(axis=1))


def test_logits_differ_as_log_densities_do() -> None:
    """Of normal distributions with the shrunken common covariance, computed plainly."""
    batch = latents([0, 1, 2] * 20)
    head = taught(batch, shrinkage=0.3).head(TEACHABLE.start(), width=3)
    means = np.stack([batch["latent"][batch["labels"] == c].mean(axis=0) for c in range(3)])
    rest = (batch["latent"] - means[batch["labels"]]).astype(float)
    within = rest.T @ rest / (60 - 3)
    level = np.trace(within) / 4
    shrunk = 0.7 * within + (0.3 + 1e-6) * level * np.eye(4)
    x = np.array([0.3, -1.0, 0.5, 2.0])
    densities = [-0.5 * (x - m) @ np.linalg.inv(shrunk) @ (x - m) for m in means]
    logits = head["weight"] @ x + head["bias"]

    np.testing.assert_allclose(logits - logits[0], np.array(densities) - densities[0], rtol=2e-3)


def test_one_batch_or_many_give_the_same_head() -> None:
    """Only counts, sums and products are kept."""
    batch = latents([0, 1, 2] * 10)
    halves = [{n: x[part] for n, x in batch.items()} for part in (slice(0, 14), slice(14, 30))]
    whole = taught(batch).head(TEACHABLE.start(), width=3)
    parts = taught(*halves).head(TEACHABLE.start(), width=3)

    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-5)


def test_a_class_without_an_example_is_named() -> None:
    """Its row would be made of nothing."""
    with pytest.raises(InputError, match="class 1 has none"):
        taught(latents([0, 2] * 3)).head(TEACHABLE.start(), width=3)


def test_without_any_example_the_head_stays() -> None:
    """A session that was given nothing changes nothing."""
    assert taught().head(TEACHABLE.start(), width=3).keys() == TEACHABLE.start().keys()


def test_lessons_that_are_no_linear_head_are_refused() -> None:
    """Before anything is counted, or at the first batch where only the answers tell."""
    with pytest.raises(InputError, match="kind head"):
        Prototypes(PerceptronTeachable(4, 5, 3).lesson, MethodOptions())
    with pytest.raises(InputError, match="kind head"):
        Prototypes(LowRankTeachable().lesson, MethodOptions())

    class Odd(HeadTeachable):
        """Its latents are doubled on the way."""

        @override
        def teach(self, values: Values, feeds: Feeds) -> Taught:
            """As its parent."""
            return super().teach(values, {**feeds, "latent": feeds["latent"] * 2})

    values = {name: value + 1 for name, value in TEACHABLE.start().items()}
    made = Prototypes(TEACHABLE.lesson, MethodOptions())
    with pytest.raises(InputError, match="they differ"):
        made.take(Odd(), values, latents([0]), width=3)


def test_attack_what_is_not_finite_is_neither_counted_nor_read() -> None:
    """One such latent would spoil the head for ever."""
    batch = latents([0])
    with pytest.raises(InputError, match="not finite"):
        taught(batch | {"latent": batch["latent"] * np.nan})
    arrays = dict(taught(batch).save().arrays)
    arrays["sums"] = np.full_like(arrays["sums"], np.inf)
    with pytest.raises(InputError, match="not finite"):
        Prototypes(TEACHABLE.lesson, MethodOptions()).load(Part(1, arrays))
    with pytest.raises(InputError, match="missing"):
        Prototypes(TEACHABLE.lesson, MethodOptions()).load(Part(1, {}))
