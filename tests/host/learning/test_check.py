"""A lesson is refused as soon as its gradients are not those of another computation."""

from collections.abc import Callable

import numpy as np
import pytest

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.host.learning.check import check_gradients

BATCHES: list[Feeds] = [{"x": np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)}]
START: Values = {
    "w": np.array([0.3, -0.2], np.float32),
    "b": np.array([0.1], np.float32),
}


def square(values: Values, feeds: Feeds) -> Taught:
    """The sum of squares of a linear layer, and its gradients."""
    made: FloatArray = feeds["x"] @ values["w"] + values["b"]
    gradients = {"w": 2 * feeds["x"].T @ made, "b": np.array([2 * made.sum()], np.float32)}
    return Taught(loss=float((made * made).sum()), outputs={}, gradients=gradients)


def changed(change: Callable[[dict[str, FloatArray]], None]) -> Callable[[Values, Feeds], Taught]:
    """The same with other gradients."""

    def teach(values: Values, feeds: Feeds) -> Taught:
        taught = square(values, feeds)
        gradients = dict(taught.gradients)
        change(gradients)
        return Taught(loss=taught.loss, outputs={}, gradients=gradients)

    return teach


def test_equal_gradients_pass() -> None:
    """All steps are made, and nothing is apart."""
    checked = check_gradients(square, square, START, BATCHES)

    assert checked.n_steps == 50
    assert checked.to_json() == {
        "gradient_error": 0.0,
        "loss_error": 0.0,
        "n_steps": 50,
        "value_error": 0.0,
    }


def scaled(gradients: dict[str, FloatArray]) -> None:
    """A scale of gradients that optimizers like Adam would hide."""
    gradients["w"] = gradients["w"] * np.float32(1.001)


def turned(gradients: dict[str, FloatArray]) -> None:
    """A sign that is wrong."""
    gradients["b"] = -gradients["b"]


def lost(gradients: dict[str, FloatArray]) -> None:
    """A gradient that is nothing."""
    gradients["b"] = gradients["b"] * 0


def odd(gradients: dict[str, FloatArray]) -> None:
    """A gradient that is no number."""
    gradients["w"] = gradients["w"] * np.float32(np.nan)


@pytest.mark.parametrize("change", [scaled, turned, lost, odd])
def test_another_gradient_is_refused(change: Callable[[dict[str, FloatArray]], None]) -> None:
    """A thousandth is enough."""
    with pytest.raises(EngineError, match=r"the gradient of '[wb]' is"):
        check_gradients(changed(change), square, START, BATCHES)


def test_another_shape_is_refused() -> None:
    """It could be broadcast without a word."""

    def wider(gradients: dict[str, FloatArray]) -> None:
        gradients["b"] = np.broadcast_to(gradients["b"], (2,))

    with pytest.raises(EngineError, match="must be"):
        check_gradients(changed(wider), square, START, BATCHES)


def test_another_loss_is_refused() -> None:
    """Even where its gradients are right."""

    def shifted(values: Values, feeds: Feeds) -> Taught:
        taught = square(values, feeds)
        return Taught(loss=taught.loss + 1, outputs={}, gradients=taught.gradients)

    with pytest.raises(EngineError, match="loss"):
        check_gradients(shifted, square, START, BATCHES)


def test_a_gradient_that_is_zero_at_the_start_is_looked_at_elsewhere() -> None:
    """As that of LoRA's first factor, while the second is zero."""

    def product(values: Values, feeds: Feeds) -> Taught:
        a, b = values["a"], values["b"]
        gradients = {"a": b * 2 * a * b, "b": a * 2 * a * b}
        return Taught(loss=float(((a * b) ** 2).sum()), outputs={}, gradients=gradients)

    def wrong(values: Values, feeds: Feeds) -> Taught:
        taught = product(values, feeds)
        return Taught(
            loss=taught.loss,
            outputs={},
            gradients={"a": -taught.gradients["a"], "b": taught.gradients["b"]},
        )

    start: Values = {"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}

    with pytest.raises(EngineError, match="'a'"):
        check_gradients(wrong, product, start, BATCHES)
