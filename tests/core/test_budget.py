"""Limits are read as people write them, and hold only what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand import Breach, Budget, Measurement
from onhand.core.budget import AXES, parse_budget
from onhand.core.errors import InputError


def figure(name: str, value: float, *, spread: float = 0.0, estimated: bool = False) -> Measurement:
    """A measurement with the parts that a budget looks at."""
    return Measurement(
        name=name,
        value=value,
        unit="one",
        samples=5,
        spread=spread,
        how="onhand bench x",
        estimated=estimated,
    )


def test_every_axis_is_read_in_its_own_units() -> None:
    """One text with all eleven limits."""
    text = (
        "disk=400MiB, ram=600MiB,quality=1%,loss=2%,latency=3ms,load=250ms,cold-start=1min,"
        "first-token=0.5s,prefill=100tok/s,decode=20,energy=3mJ,"
    )

    assert parse_budget(text) == Budget(
        size_bytes=400 * 2**20,
        peak_memory_bytes=600 * 2**20,
        perplexity_increase=0.01,
        quality_loss=0.02,
        latency_s=0.003,
        load_s=0.25,
        cold_start_s=60.0,
        time_to_first_token_s=0.5,
        prefill_tokens_per_s=100.0,
        decode_tokens_per_s=20.0,
        energy_j_per_token=0.003,
    )


def test_limits_are_in_the_order_of_the_axes() -> None:
    """Only what is set is listed, by its short name."""
    assert list(parse_budget("decode=20,disk=1k").limits().items()) == [
        ("disk", 1024.0),
        ("decode", 20.0),
    ]
    assert parse_budget("") == Budget()
    assert Budget().limits() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dsk=1", "budget: unknown key 'dsk'; did you mean 'disk'?"),
        ("xyz=1", "budget: unknown key 'xyz'; known: disk, ram, quality"),
        ("disk", "budget: 'disk' needs a value, as in disk=1"),
        ("disk=1,disk=2", "budget: 'disk' is given twice"),
        ("disk=big", "budget: disk: 'big' is not a number"),
        ("disk=", "budget: disk: '' is not a number"),
        ("decode=5ms", "budget: decode: '5ms': unknown unit 'ms'"),
    ],
)
def test_a_slip_says_what_was_meant(text: str, message: str) -> None:
    """The key, what was found and what would do."""
    with pytest.raises(InputError) as caught:
        parse_budget(text)

    assert message in str(caught.value)


def test_a_ceiling_holds_up_to_its_value() -> None:
    """Exactly at the limit is inside; a byte more is not."""
    budget = Budget(size_bytes=1000)

    assert budget.breaches([figure("size_bytes", 1000)]) == []
    assert budget.breaches([figure("size_bytes", 1001)]) == [
        Breach(key="disk", ceiling=1000, found=1001, why="is 1001 B, at most 1000 B allowed")
    ]


def test_a_floor_holds_from_its_value_on() -> None:
    """A rate must be at least its limit."""
    budget = Budget(decode_tokens_per_s=20)

    assert budget.breaches([figure("decode_tokens_per_s", 20)]) == []
    (breach,) = budget.breaches([figure("decode_tokens_per_s", 19.9)])
    assert (breach.key, breach.found) == ("decode", 19.9)
    assert "is 19.9 tokens/s" in breach.why
    assert "at least 20.0 tokens/s allowed" in breach.why


@pytest.mark.parametrize(
    ("name", "value", "spread", "judged"),
    [
        ("load_s", 0.9, 0.2, 1.1),
        ("cold_start_s", 0.9, 0.2, 1.1),
        ("time_to_first_token_s", 0.9, 0.2, 1.1),
        ("energy_j_per_token", 0.9, 0.2, 1.1),
        ("prefill_tokens_per_s", 1.1, 0.2, 0.9),
        ("decode_tokens_per_s", 1.1, 0.2, 0.9),
    ],
)
def test_times_are_judged_on_the_slow_side(
    name: str, value: float, spread: float, judged: float
) -> None:
    """The median holds the limit of 1 and the slow quartile does not: a breach."""
    budget = Budget(**{name: 1.0})

    assert budget.breaches([figure(name, value)]) == []
    (breach,) = budget.breaches([figure(name, value, spread=spread)])
    assert breach.found == pytest.approx(judged)
    assert "slow side" in breach.why


@pytest.mark.parametrize("name", ["size_bytes", "peak_memory_bytes", "perplexity_increase"])
def test_sizes_and_quality_are_judged_by_their_value(name: str) -> None:
    """Their spread is not the machine's mood."""
    assert Budget(**{name: 1.0}).breaches([figure(name, 1.0, spread=5.0)]) == []


def test_what_was_not_measured_does_not_hold() -> None:
    """Silence is not a pass."""
    assert Budget(load_s=1.0).breaches([figure("size_bytes", 1)]) == [
        Breach(key="load", ceiling=1.0, found=None, why="was not measured")
    ]


def test_an_estimate_holds_only_where_estimates_are_accepted() -> None:
    """And is still judged there."""
    budget = Budget(energy_j_per_token=1.0)
    low = [figure("energy_j_per_token", 0.5, estimated=True)]
    high = [figure("energy_j_per_token", 2.0, estimated=True)]

    (breach,) = budget.breaches(low)

    assert breach.found == 0.5
    assert "is only estimated (0.5 J/token); give --accept-estimates" in breach.why
    assert budget.breaches(low, accept_estimates=True) == []
    assert len(budget.breaches(high, accept_estimates=True)) == 1


@pytest.mark.parametrize("key", list(AXES))
def test_a_figure_that_is_not_a_number_never_holds(key: str) -> None:
    """A NaN is under no ceiling and over no floor, and the message can show it."""
    name = AXES[key].measurement

    (breach,) = Budget(**{name: 1.0}).breaches([figure(name, float("nan"))])

    assert breach.key == key
    assert "nan" in breach.why


@given(st.dictionaries(st.sampled_from(list(AXES)), st.integers(0, 10**6)))
def test_a_budget_of_bare_numbers_is_read_as_given(limits: dict[str, int]) -> None:
    """A number without a unit is in SI units (bytes, seconds, tokens per second, joules)."""
    text = ",".join(f"{key}={value}" for key, value in limits.items())

    assert parse_budget(text).limits() == limits
