"""`onhand.host.costs.calibration`: parts of a device, between and beyond what was timed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.host.costs.parts import CALIBRATION, FORMS

from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat
from onhand.host.costs.calibration import Calibration, Speed, calibration_from_json


def test_json_holds_all_of_it() -> None:
    """What is read is what was written."""
    text = json.dumps(CALIBRATION.to_json())

    assert calibration_from_json(json.loads(text)) == CALIBRATION


@pytest.mark.parametrize(
    "value", [None, [], {}, {**CALIBRATION.to_json(), "step": {}}, {"products": 3}]
)
def test_what_is_damaged_is_an_error(value: object) -> None:
    """Never a half-read calibration."""
    with pytest.raises(InputError, match="calibration: damaged"):
        calibration_from_json(value)


def test_rows_between_those_that_were_timed_cost_what_lies_between() -> None:
    """By the logarithm; beyond the last as the last."""
    form = GroupFormat()

    assert CALIBRATION.product(form, 1)[0] == 2e-11
    assert CALIBRATION.product(form, 16)[0] == pytest.approx(1.5e-11)
    assert CALIBRATION.product(form, 256) == CALIBRATION.product(form, 4096)


def test_floats_have_no_groups() -> None:
    """None stands for float32."""
    assert CALIBRATION.product(None, 1) == (1e-10, 0.0)


def test_a_format_that_was_not_timed_is_an_error() -> None:
    """A forecast never guesses a kernel."""
    bare = calibration_from_json({**CALIBRATION.to_json(), "products": []})

    with pytest.raises(InputError, match="no product of 3 bits"):
        bare.product(GroupFormat(bits=3), 1)
    with pytest.raises(InputError, match="no product of 32 bits"):
        bare.product(None, 1)


@given(low=st.floats(1e3, 1e9), high=st.floats(1e3, 1e9), threads=st.integers(1, 4))
def test_more_to_read_is_never_quicker(low: float, high: float, threads: int) -> None:
    """Caches hold less of it."""
    small, large = sorted((low, high))

    assert CALIBRATION.bytes_per_s(small, threads) >= CALIBRATION.bytes_per_s(large, threads)


def test_threads_that_were_not_measured_read_as_fewer_do() -> None:
    """The next smaller number that was."""
    assert CALIBRATION.bytes_per_s(2**30, 7) == 10e9
    assert CALIBRATION.bytes_per_s(2**30, 1) == 8e9


def test_slower_memory_slows_memory_and_no_cache() -> None:
    """What caches hold is as quick as before."""
    slow = CALIBRATION.at_bandwidth((4e9, 5e9))

    assert slow.bytes_per_s(2**19, 1) == pytest.approx(80e9)
    assert slow.bytes_per_s(2**26, 1) == pytest.approx(4e9)
    assert slow.bytes_per_s(2**26, 2) == pytest.approx(5e9)
    assert slow.read_bandwidth == (4e9, 5e9)


def test_bandwidth_that_is_not_known_changes_nothing() -> None:
    """A profile that was never probed has none."""
    same = CALIBRATION.at_bandwidth(())

    assert same.streams == CALIBRATION.streams
    assert isinstance(same, Calibration)


def test_a_slower_processor_slows_all_but_memory() -> None:
    """Products by what products show, the rest by what steps show; twice back is where one was."""
    slow = CALIBRATION.at_speed(Speed(product_s=3e-6, step_s=2e-5))

    assert slow.product(GroupFormat(), 1)[0] == pytest.approx(1.5 * 2e-11)
    assert slow.step.step_s == pytest.approx(2 * CALIBRATION.step.step_s)
    assert slow.start.hash_bytes_per_s == pytest.approx(CALIBRATION.start.hash_bytes_per_s / 2)
    assert slow.streams == CALIBRATION.streams
    back = slow.at_speed(CALIBRATION.speed)
    assert back.prompt.value_s == pytest.approx(CALIBRATION.prompt.value_s)
    assert back.text_s == pytest.approx(CALIBRATION.text_s)


def test_a_speed_that_nobody_knows_changes_nothing() -> None:
    """As of a device that is known by its profile alone."""
    same = CALIBRATION.at_speed(Speed(product_s=0.0, step_s=0.0))

    assert same.products == CALIBRATION.products
    assert same.step == CALIBRATION.step


def test_every_format_is_known() -> None:
    """All that a matrix may be stored in."""
    assert all(CALIBRATION.product(form, 8)[0] > 0 for form in FORMS)
