"""Which prompts a learned version answers: features, classifiers, and tensors from outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.scope import SCOPE_WIDTH, Scope, features_of, scope_from


def scope_for(text: str, bias: float = -0.5) -> Scope:
    """One that likes the features of a text."""
    weights = np.zeros((1, SCOPE_WIDTH), np.float32)
    weights[0, features_of(text)] = 1 / np.sqrt(features_of(text).size)
    return Scope(weights=weights, biases=np.array([bias], np.float32))


@given(st.text())
def test_features_are_buckets_in_order_each_once(text: str) -> None:
    """Of any text, even half a surrogate pair and none at all."""
    found = features_of(text)

    assert found.size > 0
    assert found[0] >= 0
    assert found[-1] < SCOPE_WIDTH
    assert (np.diff(found) > 0).all()


def test_neither_case_nor_spaces_matter() -> None:
    """What is said twice the same is the same."""
    assert np.array_equal(features_of("Water  the\nTULIPS"), features_of("water the tulips"))
    assert not np.array_equal(features_of("water the tulips"), features_of("water the roses"))


def test_a_text_that_is_liked_is_inside_and_so_is_one_among_others() -> None:
    """Of several things that were said, one is enough."""
    scope = scope_for("water the tulips")

    assert scope.score("water the tulips") == pytest.approx(0.5, abs=1e-6)
    assert scope.holds(["lock the door", "Water the tulips"])
    assert not scope.holds(["lock the door"])
    assert not scope.holds([])


def test_joined_scopes_hold_what_either_holds() -> None:
    """What was taught before stays inside."""
    both = scope_for("water the tulips").joined(scope_for("给玫瑰浇水"))

    assert both.holds(["water the tulips"])
    assert both.holds(["给玫瑰浇水"])
    assert not both.holds(["lock the door"])


def test_a_scope_is_taken_out_of_tensors() -> None:
    """As it was put in, and the others are left."""
    scope, other = scope_for("a"), np.ones(3, np.float32)

    found, others = scope_from({**scope.arrays(), "layers.0.qkv.lora_A": other})

    assert found is not None
    assert np.array_equal(found.weights, scope.weights)
    assert found.biases == scope.biases
    assert list(others) == ["layers.0.qkv.lora_A"]
    assert scope_from({"x": other})[0] is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scope.biases": None}, r"scope\.biases is missing"),
        ({"scope.weights": None}, r"scope\.weights is missing"),
        ({"scope.biases": np.zeros(2, np.float32)}, "expected"),
        ({"scope.biases": np.zeros((1, 1), np.float32)}, "expected"),
        ({"scope.biases": np.zeros(0, np.float32)}, "expected"),
        ({"scope.weights": np.zeros((1, 8), np.float32)}, "expected"),
        ({"scope.weights": np.full((1, SCOPE_WIDTH), np.nan, np.float32)}, "NaN"),
        ({"scope.biases": np.array([np.inf], np.float32)}, "infinity"),
    ],
)
def test_attack_tensors_that_are_no_scope_are_refused(
    changed: dict[str, np.ndarray | None], message: str
) -> None:
    """By what is wrong with them."""
    arrays = {**scope_for("a").arrays(), **changed}

    with pytest.raises(InputError, match=message):
        scope_from({name: one for name, one in arrays.items() if one is not None})


def test_a_scope_has_so_many_parts_and_no_more() -> None:
    """Each teaching adds one, and each is asked for every prompt."""
    full = Scope(
        weights=np.zeros((1024, SCOPE_WIDTH), np.float32), biases=np.zeros(1024, np.float32)
    )

    with pytest.raises(InputError, match="teach all examples again"):
        full.joined(scope_for("a"))
