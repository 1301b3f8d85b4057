"""A report is checked as a whole, and its rows say what the figures say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onhand.core.errors import InputError
from onhand.device.report_data import parse_report
from onhand.device.report_view import (
    ReportRow,
    report_headline,
    report_limits,
    report_rows,
    show_figure,
    summarize_report,
)

EXAMPLE = Path(__file__).parent / "report_example.json"


@pytest.fixture
def report() -> dict[str, Any]:
    """A report of three variants, as `report.json` holds it; free to change."""
    made: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return made


def rows_by_name(report: dict[str, Any], variant: str | None = None) -> dict[str, ReportRow]:
    """The rows of one variant by the name of their measurement."""
    return {row.measurement: row for row in summarize_report(report, variant=variant)}


def test_a_row_sets_the_variant_beside_the_original(report: dict[str, Any]) -> None:
    """Values carry units, spread or interval, and a ratio that the reader can check."""
    rows = rows_by_name(report)
    size, decode = rows["size_bytes"], rows["decode_tokens_per_s"]

    assert (size.original.text, size.variant.text, size.ratio) == ("14.5 MiB", "4.1 MiB", "0.29x")
    assert decode.variant.text == "472.0 tokens/s (IQR 14.2 tokens/s, 5 runs)"
    assert (decode.ratio, decode.tone) == ("2.21x", "better")
    assert rows["perplexity"].original.text == "4.103 (95 %: 4.041 to 4.167)"
    assert rows["kl_divergence"].original.value == "reference"


def test_each_variant_has_its_own_figures_in_equal_rows(report: dict[str, Any]) -> None:
    """Variants differ in figures, never in which rows there are."""
    report["variants"]["int8"]["figures"]["exact_match"] = {
        **report["variants"]["int8"]["figures"]["top1_agreement"],
        "name": "exact_match",
    }
    del report["variants"]["int8"]["figures"]["load_s"]
    tables = [rows_by_name(report, name) for name in ("int4", "int8")]

    assert list(tables[0]) == list(tables[1])
    assert tables[0]["size_bytes"].variant.value == "4.1 MiB"
    assert tables[1]["size_bytes"].variant.value == "7.8 MiB"
    assert tables[1]["load_s"].variant.text == "not measured"
    assert tables[1]["exact_match"].variant.value == "0.996"
    assert "original_perplexity" not in tables[0]


def test_an_estimate_never_looks_measured(report: dict[str, Any]) -> None:
    """An estimated figure says so in a word of its own and in its text."""
    rows = rows_by_name(report)

    assert rows["energy_j_per_token"].variant.evidence == "estimated"
    assert rows["energy_j_per_token"].variant.value == "about 24.4 mJ"
    assert rows["decode_tokens_per_s"].variant.evidence == "measured"
    assert rows["energy_j_per_token"].original.evidence == ""


@pytest.mark.parametrize(
    ("value", "spread", "tone"),
    [(300.0, 2.0, "better"), (100.0, 2.0, "worse"), (216.0, 2.0, "same"), (204.0, 12.0, "same")],
)
def test_a_difference_within_the_spread_is_none(
    report: dict[str, Any], value: float, spread: float, tone: str
) -> None:
    """The original decodes 214 tokens/s, its runs spread by 9."""
    decode = report["variants"]["int4"]["figures"]["decode_tokens_per_s"]
    decode |= {"value": value, "spread": spread}

    assert rows_by_name(report)["decode_tokens_per_s"].tone == tone


def test_perplexity_is_judged_by_the_interval_of_its_increase(report: dict[str, Any]) -> None:
    """Intervals of the two perplexities overlap always; that of their ratio decides."""
    tones = {name: rows_by_name(report, name)["perplexity"].tone for name in report["variants"]}

    assert tones == {"int8": "same", "int4": "worse", "int4-wide": "worse"}


def test_the_originals_own_perplexity_comes_first(report: dict[str, Any]) -> None:
    """A figure of the original itself stands before the copy that a variant holds."""
    own = report["variants"]["int4"]["figures"]["original_perplexity"]
    report["original"]["figures"]["perplexity"] = own | {"name": "perplexity", "value": 4.05}

    assert rows_by_name(report)["perplexity"].original.value == "4.050"


def test_limits_are_judged_on_the_slow_side(report: dict[str, Any]) -> None:
    """A rate loses its spread before it meets its floor."""
    limits = {row.key: row for row in report_limits(parse_report(report))}

    assert all(row.holds for row in limits.values())
    assert limits["decode"].found == "457.8 tokens/s (slow side)"
    assert limits["decode"].limit == "at least 300.0 tokens/s"
    assert limits["disk"].why == "31% to spare"


def test_what_nobody_measured_does_not_hold(report: dict[str, Any]) -> None:
    """A limit without a figure fails, whatever the list of breaches says."""
    del report["variants"]["int4"]["figures"]["size_bytes"]
    row = report_limits(parse_report(report))[0]

    assert (row.key, row.holds, row.found) == ("disk", False, "not measured")
    assert row.why == "was not measured"


def test_a_figure_past_its_limit_fails_without_a_breach(report: dict[str, Any]) -> None:
    """Figures and breaches that contradict each other never make a pass."""
    report["budget"]["limits"]["disk"] = 4e6
    row = report_limits(parse_report(report))[0]

    assert not row.holds
    assert "lists no breach" in row.why


def test_a_breach_shows_its_own_reason(report: dict[str, Any]) -> None:
    """What the budget said at build time is what the reader sees."""
    why = "is only estimated (0.0244 J/token); give --accept-estimates"
    report["budget"] = {
        "limits": {"energy": 0.05},
        "breaches": [{"key": "energy", "ceiling": 0.05, "found": 0.0244, "why": why}],
    }
    (row,) = report_limits(parse_report(report))

    assert (row.holds, row.why) == (False, why)
    assert row.found == "about 25 mJ (slow side)"


def test_the_headline_says_what_was_reached_and_the_verdict(report: dict[str, Any]) -> None:
    """One sentence: size, quality, speed, budget."""
    assert report_headline(parse_report(report)) == (
        "Variant int4 takes 4.1 MiB on disk, 0.29x the original's 14.5 MiB, changes perplexity by "
        "+0.70 %, makes the original's first choice for 97.19 % of the tokens and writes "
        "472.0 tokens/s (2.21x the original's); the budget holds."
    )


def test_the_headline_names_what_fails(report: dict[str, Any]) -> None:
    """Limits that do not hold are named; without figures and limits it says that."""
    report["budget"]["limits"] |= {"disk": 1.0}
    assert report_headline(parse_report(report)).endswith("the budget does not hold: disk.")

    report["budget"]["limits"] = {}
    report["variants"]["int4"]["figures"] = {}
    bare = report_headline(parse_report(report))
    assert bare == "Variant int4 has no measured figures; no budget was set."


def test_the_default_variant_comes_first(report: dict[str, Any]) -> None:
    """Readers see the default variant before the others."""
    assert list(parse_report(report).variants) == ["int4", "int8", "int4-wide"]


def test_a_calibration_text_may_be_absent(report: dict[str, Any]) -> None:
    """Plain rounding reads no text."""
    report["text"]["calibration"] = None

    assert parse_report(report).calibration is None


def test_an_unknown_variant_is_refused(report: dict[str, Any]) -> None:
    """The error names those there are."""
    with pytest.raises(InputError, match="no variant 'int2'; it has int4, int8, int4-wide"):
        report_rows(parse_report(report), variant="int2")


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "device.processor",
        "engine.threads",
        "source.n_parameters",
        "original.figures",
        "variants.int8.figures",
        "variants.int8.matrices",
        "variants.int8.kept",
        "text.heldout",
        "text.calibration.sha256",
        "budget.limits",
        "budget.breaches",
        "energy.how",
        "notes",
    ],
)
def test_what_is_missing_is_named(report: dict[str, Any], path: str) -> None:
    """The error gives the whole path of the missing key."""
    *parents, last = path.split(".")
    table = report
    for parent in parents:
        table = table[parent]
    del table[last]

    with pytest.raises(InputError, match=rf"^report: {path} is missing$"):
        parse_report(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=2), "format is 2, this reader knows 1"),
        (lambda r: r.update(name=3), "name is 3, must be a text"),
        (lambda r: r.update(name="\ud800"), "must be valid Unicode"),
        (lambda r: r.update(default_variant="int2"), "the variants are int8, int4, int4-wide"),
        (lambda r: r.update(variants={}), "the variants are none"),
        (lambda r: r.update(measured_at="yesterday"), "must be a time as in ISO 8601"),
        (lambda r: r.update(measured_at="2025-03-04T05:06:07"), "must name its time zone"),
        (lambda r: r.update(notes="none"), "notes is str, must be a list"),
        (lambda r: r["engine"].update(threads=True), "engine.threads is True"),
        (lambda r: r["engine"].update(threads=1.5), "engine.threads is 1.5"),
        (lambda r: r["device"].update(read_bandwidth=["a"]), r"read_bandwidth\[0\] is 'a'"),
        (lambda r: r["energy"].update(estimated=1), "must be true or false"),
        (lambda r: r["budget"].update(limits={"weight": 1}), "the budget has 'weight', known:"),
        (lambda r: r["budget"].update(limits={"disk": 10**400}), "is not finite"),
        (lambda r: r["original"].update(missing=4), "original.missing is 4"),
        (lambda r: r["read_bandwidth"].update(value=float("nan")), "must be finite"),
        (lambda r: r["read_bandwidth"].update(spread=-1.0), "is negative"),
        (lambda r: r["read_bandwidth"].update(interval=[2, 1]), "is negative"),
        (lambda r: r["read_bandwidth"].pop("unit"), "read_bandwidth: not a measurement"),
        (
            lambda r: r["variants"]["int8"]["figures"]["load_s"].update(name="ram"),
            "figures.load_s is a measurement of 'ram'",
        ),
        (
            lambda r: r["variants"]["int8"]["matrices"][3].pop("bits"),
            r"variants.int8.matrices\[3\].bits is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(
    report: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """A wrong value is refused with its place, what was found and what was expected."""
    change(report)

    with pytest.raises(InputError, match=message):
        parse_report(report)


@pytest.mark.parametrize(
    ("measurement", "value", "text"),
    [
        ("size_bytes", 4341760.0, "4.1 MiB"),
        ("time_to_first_token_s", 0.0096, "9.6 ms"),
        ("prefill_tokens_per_s", 6410.0, "6,410 tokens/s"),
        ("energy_j_per_token", 0.0244, "24.4 mJ"),
        ("perplexity_increase", -0.0004, "-0.04 %"),
        ("original_perplexity", 4.1, "4.100"),
        ("read_bandwidth", 16.9e9, "16.9 GB/s"),
        ("exact_match", 0.98, "0.98"),
    ],
)
def test_values_are_shown_in_units_of_people(measurement: str, value: float, text: str) -> None:
    """SI values become the units that each figure is read in; unknown ones stay numbers."""
    assert show_figure(measurement, value) == text
