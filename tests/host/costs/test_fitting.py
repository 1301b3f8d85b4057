"""`onhand.host.costs.fitting`: from timed steps to what explains them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.costs.parts import CALIBRATION

from onhand.host.costs.calibration import StepCosts
from onhand.host.costs.fitting import Timed, explained_s, fit_parts, fit_step_costs, spread_of
from onhand.host.costs.synthetic import Sizes
from onhand.host.costs.work import step_work

SAMPLES = [
    Sizes(),
    Sizes(n_layers=12),
    Sizes(width=256, mlp_width=1024, n_heads=4, head_dim=64),
    Sizes(width=160, n_layers=4, n_heads=10, n_kv_heads=5, head_dim=16),
]


def timed(costs: StepCosts, *, threads: int, products_s: float = 3e-6) -> list[Timed]:
    """Steps that take exactly what some costs say."""
    found = []
    for sizes in SAMPLES:
        for context in (20, 150, 1000):
            work = step_work(sizes.decoder, context=context, threads=threads)
            read = sizes.width * sizes.mlp_width * sizes.n_layers
            seconds = products_s + read * costs.byte_s + explained_s(costs, work, threads=threads)
            found.append(
                Timed(
                    seconds=seconds,
                    products_s=products_s,
                    work=work,
                    threads=threads,
                    weight_bytes=read,
                )
            )
    return found


costs_s = st.floats(0, 1e-5)


@settings(max_examples=30)
@given(
    step=st.floats(1e-7, 1e-5),
    layer=costs_s,
    value=st.floats(0, 1e-8),
    pair=costs_s,
    byte=st.floats(0, 1e-10),
)
def test_what_made_the_times_is_found(
    step: float, layer: float, value: float, pair: float, byte: float
) -> None:
    """Steps that follow the model exactly are explained exactly."""
    made = StepCosts(
        step_s=step,
        layer_s=layer,
        value_s=value,
        score_s=1e-10,
        pair_s=pair,
        meet_s=0.0,
        byte_s=byte,
    )

    found, spread = fit_step_costs(timed(made, threads=1))

    assert spread < 1e-6
    for one in timed(made, threads=1):
        said = one.products_s + one.weight_bytes * found.byte_s
        said += explained_s(found, one.work, threads=1)
        assert said == pytest.approx(one.seconds, rel=1e-6)


def test_waiting_for_each_other_is_found_from_more_threads() -> None:
    """What steps usually show: that other processes disturb one of them changes nothing."""
    costs = CALIBRATION.step
    steps = timed(costs, threads=2)
    disturbed = replace(steps[0], seconds=3 * steps[0].seconds)

    found, _ = fit_step_costs([*timed(costs, threads=1), *steps, disturbed])

    assert found.meet_s == pytest.approx(costs.meet_s, rel=1e-3)


def test_one_thread_waits_for_nobody() -> None:
    """Without steps of more threads there is nothing to find."""
    costs = CALIBRATION.step
    work = step_work(SAMPLES[0].decoder, context=10, threads=1)

    found, _ = fit_step_costs(timed(costs, threads=1))

    assert found.meet_s == 0
    assert explained_s(costs, work, threads=1) == pytest.approx(
        explained_s(replace(costs, meet_s=1.0), work, threads=1)
    )


def test_no_part_is_below_zero() -> None:
    """Where least squares alone would say so, the part is left out."""
    near = timed(CALIBRATION.step, threads=1)[:3]

    parts = fit_parts([[1, 1], [1, 2], [1, 3]], [3.0, 2.0, 1.0], near=near)

    assert min(parts) >= 0
    assert max(parts) > 0


def test_the_spread_is_that_of_most_forecasts() -> None:
    """One in five may lie further off; it is never beyond the whole."""
    assert spread_of([1.0, 1.1, 0.9, 1.0, 5.0], [1.0] * 5) == pytest.approx(0.88, rel=0.01)
    assert spread_of([9.0], [1.0]) == 1.0
