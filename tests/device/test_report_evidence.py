"""What newer reports hold is checked as a whole, and older reports are read as before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.device.report_evidence import evidence

from onhand.core.errors import InputError
from onhand.device.report_data import parse_report
from onhand.device.report_evidence import ReportEvidence
from onhand.device.report_summary import evaluation_rows, plain_summary

EXAMPLE = Path(__file__).parent / "report_example.json"


def example() -> dict[str, Any]:
    """A report of an older build."""
    made: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return made


@pytest.fixture
def report() -> dict[str, Any]:
    """A report with all that newer ones hold; free to change."""
    return example() | evidence()


def test_an_older_report_is_read_as_before() -> None:
    """It has no evidence, and that is no error."""
    assert parse_report(example()).evidence == ReportEvidence()


def test_everything_is_read(report: dict[str, Any]) -> None:
    """Contexts in order, shares computed anew, the front with its choices."""
    found = parse_report(report).evidence

    assert [one.model for one in found.evaluation] == [
        "compression",
        "optimisation",
        "hardware",
        "interaction",
    ]
    assert [one.tokens for one in found.contexts] == [16, 64, 256, 1024]
    assert found.memory is not None
    assert found.memory.phases[1] == ("opening", 1.0)
    assert found.front is not None
    assert [dot.is_chosen for dot in found.front.dots] == [False, True, False, False, False]
    assert len(found.sensitivity) == 18
    assert found.ways[1].missing == "onnx, 1 thread: it broke"


def test_shares_are_computed_and_not_believed(report: dict[str, Any]) -> None:
    """The file says that a technique brought 9 s; its figures say otherwise."""
    (fall,) = parse_report(report).evidence.waterfalls

    assert fall.brought() == pytest.approx((-0.04, 0.01))
    assert fall.rest() == pytest.approx(-0.15)


def test_a_dots_measured_value_goes_before_its_predicted_one(report: dict[str, Any]) -> None:
    """And it is known which one it is."""
    front = parse_report(report).evidence.front

    assert front is not None
    assert front.dots[1].value("size_bytes") == pytest.approx(5.05e6)
    assert front.dots[1].is_measured("size_bytes")
    assert not front.dots[1].is_measured("peak_memory_bytes")
    assert front.dots[0].value("size_bytes") == 4e6
    assert front.dots[0].value("load_s") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(evaluation={}), None),
        (lambda r: r.update(evaluation={"a": 1}), "evaluation is dict, must be a list"),
        (lambda r: r["evaluation"][0].update(model="luck"), "must be one of compression"),
        (lambda r: r["evaluation"].append(r["evaluation"][0]), "each once"),
        (lambda r: r["evaluation"][0].update(predicted="all"), r"evaluation\[0\].predicted"),
        (lambda r: r["evaluation"][0]["ratio"].update(value=1e300), "finite numbers up to"),
        (lambda r: r["contexts"][0].update(tokens=0), "must be 1 or more"),
        (lambda r: r["memory"].update(points=[[1, 2, 3]]), "has 3 items, must have 2"),
        (lambda r: r["memory"].update(points=[[2, 1], [1, 1]]), "in order of time"),
        (lambda r: r["memory"].update(points=[[0, -1]]), "not below 0"),
        (lambda r: r["memory"].update(points=[0] * 100_001), "at most 100000 are read"),
        (lambda r: r["waterfalls"][0]["parts"][0].pop("without"), "parts\\[0\\].without is miss"),
        (lambda r: r["front"].pop("points"), "front.points is missing"),
        (lambda r: r["front"]["points"][0].update(is_chosen=1), "must be true or false"),
        (lambda r: r["front"]["points"][0]["predicted"].update(a="b"), "must be a number"),
        (lambda r: r["front"]["points"][0]["choices"].update(a=4), "must be a text"),
        (lambda r: r["sensitivity"][0].update(damage=float("nan")), "is not finite"),
        (lambda r: r["ways"][0].update(threads=True), r"ways\[0\].threads is True"),
        (lambda r: r.update(measured_at="0001-01-01T00:00:00+23:59"), "no time of this calendar"),
    ],
)
def test_attack_strange_values_give_one_sentence(
    report: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    """The place, what was found, what was expected; an empty object is nothing."""
    change(report)
    if message is None:
        assert parse_report(report).evidence.evaluation == ()
        return
    with pytest.raises(InputError, match=message) as caught:
        parse_report(report)
    assert str(caught.value).startswith("report: ")
    assert "\n" not in str(caught.value)


odd = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(key=st.sampled_from(sorted(evidence())), value=odd)
def test_attack_anything_in_a_key_is_read_or_refused(key: str, value: object) -> None:
    """Nothing but InputError leaves the reader, whatever the file holds."""
    message = "report: "
    try:
        parse_report(example() | {key: value})
    except InputError as error:
        message = str(error)
    assert message.startswith("report: ")


def test_the_evaluations_are_rows_for_people(report: dict[str, Any]) -> None:
    """Ratio, what was measured, what the rule says, and how far it is off."""
    rows = evaluation_rows(parse_report(report))
    kept, missing, energy, response = rows

    assert (kept.ratio, kept.measured) == ("C = N1/N2 = 3.50x", "99.30 %")
    assert kept.predicted == "28.56 %"
    assert kept.off == "-70.7 points"
    assert (missing.ratio, missing.measured, missing.off) == ("not measured", "not measured", "")
    assert "--no-original" in missing.missing
    assert (energy.measured, energy.is_estimated) == ("about 60.00 %", True)
    assert (response.measured, response.predicted, response.off) == ("4.00x", "1.75x", "-56 %")


def test_the_summary_is_three_to_five_plain_sentences(report: dict[str, Any]) -> None:
    """What it is, costs, lost; whether the budget holds; what limits it."""
    said = plain_summary(parse_report(report))

    assert said[0] == (
        "house is a language model (llama) of 7.6 million parameters, its weights stored in 4 "
        "bits (variant int4)."
    )
    assert said[1].startswith("It takes 4.1 MiB on disk (0.29x the original's), needs at most ")
    assert "it keeps 99.30 % of the original's accuracy" in said[2]
    assert said[3] == (
        "The budget holds, all 4 limits; the tightest is Perplexity increase with 30% to spare."
    )
    assert said[4].endswith("computing and overhead limit its speed, not the memory.")


def test_the_summary_says_what_fails_and_what_is_not_known(report: dict[str, Any]) -> None:
    """Without figures there is nothing to boast of."""
    report["variants"] = {"int4": report["variants"]["int4"] | {"figures": {}, "matrices": []}}
    report["original"] = {"figures": {}, "missing": None}
    report["evaluation"] = []
    said = " ".join(plain_summary(parse_report(report)))

    assert "What it costs was not measured." in said
    assert "is not known: nothing judged it" in said
    assert "The budget does not hold: Size on disk (was not measured)" in said


def test_a_memory_that_is_read_all_the_time_limits(report: dict[str, Any]) -> None:
    """Where half of what the memory gives is read, it says so."""
    report["read_bandwidth"]["value"] = 2.5e9

    assert "memory bandwidth limits its speed" in plain_summary(parse_report(report))[4]
