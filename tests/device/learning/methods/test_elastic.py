"""Elastic weight consolidation."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, latents

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.methods.elastic import Elastic
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import softmax

OPTIONS = MethodOptions(ewc_strength=3.0, fisher_examples=16)


def drawn(seed: int, n_classes: int = 3) -> dict[str, FloatArray]:
    """Return values of a head."""
    rng = np.random.default_rng(seed)
    shapes = HeadTeachable(n_classes=n_classes).shapes
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def consolidated(values: dict[str, FloatArray], *, options: MethodOptions = OPTIONS) -> Elastic:
    """Return a penalty about values, from 24 examples."""
    teachable = HeadTeachable()
    elastic, rng = Elastic(teachable.lesson, options), np.random.default_rng(0)
    elastic.offer(latents([0, 1, 2] * 8), rng)
    elastic.consolidate(teachable, values, width=3, rng=rng)
    return elastic


def test_the_penaltys_gradient_is_that_of_the_penalty() -> None:
    """Against central differences, exact for what is quadratic, in every element."""
    elastic, values = consolidated(drawn(0)), drawn(1)
    nothing = {name: np.zeros_like(value) for name, value in values.items()}
    gradients = elastic.adjust(values, nothing)

    for name, value in values.items():
        for place in np.ndindex(value.shape):
            sides = []
            for step in (0.125, -0.125):
                moved = value.copy()
                moved[place] += step
                sides.append(elastic.penalty(values | {name: moved}))
            slope = (sides[0] - sides[1]) / 0.25
            assert slope == pytest.approx(float(gradients[name][place]), rel=1e-3, abs=1e-5)


def test_values_that_did_not_move_are_not_penalised() -> None:
    """The penalty is about the values at the session's end."""
    values = drawn(0)
    elastic = consolidated(values)

    assert elastic.penalty(values) == 0
    assert elastic.penalty(drawn(1)) > 0


def test_the_fisher_information_is_that_of_the_networks_own_answers() -> None:
    """Of a softmax bias it is the mean of p (1 - p), here over many drawn labels."""
    teachable, values = HeadTeachable(), drawn(0)
    options = MethodOptions(ewc_strength=2.0, fisher_examples=900, memory_bytes=2**22)
    elastic, rng = Elastic(teachable.lesson, options), np.random.default_rng(0)
    batch = latents([0, 1, 2] * 300)
    elastic.offer(batch, rng)
    elastic.consolidate(teachable, values, width=3, rng=rng)

    logits = batch["latent"] @ values["weight"].T + values["bias"]
    chances = softmax(logits.astype(float))
    moved = values | {"bias": values["bias"] + np.array([1, 0, 0], np.float32)}
    expected = (chances * (1 - chances)).mean(axis=0)[0]
    assert elastic.penalty(moved) == pytest.approx(expected, rel=0.15)


def test_sessions_add_up_and_the_old_ones_fade() -> None:
    """With decay 0 only the last counts; with 1 all do."""
    moved = drawn(5)
    found = []
    for decay in (0.0, 1.0):
        options = MethodOptions(ewc_strength=1.0, ewc_decay=decay, fisher_examples=16)
        elastic, rng = consolidated(drawn(0), options=options), np.random.default_rng(1)
        elastic.offer(latents([0, 1, 2] * 8, seed=9), rng)
        elastic.consolidate(HeadTeachable(), drawn(0), width=3, rng=rng)
        found.append(elastic.penalty(moved))

    assert 0 < found[0] < found[1]


def test_new_classes_are_free() -> None:
    """Nothing is known of them, so nothing holds them."""
    values = drawn(0)
    elastic = consolidated(values)
    grown = grow_head(HeadTeachable().lesson, values, 5)
    moved = grown | {"bias": grown["bias"] + np.array([0, 0, 0, 7, 7], np.float32)}

    assert elastic.penalty(moved) == 0
    adjusted = elastic.adjust(moved, {n: np.zeros_like(v) for n, v in moved.items()})
    assert not adjusted["bias"].any()


def test_without_examples_nothing_is_penalised() -> None:
    """A session that learned nothing leaves no penalty."""
    elastic = Elastic(HeadTeachable().lesson, OPTIONS)
    elastic.consolidate(HeadTeachable(), drawn(0), width=3, rng=np.random.default_rng(0))

    assert elastic.penalty(drawn(1)) == 0


def test_no_more_examples_are_kept_than_are_used() -> None:
    """The memory's ceiling holds for them too."""
    elastic = Elastic(HeadTeachable().lesson, OPTIONS)
    elastic.offer(latents([0, 1, 2] * 30), np.random.default_rng(0))

    assert len(elastic.save()[1].arrays["slots.group"]) == 16


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda a: a | {"fisher.bias": -a["fisher.bias"] - 1}, "below 0"),
        (lambda a: a | {"fisher.bias": a["fisher.bias"] * np.float32(np.nan)}, "not finite"),
        (lambda a: a | {"other": a["fisher.bias"]}, "neither fisher nor anchor"),
        (lambda a: {n: x for n, x in a.items() if n[0] == "f"}, "not both"),
        (lambda a: {n: x for n, x in a.items() if n != "fisher.bias"}, "'bias' is missing"),
        (lambda a: a | {"anchor.weight": np.zeros((3, 9), np.float32)}, "the lesson says"),
        (lambda a: a | {"anchor.bias": np.zeros(9, np.float32)}, "do not belong together"),
    ],
)
def test_attack_a_damaged_penalty_is_refused(spoil: object, why: str) -> None:
    """A poisoned penalty would pull every later version anywhere."""
    assert callable(spoil)
    penalty, sample = consolidated(drawn(0)).save()

    with pytest.raises(InputError, match=why):
        Elastic(HeadTeachable().lesson, OPTIONS).load(Part(1, spoil(dict(penalty.arrays))), sample)
