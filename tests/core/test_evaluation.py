"""The four evaluations: measured ratios, the textbook's rules, and shares that do not add up."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.evaluation import (
    MODELS,
    EvaluationName,
    Part,
    Waterfall,
    evaluate,
    inverse,
    kept_probability,
    not_evaluated,
    predict,
    quotient,
)
from onhand.core.measurement import Measurement, measurement_from_json

positive = st.floats(1e-6, 1e12)


def measured(value: float, *, spread: float = 0.0, name: str = "answer_s") -> Measurement:
    """A measurement of a time."""
    return Measurement(name=name, value=value, unit="s", samples=5, spread=spread, how="x")


@pytest.mark.parametrize(
    ("model", "ratio", "predicted"),
    [
        ("compression", 4.0, 0.25),
        ("optimisation", 0.25, 1.75),
        ("hardware", 0.25, 0.25),
        ("interaction", 0.25, 1.75),
    ],
)
def test_a_quarter_of_what_it_was(model: EvaluationName, ratio: float, predicted: float) -> None:
    """From 8 to 2: the ratio's direction and the rule of each model."""
    found = evaluate(model, measured(8.0), measured(2.0), outcome=None, missing="nobody looked")

    assert found.ratio is not None
    assert found.ratio.value == ratio
    assert found.predicted == predicted
    assert found.missing == "nobody looked"


@given(model=st.sampled_from(MODELS), value=positive)
def test_no_change_changes_nothing(model: EvaluationName, value: float) -> None:
    """Where both states are equal, ratio and prediction are 1."""
    found = evaluate(model, measured(value), measured(value), outcome=None)

    assert found.ratio is not None
    assert (found.ratio.value, found.predicted) == (1.0, 1.0)


@given(before=positive, after=positive)
def test_the_rule_is_the_tangent_of_what_is_measured(before: float, after: float) -> None:
    """A speed-up is at least what the rule promises, for T1/T2 >= 2 - T2/T1: a straight line."""
    speedup = quotient("efficiency", measured(before), measured(after)).value

    assert speedup >= predict("optimisation", before, after) - 1e-9 * speedup


@given(top=positive, bottom=positive, a=st.floats(0, 0.5), b=st.floats(0, 0.5))
def test_spreads_of_a_quotient_add_as_errors_do(
    top: float, bottom: float, a: float, b: float
) -> None:
    """Relative spreads a and b give the root of the sum of their squares."""
    made = quotient("r", measured(top, spread=top * a), measured(bottom, spread=bottom * b))

    assert made.spread == pytest.approx(made.value * math.hypot(a, b), rel=1e-9, abs=1e-300)


def test_an_estimate_in_a_quotient_makes_an_estimate() -> None:
    """Measured and estimated are never mixed in silence."""
    guess = replace(measured(1.0), estimated=True)

    assert quotient("r", guess, measured(2.0)).estimated
    assert quotient("r", measured(2.0), guess).estimated
    assert not quotient("r", measured(2.0), measured(1.0)).estimated


@pytest.mark.parametrize(("top", "bottom"), [(1.0, 0.0), (-1.0, 1.0), (1.0, math.nan)])
def test_what_cannot_be_divided_is_refused(top: float, bottom: float) -> None:
    """One sentence with both values."""
    with pytest.raises(InputError, match="must be above 0"):
        quotient("r", measured(top), measured(bottom))


def test_nothing_before_is_refused() -> None:
    """A share of nothing is no number."""
    with pytest.raises(InputError, match=r"state 1 is 0\.0"):
        predict("hardware", 0.0, 1.0)


def test_a_rate_becomes_a_time() -> None:
    """A relative spread stays what it was."""
    rate = Measurement(name="r", value=50.0, unit="1/s", samples=3, spread=5.0, how="x")
    made = inverse("token_s", rate)

    assert (made.value, made.unit) == (0.02, "s")
    assert made.spread == pytest.approx(0.002)
    with pytest.raises(InputError, match="must be above 0"):
        inverse("token_s", replace(rate, value=0.0))


def test_perplexity_is_the_inverse_of_a_mean_probability() -> None:
    """A quarter more perplexity leaves 80 % of the probability of the right token."""
    increase = replace(measured(0.25), name="perplexity_increase", interval=(0.0, 1.0))
    kept = kept_probability(increase)

    assert (kept.name, kept.value, kept.interval) == ("accuracy_kept", 0.8, (0.5, 1.0))
    assert kept_probability(replace(increase, interval=None)).interval is None
    assert kept_probability(replace(increase, interval=(-1.0, 1.0))).interval is None
    with pytest.raises(InputError, match="must be above -1"):
        kept_probability(replace(increase, value=-1.0))


def waterfall(before: float, after: float, *without: float) -> Waterfall:
    """A waterfall of as many techniques as there are figures without one."""
    return Waterfall(
        measurement="answer_s",
        before=measured(before),
        after=measured(after),
        parts=tuple(Part(label=str(i), without=measured(v)) for i, v in enumerate(without)),
        missing={"a step": "it cannot be left out"},
    )


def test_shares_and_rest_are_the_whole() -> None:
    """From 10 to 2: one technique saves 3, another 1, and both together 4 more."""
    made = waterfall(10.0, 2.0, 5.0, 3.0)

    assert made.brought() == (-3.0, -1.0)
    assert made.rest() == -4.0


@given(before=positive, after=positive, without=st.lists(positive, max_size=5).map(tuple))
def test_the_bars_always_lead_from_before_to_after(
    before: float, after: float, without: tuple[float, ...]
) -> None:
    """However the parts interact, before + shares + rest is after."""
    made = waterfall(before, after, *without)
    largest = max(before, after, *without)

    end = before + math.fsum(made.brought()) + made.rest()
    assert end == pytest.approx(after, abs=1e-9 * largest)


def test_json_holds_everything() -> None:
    """What a report keeps can be read again."""
    kept = measured(0.9, name="accuracy_kept")
    found = evaluate("compression", measured(8.0), measured(2.0), outcome=kept).to_json()
    missing = not_evaluated("hardware", "it was not asked for").to_json()
    falls = json.loads(json.dumps(waterfall(10.0, 2.0, 5.0).to_json()))

    assert measurement_from_json(found["outcome"]) == kept
    assert missing["ratio"] is None
    assert missing["missing"] == "it was not asked for"
    assert falls["parts"][0]["brought"] == -3.0
    assert falls["rest"] == -5.0
    assert falls["missing"] == {"a step": "it cannot be left out"}
