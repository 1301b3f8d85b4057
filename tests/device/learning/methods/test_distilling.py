"""The previous version as a teacher."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, latents
from tests.device.learning.models import TableTeachable

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.methods.batches import completed
from onhand.device.learning.methods.distilling import Distilling
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import pulled, softmax

LESSON = HeadTeachable().lesson


def drawn(seed: int) -> dict[str, FloatArray]:
    """Return values of a head."""
    rng = np.random.default_rng(seed)
    shapes = HeadTeachable().shapes
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def logits(values: dict[str, FloatArray], batch: dict[str, np.ndarray]) -> np.ndarray:
    """Return what a head answers, in float64."""
    found: np.ndarray = (batch["latent"] @ values["weight"].T + values["bias"]).astype(float)
    return found


@pytest.mark.parametrize("heat", [1.0, 2.0, 5.0])
def test_the_gradient_is_that_of_the_distillation_at_its_temperature(heat: float) -> None:
    """Of T^2 times the cross-entropy with the softened past, by central differences."""
    teachable, before, now = HeadTeachable(), drawn(0), drawn(1)
    distilling = Distilling(LESSON, MethodOptions(temperature=heat, lwf_strength=0.7))
    distilling.begin(before, known=3)
    batch = latents([0, 1, 2, 2])
    feeds = completed(batch, width=3)
    pull = distilling.pull(teachable, batch, width=3)
    assert pull is not None
    feeds["weights"] = np.full(4, 0.25, np.float32)
    made = pulled(teachable, now, feeds, [pull], width=3)
    without = teachable.teach(now, feeds).gradients
    found = teachable.teach(now, made).gradients

    def loss(values: dict[str, FloatArray]) -> float:
        wanted = softmax(logits(before, batch) / heat)
        given = np.log(softmax(logits(values, batch) / heat))
        return float(0.7 * heat**2 * -(wanted * given).sum(axis=1).mean())

    for place in range(3):
        step = np.zeros(3, np.float32)
        step[place] = 2**-6
        sides = [loss(now | {"bias": now["bias"] + way * step}) for way in (1, -1)]
        slope = (sides[0] - sides[1]) / 2**-5
        difference = float(found["bias"][place] - without["bias"][place])
        assert difference == pytest.approx(slope, rel=2e-3, abs=1e-5)


def test_the_version_that_is_remembered_pulls_nowhere() -> None:
    """Values that still answer as the previous version did need no correction."""
    distilling = Distilling(LESSON, MethodOptions())
    distilling.begin(drawn(0), known=3)
    batch = latents([0, 1, 2])
    pull = distilling.pull(HeadTeachable(), batch, width=3)
    assert pull is not None

    np.testing.assert_allclose(pull(logits(drawn(0), batch)), 0, atol=1e-6)


def test_new_classes_take_no_part() -> None:
    """The previous version had no opinion of them: nothing pushes them down."""
    distilling = Distilling(LESSON, MethodOptions())
    grown = grow_head(LESSON, drawn(0), 5)
    distilling.begin(grown, known=3)
    batch = latents([3, 4])
    pull = distilling.pull(HeadTeachable(), batch, width=5)
    assert pull is not None
    now = {name: value + 1 for name, value in grown.items()}

    assert not pull(logits(now, batch) * 1.5)[:, 3:].any()


def test_a_version_that_knows_nothing_teaches_nothing() -> None:
    """As in the first session of a bundle that has learned no class."""
    distilling = Distilling(LESSON, MethodOptions())
    distilling.begin(drawn(0), known=0)

    assert distilling.pull(HeadTeachable(), latents([0]), width=3) is None


def texts() -> dict[str, np.ndarray]:
    """Return one text."""
    return {
        "tokens": np.array([[1, 2, 3]]),
        "rows": np.array([0, 1]),
        "labels": np.array([[2], [3]]),
        "weights": np.array([[0.25], [-0.75]], np.float32),
    }


def test_texts_are_also_scored_by_the_likeliest_tokens_of_before() -> None:
    """More labels for each row; together they count as much as the row's own."""
    table = np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    distilling = Distilling(TableTeachable(7).lesson, MethodOptions(best=3, lwf_strength=2.0))
    distilling.begin({"table": table}, known=7)
    made = distilling.text(TableTeachable(7), texts(), width=7)

    best = np.argsort(-table[[1, 2]], axis=1)[:, :3]
    np.testing.assert_array_equal(made["labels"][:, 1:], best)
    np.testing.assert_array_equal(made["labels"][:, :1], texts()["labels"])
    np.testing.assert_allclose(made["weights"][:, 1:].sum(axis=1), [0.5, 1.5], rtol=1e-6)


def test_attack_a_damaged_previous_version_is_refused() -> None:
    """It would be taught for a whole session."""
    values = drawn(0) | {"bias": np.full(3, np.inf, np.float32)}

    with pytest.raises(InputError, match="not finite"):
        Distilling(LESSON, MethodOptions()).load(Part(1, values))
