"""A number with its proof: from samples, to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand import Measurement
from onhand.core.errors import InputError
from onhand.core.measurement import measurement_from_json, summarize

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_a_summary_is_the_median_and_the_quartiles() -> None:
    """By hand: of 1, 2, 3, 4 and 100 the middle is 3, the quartiles are 2 and 4."""
    made = summarize("load_s", [4.0, 1.0, 100.0, 3.0, 2.0], unit="s", how="onhand bench x")

    assert made == Measurement(
        name="load_s", value=3.0, unit="s", samples=5, spread=2.0, how="onhand bench x"
    )


def test_no_samples_is_an_error() -> None:
    """Nothing measured gives no figure."""
    with pytest.raises(InputError, match="load_s: no samples"):
        summarize("load_s", [], unit="s", how="onhand bench x")


@given(
    name=st.text(),
    value=finite,
    unit=st.sampled_from(["s", "byte", "joule", "fraction", "nat", "1/s", "byte/s", "one"]),
    samples=st.integers(0, 10**9),
    spread=finite,
    estimated=st.booleans(),
    interval=st.none() | st.tuples(finite, finite),
)
def test_json_keeps_everything(**fields: object) -> None:
    """Written as JSON text and read back, a measurement is the same."""
    made = Measurement(how="onhand bench x", **fields)  # type: ignore[arg-type]  # drawn by name

    assert measurement_from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "ms"}, "unknown unit 'ms'"),
        ({"unit": ["s"]}, "unknown unit"),
        ({"value": "fast"}, "not a measurement"),
        ({"value": None}, "not a measurement"),
        ({"value": 10**400}, "not a measurement"),
        ({"samples": float("inf")}, "not a measurement"),
        ({"interval": [1.0]}, "not a measurement"),
        ({"interval": 1.0}, "not a measurement"),
        ({"interval": {"low": 1}}, "not a measurement"),
        ({"estimated": "no"}, "not a measurement"),
        ({"colour": "red"}, "not a measurement.*colour"),
    ],
)
def test_attack_wrong_json_is_one_sentence(change: dict[str, object], message: str) -> None:
    """A value that cannot be believed is refused, whatever is wrong with it."""
    good = summarize("load_s", [1.0], unit="s", how="onhand bench x").to_json()

    with pytest.raises(InputError, match=message):
        measurement_from_json(good | change)


@pytest.mark.parametrize("missing", ["name", "value", "unit", "samples", "spread", "how"])
def test_every_part_is_needed(missing: str) -> None:
    """A figure without its unit, spread or origin is no measurement."""
    good = summarize("load_s", [1.0], unit="s", how="onhand bench x").to_json()
    del good[missing]

    with pytest.raises(InputError, match=missing):
        measurement_from_json(good)


def test_a_bare_number_is_no_measurement() -> None:
    """The message says what was found."""
    with pytest.raises(InputError, match="must be a JSON object, found float"):
        measurement_from_json(1.0)
