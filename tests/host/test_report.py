"""The page of a report: complete, safe to open, the same every time."""

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.device.report_evidence import evidence
from typing_extensions import override

from onhand.core.errors import InputError
from onhand.device.report_data import parse_report
from onhand.device.report_summary import plain_summary
from onhand.device.report_view import summarize_report
from onhand.host.report import render_report
from onhand.host.report_pair import render_pair
from onhand.host.report_plots import error_plots, speed_plots

EXAMPLE = Path(__file__).parents[1] / "device" / "report_example.json"
VOID = {"meta", "br"}


@pytest.fixture
def report() -> dict[str, Any]:
    """A report of three variants, as `report.json` holds it; free to change."""
    made: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return made


@pytest.fixture(scope="module")
def content() -> str:
    """The page of the example: drawn once, it takes a second."""
    return render_report(json.loads(EXAMPLE.read_text(encoding="utf-8")))


class Page(HTMLParser):
    """What a browser would make of a page: text, elements, addresses, ids; all tags closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.targets: list[str] = []
        self.said: list[str] = []
        self.feed(content)
        self.close()
        self.text = " ".join(" ".join(self.said).split())

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.open += [] if tag in VOID else [tag]
        self._note(attrs)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._note(attrs)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.said.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            self.ids += [value or ""] if key == "id" else []
            self.handlers += [key] if key.startswith("on") else []
            self.targets += [value or ""] if key in {"src", "href", "xlink:href"} else []


def without_variants(report: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same report with fewer variants."""
    kept = {name: v for name, v in report["variants"].items() if name not in names}
    return {**report, "variants": kept}


def disagreements(page: Page, report: dict[str, Any]) -> list[str]:
    """Figures that the rows have and the page has not."""
    return [
        text
        for variant in report["variants"]
        for row in summarize_report(report, variant=variant)
        for cell in (row.original, row.variant)
        for text in (row.name, " ".join(filter(None, (cell.value, cell.detail, cell.evidence))))
        if text not in page.text
    ]


def test_the_page_says_what_the_rows_say(report: dict[str, Any], content: str) -> None:
    """Summary, every cell of every variant, the notes: page and terminal agree."""
    page = Page(content)

    assert page.open == []
    assert all(sentence in page.text for sentence in plain_summary(parse_report(report)))
    assert disagreements(page, report) == []
    assert report["notes"][0] in page.text
    # Speed; two qualities against five costs; errors and a heat map of each variant.
    assert page.tags["svg"] == 4 + 2 * 5 + (2 + 1) * 3


def test_one_variant_is_enough(report: dict[str, Any]) -> None:
    """A bundle of one variant has the same page, with one column less for each other one."""
    report = without_variants(report, "int8", "int4-wide")
    page = Page(render_report(report))

    assert disagreements(page, report) == []
    assert page.tags["svg"] == 4 + 2 * 5 + 2 + 1


def test_all_evidence_is_on_the_page(report: dict[str, Any], content: str) -> None:
    """Hashes, texts, commands, matrices, reasons and the device are there to be checked."""
    page = Page(content).text
    variant = report["variants"]["int4"]

    for said in (
        report["manifest_sha256"],
        report["source"]["sha256"],
        report["text"]["heldout"]["what"],
        report["text"]["calibration"]["sha256"],
        report["energy"]["how"],
        report["device"]["processor"],
        report["device"]["watts_source"],
        "16.9 GB/s",
        "10.4 GB/s with 1, 17.9 GB/s with 2",
        "2025-03-04 05:06 UTC",
        *(figure["how"] for figure in variant["figures"].values()),
        *(matrix["name"] for matrix in variant["matrices"]),
        *variant["kept"],
        *variant["kept"].values(),
    ):
        assert said in page


def test_a_repair_is_on_the_page(report: dict[str, Any], content: str) -> None:
    """What loses most, what more bits would bring, and the recipe as it is, marked as estimated."""
    recipe = 'name = "int4-repaired"\n\n[[step]]\npass = "<quantize>"\n'
    report["variants"]["int4"]["repair"] = {
        "worst": ["l0_down", "l1_down"],
        "share": 0.87,
        "recipe": recipe,
        "added_bytes": 3 * 2**20,
        "remaining": 0.42,
    }

    page = Page(render_report(report))

    assert "l0_down, l1_down: 87 % of all that is lost" in page.text
    assert "3.0 MiB more should leave 42 % of the loss estimated" in page.text
    assert recipe in page.said
    assert "a recipe that repairs it" not in Page(content).text


def test_the_page_needs_nothing_else(content: str) -> None:
    """One script of its own, no handler, no address beyond the page: it works offline."""
    page = Page(content)

    assert page.tags["script"] == 1
    assert not page.tags.keys() & {"link", "img", "iframe", "object", "image", "base"}
    assert page.handlers == []
    assert page.targets
    assert {target[0] for target in page.targets} == {"#"}
    assert "@import" not in content
    assert all(use.startswith("#") for use in re.findall(r"url\(([^)]*)", content))


def test_no_other_script_may_run(content: str) -> None:
    """The page's policy names the hash of its one script, and allows nothing else."""
    (script,) = re.findall(r"<script>(.*?)</script>", content, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', content)

    assert policy == [
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    ]


def test_ids_are_unique_and_found(content: str) -> None:
    """Plots of one page never borrow each other's markers."""
    page = Page(content)
    used = {target[1:] for target in page.targets} | set(re.findall(r"url\(#([^)]*)\)", content))

    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert used <= set(page.ids)


def test_every_colour_of_a_plot_follows_the_page(content: str) -> None:
    """Plots name the page's colours, which it defines for light and for dark."""
    plots = "".join(re.findall(r"<svg.*?</svg>", content, flags=re.DOTALL))
    names = set(re.findall(r"var\((--[a-z0-9-]+)\)", content))

    assert re.findall(r"(?:fill|stroke): ?#(?!000000|ffffff)[0-9a-f]{6}", plots) == []
    assert {"--ink", "--line", "--muted", "--series-1", "--series-5"} <= names
    for name in names:
        assert content.count(f"{name}: #") == 2


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], content: str) -> None:
    """Nothing of the moment gets into the page, nor do the reader's settings of matplotlib."""
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 31.0, "svg.fonttype": "path", "lines.linestyle": ":"}):
        again = render_report(report)
        assert mpl.rcParams["font.size"] == 31.0

    assert again == content


HOSTILE = "</text><script>alert(1)</script><img src=x onerror=a> --> $x_{ & \" ' 灯"


def test_hostile_texts_stay_texts(report: dict[str, Any]) -> None:
    """Markup, comments, quotes and formulas in any text of a report are shown, not obeyed."""
    variants = report["variants"]
    hostile = {**variants["int4"], "kept": {HOSTILE: HOSTILE}}
    hostile["matrices"] = [{**hostile["matrices"][0], "name": f"layers.0.{HOSTILE}"}]
    hostile["figures"]["load_s"]["how"] = HOSTILE
    variants = {HOSTILE: hostile, "plain": {**variants["int8"], "matrices": []}}
    report |= {"name": HOSTILE, "notes": [HOSTILE], "onhand_version": HOSTILE}
    report |= {"default_variant": HOSTILE, "variants": variants}
    report["original"]["missing"] = HOSTILE
    report["budget"]["breaches"] = [{"key": "disk", "ceiling": 1.0, "found": 2.0, "why": HOSTILE}]
    for key in ("name", "system", "processor", "watts_source", "energy_counter"):
        report["device"][key] = HOSTILE
    report["text"]["heldout"]["what"] = report["energy"]["how"] = HOSTILE
    report["engine"]["package"] = report["source"]["family"] = HOSTILE

    report |= hostile_evidence()

    for content in (render_report(report), render_pair(report, report)):
        page = Page(content)
        assert page.tags["script"] == 1
        assert page.tags["img"] == 0
        assert page.handlers == []
        assert page.open == []
        assert page.text.count(HOSTILE) > 5


def hostile_evidence() -> dict[str, Any]:
    """Evidence with markup in every text that it has."""

    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            # Names of measurements, units, models and keys are checked, and refused.
            known = {"name", "unit", "model", "predicted", "measured"}
            return {k: v if k in known else spoiled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoiled(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    made: dict[str, Any] = spoiled(evidence())
    made["front"]["axes"] = [HOSTILE]
    for point in made["front"]["points"]:
        point["choices"] = {HOSTILE: HOSTILE}
        point["predicted"][HOSTILE] = 1.0
    made["waterfalls"][0]["missing"] = {HOSTILE: HOSTILE}
    return made


def test_a_name_in_a_plot_is_no_formula_and_needs_no_font(report: dict[str, Any]) -> None:
    """Dollars are not mathematics; letters that matplotlib cannot draw are left to the browser."""
    matrix = parse_report(report).variants["int4"].matrices[0]
    plot = error_plots([replace(matrix, name="layers.0.$_{$灯")], name="int4")[0]

    assert ">$_{$灯<" in plot.svg


def test_figures_that_are_missing_are_said_to_be(report: dict[str, Any]) -> None:
    """The sentence about the original stands on the page, and no bar stands for nothing."""
    why = "it needs 3.1 GiB, the device has 2.0 GiB"
    report["original"] = {"figures": {}, "missing": why}
    del report["variants"]["int8"]["figures"]["decode_tokens_per_s"]
    decode = speed_plots(parse_report(report))[1]
    content = render_report(without_variants(report, "int8", "int4-wide"))

    assert f"Of the original: {why}" in Page(content).text
    assert decode.svg.count(">not measured<") == 2
    assert ">472.0 tokens/s<" in decode.svg


def test_plots_without_figures_are_left_out(report: dict[str, Any]) -> None:
    """No empty frames: a plot that would show nothing is not drawn."""
    report = without_variants(report, "int8", "int4-wide")
    report["original"]["figures"] = {}
    report["variants"]["int4"] |= {"figures": {}, "matrices": []}
    page = Page(render_report(report))

    assert page.tags["svg"] == 0
    assert "Quality against cost" not in page.text
    assert "No matrix of this variant was changed." in page.text
    assert "✗ does not hold" in page.text.replace("\u00a0", " ")


def test_errors_are_drawn_by_kind_and_layer(report: dict[str, Any]) -> None:
    """Each kind of matrix is a line of its own; the embedding stands apart from the layers."""
    plots = error_plots(parse_report(report).variants["int4"].matrices, name="int4")

    assert [plot.title for plot in plots] == [
        "Relative error of the weights, int4",
        "Relative error of the outputs, int4",
    ]
    for kind in ("qkv", "out", "gate_up", "down"):
        assert f">{kind}<" in plots[0].svg
    assert plots[0].svg.count(">embed<") == 2  # in the legend and on the axis
    assert all(f">{layer}<" in plots[0].svg for layer in range(6))


def test_a_bad_report_makes_no_page(report: dict[str, Any]) -> None:
    """The error names the place."""
    del report["variants"]["int4"]["matrices"][2]["output_error"]

    with pytest.raises(InputError, match=r"variants.int4.matrices\[2\].output_error is missing"):
        render_report(report)
