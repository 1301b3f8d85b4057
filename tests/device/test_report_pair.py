"""Two reports side by side: ratios, whether they exceed the spread, and what does not compare."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.device.report_evidence import evidence

from onhand.core.errors import InputError
from onhand.device.report_data import parse_report
from onhand.device.report_pair import Pair, PairRow, pair_reports

EXAMPLE = Path(__file__).parent / "report_example.json"


def report(**changes: Any) -> dict[str, Any]:
    """A report; free to change."""
    made: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return made | evidence() | changes


def paired(first: dict[str, Any], second: dict[str, Any]) -> Pair:
    """Both, side by side."""
    return pair_reports(parse_report(first), parse_report(second))


def rows(pair: Pair) -> dict[str, PairRow]:
    """The rows by the name of their measurement."""
    return {row.measurement: row for row in pair.rows}


def test_a_report_beside_itself_is_the_same() -> None:
    """Every ratio is 1, nothing is better, and there is nothing to warn of."""
    pair = paired(report(), report())

    assert pair.warnings == ()
    assert pair.names == ("house (first)", "house (second)")
    assert {row.tone for row in pair.rows if row.value is not None} == {"same"}
    assert {row.value for row in pair.rows if row.value is not None} == {1.0}


def test_two_variants_are_told_apart_by_their_names() -> None:
    """The default variant of each is compared: int4 with int8 of the same model."""
    pair = paired(report(), report(default_variant="int8"))
    found = rows(pair)

    assert pair.names == ("house int4", "house int8")
    assert (found["size_bytes"].ratio, found["size_bytes"].tone) == ("1.87x", "worse")
    assert found["decode_tokens_per_s"].tone == "worse"
    assert found["perplexity_increase"].tone == "better"
    assert found["compression_ratio"].first.value == "3.50x"


@pytest.mark.parametrize(("value", "tone"), [(475.0, "same"), (500.0, "better"), (450.0, "worse")])
def test_a_difference_within_the_spread_is_none(value: float, tone: str) -> None:
    """The first writes 472 tokens/s with a spread of 14.2."""
    second = report()
    second["variants"]["int4"]["figures"]["decode_tokens_per_s"]["value"] = value

    assert rows(paired(report(), second))["decode_tokens_per_s"].tone == tone


def change_device(table: dict[str, Any]) -> None:
    """The same bundle on another board."""
    table["device"]["processor"] = "Another"
    table["device"]["name"] = "board-b"


def change_text(table: dict[str, Any]) -> None:
    """Judged on another text."""
    table["text"]["heldout"] |= {"sha256": "f" * 64, "what": "another"}


def test_another_device_is_said_and_still_compared() -> None:
    """Times are what two devices are compared by; sizes are the same anywhere."""
    second = report()
    change_device(second)
    pair = paired(report(), second)

    assert pair.names == ("house, board-a", "house, board-b")
    assert "other devices" in pair.warnings[0]
    assert rows(pair)["decode_tokens_per_s"].remark == "another device"
    assert rows(pair)["decode_tokens_per_s"].ratio == "1.000x"
    assert rows(pair)["size_bytes"].remark == ""


def test_another_text_has_no_ratio() -> None:
    """Quality on one text says nothing of quality on another."""
    second = report()
    change_text(second)
    pair = paired(report(), second)
    row = rows(pair)["perplexity"]

    assert "other texts were held out" in pair.warnings[0]
    assert (row.ratio, row.tone, row.remark) == ("", "", "another text")
    assert rows(pair)["decode_tokens_per_s"].ratio == "1.000x"


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda r: r["source"].update(sha256="e" * 64), "other originals"),
        (lambda r: r["read_bandwidth"].update(value=1e9), "memory was in another state"),
        (lambda r: r["engine"].update(threads=1), "other ways of running"),
    ],
)
def test_what_may_mislead_is_said(change: Callable[[dict[str, Any]], object], warning: str) -> None:
    """Other originals, another state of the memory, another engine."""
    second = report()
    change(second)

    assert any(warning in said for said in paired(report(), second).warnings)


def test_prompts_of_other_lengths_are_said() -> None:
    """They are in the commands."""
    first, second = report(), report()
    for table, n in ((first, 512), (second, 64)):
        figure = table["variants"]["int4"]["figures"]["time_to_first_token_s"]
        figure["how"] = f"onhand bench house --prompt-tokens {n} --generated-tokens 16"

    remark = rows(paired(first, second))["time_to_first_token_s"].remark
    assert remark == "another prompt: 512 and 64 tokens"


def test_a_figure_of_one_alone_is_shown() -> None:
    """With its own value, and no ratio."""
    second = report()
    del second["variants"]["int4"]["figures"]["load_s"]
    row = rows(paired(report(), second))["load_s"]

    assert (row.second.value, row.ratio, row.tone) == ("not measured", "", "")


def test_a_network_and_a_language_model_have_nothing_in_common() -> None:
    """One sentence says so."""
    with pytest.raises(InputError, match="nothing in common"):
        paired(report(), report(kind="network"))


def test_programs_get_plain_numbers() -> None:
    """JSON without anything that is not."""
    table = json.loads(json.dumps(paired(report(), report(default_variant="int8")).to_json()))
    (size,) = [row for row in table["rows"] if row["measurement"] == "size_bytes"]

    assert size["ratio"] == pytest.approx(1.8717, rel=1e-3)
    assert size["difference"] == "worse"
