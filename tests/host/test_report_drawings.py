"""The drawings of a report's page: scales that hold, marks that speak, tables beside them."""

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.report_evidence import evidence

from onhand.device.report_data import parse_report
from onhand.device.report_evidence import SensitivityCell
from onhand.device.report_records import Report
from onhand.host.report_front import front_axes, front_plots, front_rows, front_sentence
from onhand.host.report_heat import matrix_heat, sensitivity_heat
from onhand.host.report_pair import render_pair
from onhand.host.report_series import context_plots, memory_plot, waterfall_plots
from onhand.host.report_svg import Canvas, cut, linear_scale, log_scale

EXAMPLE = Path(__file__).parents[1] / "device" / "report_example.json"
numbers = st.floats(-1e30, 1e30)


def table(**changes: Any) -> dict[str, Any]:
    """A report with all evidence."""
    made: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return made | evidence() | changes


@pytest.fixture(scope="module")
def report() -> Report:
    """The same, read."""
    return parse_report(table())


def drawn(svg: str) -> ElementTree.Element:
    """What a browser would make of a drawing; every number in it is finite."""
    places = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|d|width|height|points)="([^"]*)"', svg)
    assert not [one for one in places if "nan" in one or "inf" in one]
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def tips(svg: str) -> list[str]:
    """What the marks of a drawing say."""
    found = [one.get("data-tip") for one in drawn(svg).iter() if one.get("data-tip")]
    return [tip for tip in found if tip is not None]


@given(values=st.lists(numbers, min_size=1, max_size=20), zero=st.booleans())
def test_a_linear_scale_holds_its_values(values: list[float], zero: bool) -> None:
    """Every value lies between both ends, and so does every mark; there are few of these."""
    scale = linear_scale(values, 10.0, 500.0, zero=zero)

    assert scale.low < scale.high
    for value in (*values, *scale.ticks):
        assert 10.0 - 1e-6 <= scale.place(value) <= 500.0 + 1e-6
    assert len(scale.ticks) <= 7
    assert not zero or scale.low <= 0 <= scale.high


@given(values=st.lists(st.floats(1e-12, 1e30), min_size=1, max_size=20), base=st.integers(2, 10))
def test_a_log_scale_holds_its_values(values: list[float], base: int) -> None:
    """Equal ratios take equal room."""
    scale = log_scale(values, 10.0, 500.0, base=base)

    for value in values:
        assert 10.0 - 1e-6 <= scale.place(value) <= 500.0 + 1e-6
    assert len(scale.ticks) <= 13
    middle = math.sqrt(scale.low) * math.sqrt(scale.high)
    assert scale.place(middle) == pytest.approx(255.0)


@given(text=st.text(max_size=40))
def test_any_text_is_text_in_a_drawing(text: str) -> None:
    """Markup, quotes and control characters neither break a drawing nor leave their place."""
    canvas = Canvas(100, 100)
    canvas.text(1, 1, text)
    canvas.mark(1, 1, tip=text, colour="red")
    canvas.cell(1, 1, 9, 9, tip=text, level=0, text=text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    tags = {one.tag for one in drawn(canvas.svg(text)).iter()}

    assert tags <= {"svg", "text", "g", "title", "circle", "rect"}


def test_a_long_text_is_cut_and_shows_it() -> None:
    """With a sign in the place of what is missing."""
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"


def test_every_plane_of_the_front_is_drawn(report: Report) -> None:
    """Four costs and one quality; each point says its choice, its figures and their evidence."""
    costs, qualities = front_axes(report)
    plots = front_plots(report)

    assert qualities == ("perplexity_increase",)
    assert costs == (
        "size_bytes",
        "peak_memory_bytes",
        "decode_tokens_per_s",
        "energy_j_per_token",
    )
    assert [plot.x for plot in plots] == list(costs)
    said = tips(plots[0].svg)
    assert len(said) == 5
    chosen = next(tip for tip in said if "this bundle" in tip)
    assert chosen.startswith("choice 1\nSize on disk: 4.8 MiB (measured)")
    assert "int8 for 2 groups" in chosen
    assert sum("(estimated)" in tip for tip in said) == 4


def test_the_table_of_the_front_says_the_same(report: Report) -> None:
    """For those who cannot see the plot."""
    rows = front_rows(report)

    assert [row.state for row in rows].count("on the front") == 3
    assert rows[0].state == "chosen"
    assert rows[0].values[0] == ("+1.32 %", "measured")
    assert "1 was built" in front_sentence(report)


def test_without_a_search_the_variants_are_the_points() -> None:
    """The original lost nothing by definition; intervals are drawn."""
    plain = parse_report(table(front=None))
    plots = front_plots(plain)

    assert plots[0].title == "Perplexity increase against size on disk"
    assert len(tips(plots[0].svg)) == 4
    assert {plot.y for plot in plots} == {"perplexity_increase", "kl_divergence"}
    assert 'class="interval"' in plots[0].svg
    assert front_rows(plain)[0].label == "original"
    assert "all of them measured" in front_sentence(plain)


def test_a_matrix_is_a_cell_with_its_bits(report: Report) -> None:
    """The embedding has a row of its own; each cell says bits, errors and size."""
    matrices = report.variants["int4"].matrices
    heat = matrix_heat(matrices, name="int4")

    assert heat is not None
    assert len(tips(heat.svg)) == len(matrices)
    assert ">layer 0<" in heat.svg
    assert ">embed<" in heat.svg
    assert len(heat.legend) == 6
    assert matrix_heat([], name="int4") is None


def test_more_damage_is_another_colour(report: Report) -> None:
    """Two bits of the last layer are the worst, eight of the first the best."""
    heat = sensitivity_heat(report.evidence.sensitivity)

    assert heat is not None
    said = tips(heat.svg)
    assert len(said) == 18
    levels = re.findall(r'class="heat-(\d)"', heat.svg)
    assert {"0", "5"} < set(levels) <= set("012345")
    assert sensitivity_heat([]) is None


def test_of_many_choices_each_number_of_bits_shows_its_best() -> None:
    """A search tries dozens of formats: none is cut off, and every width has its column."""
    cells = [
        SensitivityCell(
            group="layers.0.qkv",
            choice=f"int{bits} g{size}{zeros}",
            bits=bits,
            damage=size / 2**bits,
            size_bytes=100.0,
        )
        for bits in (2, 3, 4, 8)
        for size in (32, 64, 128)
        for zeros in ("", " asymmetric")
    ]

    heat = sensitivity_heat(cells)

    assert heat is not None
    for bits in (2, 3, 4, 8):
        assert f"{bits} bits<" in heat.svg
        assert f"int{bits} g32 ({bits} bits)" in heat.svg
    assert "g128" not in heat.svg


def test_time_and_context_are_drawn(report: Report) -> None:
    """The highest point of memory can be pointed at; phases have numbers and a legend."""
    memory = memory_plot(report.evidence.memory)
    plots = context_plots(report.evidence.contexts)

    assert memory is not None
    assert any(tip.startswith("37.2 MiB") for tip in tips(memory.svg))
    assert memory.notes[1] == "2 opening (1.0 s)"
    assert [len(tips(plot.svg)) for plot in plots] == [4, 4]
    assert memory_plot(None) is None
    assert context_plots(report.evidence.contexts[:1]) == []


def test_a_waterfall_shows_the_rest_and_what_is_missing(report: Report) -> None:
    """Before, two techniques, what they bring together beyond their sum, after."""
    (fall,) = waterfall_plots(report.evidence.waterfalls)

    assert [row.brought for row in fall.rows] == [
        "",
        "\u221240.0 ms",
        "+10.0 ms",
        "\u2212150.0 ms",
        "",
    ]
    assert 'class="bar-good"' in fall.svg
    assert 'class="bar-bad"' in fall.svg
    assert 'class="bar-rest"' in fall.svg
    assert fall.missing == (("compression", "it cannot be left out"),)


def test_figures_of_any_size_can_be_drawn() -> None:
    """What the reader lets through is drawn without an error, however odd."""
    strange = table()
    strange["memory"]["points"] = [[0, 0], [1e30, 10**30]]
    strange["contexts"] = strange["contexts"][:2]
    strange["contexts"][0]["tokens"] = 10**29
    strange["contexts"][0]["decode_tokens_per_s"]["value"] = -1e30
    strange["waterfalls"][0]["before"]["value"] = 1e30
    strange["waterfalls"][0]["after"]["value"] = -1e30
    strange["sensitivity"][0]["damage"] = 1e30
    strange["sensitivity"][1]["damage"] = -1e30
    for i, point in enumerate(strange["front"]["points"]):
        point["predicted"] = {"size_bytes": 1e30 * (-1) ** i, "perplexity_increase": 0.0}
        point["measured"] = None
    found = parse_report(strange)

    for svg in (
        *(plot.svg for plot in front_plots(found)),
        *(plot.svg for plot in context_plots(found.evidence.contexts)),
        *(plot.svg for plot in waterfall_plots(found.evidence.waterfalls)),
        *(heat.svg for heat in [sensitivity_heat(found.evidence.sensitivity)] if heat),
        *(plot.svg for plot in [memory_plot(found.evidence.memory)] if plot),
    ):
        drawn(svg)


def test_two_reports_make_one_page() -> None:
    """Names, warnings, every ratio in the drawing and in the table; the same bytes again."""
    first, second = table(), table(default_variant="int8")
    second["device"] = second["device"] | {"processor": "<Another>"}
    page = render_pair(first, second)

    assert page == render_pair(first, second)
    assert "house int4 and house int8" in page
    assert "other devices: Example Processor 8C at 2.6 GHz and &lt;Another&gt;" in page
    (svg,) = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert any("Size on disk: 1.87x worse" in tip for tip in tips(svg))
