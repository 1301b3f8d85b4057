"""Optimizers, clipping and schedules: by hand, by their properties, and beside PyTorch's."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.clipping import (
    Clipping,
    clip_by_norm,
    clip_by_value,
    global_norm,
)
from onhand.device.learning.optimizers import AdamW, Optimizer, Sgd, make_optimizer
from onhand.device.learning.schedules import Schedule

Arrays = dict[str, FloatArray]


def random_arrays(rng: np.random.Generator) -> Arrays:
    """A matrix and a vector."""
    return {
        "matrix": rng.standard_normal((5, 3)).astype(np.float32),
        "vector": rng.standard_normal(4).astype(np.float32),
    }


CASES: list[tuple[Optimizer, str, dict[str, Any]]] = [
    (Sgd(momentum=0), "SGD", {}),
    (Sgd(momentum=0.9), "SGD", {"momentum": 0.9}),
    (Sgd(momentum=0.8, nesterov=True), "SGD", {"momentum": 0.8, "nesterov": True}),
    (Sgd(momentum=0.9, decay=0.1), "SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    (AdamW(), "AdamW", {"weight_decay": 0.01}),
    (
        AdamW(first=0.8, second=0.95, epsilon=1e-6, decay=0.2),
        "AdamW",
        {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2},
    ),
    (AdamW(decay=0), "AdamW", {"weight_decay": 0.0}),
]


@pytest.mark.parametrize(("optimizer", "name", "options"), CASES)
def test_fifty_steps_are_those_of_pytorch(
    rng: np.random.Generator, optimizer: Optimizer, name: str, options: dict[str, Any]
) -> None:
    """To 1e-6, as rates and gradients change."""
    torch = pytest.importorskip("torch")
    values = random_arrays(rng)
    theirs = {n: torch.nn.Parameter(torch.from_numpy(v.copy())) for n, v in values.items()}
    peer = getattr(torch.optim, name)(list(theirs.values()), lr=1.0, **options)
    kept: Arrays = {}
    for step in range(50):
        gradients, rate = random_arrays(rng), 0.01 / (1 + step)
        values, kept = optimizer.step(values, gradients, kept, rate=rate)
        for group in peer.param_groups:
            group["lr"] = rate
        for n, parameter in theirs.items():
            parameter.grad = torch.from_numpy(gradients[n])
        peer.step()

    for n, value in values.items():
        np.testing.assert_allclose(value, theirs[n].detach().numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_that_of_pytorch(rng: np.random.Generator, most: float) -> None:
    """By norm, to 1e-6."""
    torch = pytest.importorskip("torch")
    gradients = random_arrays(rng)
    theirs = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients.values()]
    for parameter, gradient in zip(theirs, gradients.values(), strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    norm = torch.nn.utils.clip_grad_norm_(theirs, most)

    clipped = clip_by_norm(gradients, most)

    assert global_norm(gradients.values()) == pytest.approx(float(norm), rel=1e-6)
    for parameter, gradient in zip(theirs, clipped.values(), strict=True):
        np.testing.assert_allclose(gradient, parameter.grad.numpy(), rtol=1e-6, atol=1e-7)


def test_a_first_step_of_adamw_by_hand() -> None:
    """Its bias corrected, it is the rate in the gradient's direction, whatever the size."""
    made, _ = AdamW(decay=0).step(
        {"a": np.zeros(2, np.float32)},
        {"a": np.array([1e-3, -50], np.float32)},
        {},
        rate=0.1,
    )

    np.testing.assert_allclose(made["a"], [-0.1, 0.1], rtol=1e-4)


def test_a_large_value_moves_as_its_parts_do(rng: np.random.Generator) -> None:
    """Pieces that stay in the cache change no bit, the last and shorter one included."""
    size, cut = 3 * 65536 + 17, 70000
    value, first, second = (rng.normal(size=size).astype(np.float32) for _ in range(3))
    whole, kept = AdamW().step({"w": value}, {"w": first}, {}, rate=1e-2)
    whole, _ = AdamW().step(whole, {"w": second}, kept, rate=1e-2)
    parts = {"low": slice(None, cut), "high": slice(cut, None)}
    moved = {name: value[part] for name, part in parts.items()}
    state: dict[str, FloatArray] = {}
    for slope in (first, second):
        slopes = {name: slope[part] for name, part in parts.items()}
        moved, state = AdamW().step(moved, slopes, state, rate=1e-2)
    np.testing.assert_array_equal(whole["w"], np.concatenate([moved["low"], moved["high"]]))


@pytest.mark.parametrize("optimizer", [Sgd(), AdamW()], ids=["sgd", "adamw"])
def test_arguments_stay_and_state_is_told_apart(
    rng: np.random.Generator, optimizer: Optimizer
) -> None:
    """A step returns new arrays; one trainable knows nothing of another."""
    values, gradients = random_arrays(rng), random_arrays(rng)
    before = {name: value.copy() for name, value in values.items()}
    both, kept = optimizer.step(values, gradients, {}, rate=0.1)
    again, _ = optimizer.step(both, gradients, kept, rate=0.1)
    alone, one = optimizer.step({"vector": values["vector"]}, gradients, {}, rate=0.1)
    alone, _ = optimizer.step(alone, gradients, one, rate=0.1)

    for name, value in before.items():
        np.testing.assert_array_equal(values[name], value)
    np.testing.assert_array_equal(again["vector"], alone["vector"])


@pytest.mark.parametrize("optimizer", [Sgd(), AdamW()], ids=["sgd", "adamw"])
def test_a_trainable_that_grew_begins_anew(rng: np.random.Generator, optimizer: Optimizer) -> None:
    """As if it were new; the others go on."""
    values, gradients = random_arrays(rng), random_arrays(rng)
    values, kept = optimizer.step(values, gradients, {}, rate=0.1)
    values["vector"] = np.append(values["vector"], np.float32(0))
    gradients["vector"] = np.append(gradients["vector"], np.float32(1))

    grown, _ = optimizer.step(values, gradients, kept, rate=0.1)
    fresh, _ = optimizer.step({"vector": values["vector"]}, gradients, {}, rate=0.1)

    np.testing.assert_array_equal(grown["vector"], fresh["vector"])
    assert not np.array_equal(grown["matrix"], values["matrix"])


@given(scale=st.floats(1e-6, 1e18), most=st.floats(1e-3, 1e3))
def test_clipped_gradients_are_within_and_keep_their_direction(scale: float, most: float) -> None:
    """Also where squares are beyond float32."""
    rng = np.random.default_rng(5)
    gradients = {n: (a * np.float32(scale)) for n, a in random_arrays(rng).items()}

    clipped = clip_by_norm(gradients, most)

    assert global_norm(clipped.values()) <= most * (1 + 1e-4)
    for name, gradient in gradients.items():
        assert np.all(np.sign(clipped[name]) * np.sign(gradient) >= 0)


def test_clipping_by_value_cuts_each_number() -> None:
    """And the norm is then of what is left."""
    gradients = {"a": np.array([3, -5, 0.5], np.float32)}

    np.testing.assert_array_equal(clip_by_value(gradients, 1.0)["a"], [1, -1, 0.5])
    clipped = Clipping(norm=0.75, value=1.0).clip(gradients)["a"]
    np.testing.assert_allclose(clipped, [0.5, -0.5, 0.25], rtol=1e-5)
    assert Clipping(norm=None).clip(gradients) == gradients


def test_a_schedule_warms_up_and_falls() -> None:
    """Linearly up; then along half a cosine to its last share."""
    schedule = Schedule(rate=1.0, kind="cosine", n_warmup=4, last_share=0.1)
    rates = [schedule.at(number, 24) for number in range(1, 25)]

    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[3:] == sorted(rates[3:], reverse=True) or rates[4] > rates[3]
    assert rates[13] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rates[-1] == pytest.approx(0.1)
    assert Schedule(rate=0.3).at(17, 20) == 0.3
    assert replace(schedule, kind="constant").at(20, 24) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sgd(momentum=1),
        lambda: Sgd(momentum=0, nesterov=True),
        lambda: Sgd(decay=-1),
        lambda: AdamW(second=1),
        lambda: AdamW(epsilon=0),
        lambda: Clipping(norm=0),
        lambda: Clipping(value=math.inf),
        lambda: Schedule(rate=0),
        lambda: Schedule(rate=1, kind="linear"),
        lambda: Schedule(rate=1, n_warmup=-1),
        lambda: make_optimizer("adam"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any) -> None:
    """With the value and what it must be."""
    with pytest.raises(InputError, match=r"must be|needs"):
        make()


def test_optimizers_go_by_name() -> None:
    """As the command line gives them."""
    assert make_optimizer("adamw") == AdamW()
    assert make_optimizer("sgd") == Sgd()
