"""A bundle's report as rows for people: the command line and the page show the same ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from onhand.core.budget import AXES
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.device.report_data import parse_report
from onhand.device.report_kinds import (
    KINDS,
    NETWORK,
    NETWORK_ALWAYS,
    figure_name,
    kind_of,
    show_figure,
)
from onhand.device.report_records import Report

__all__ = [
    "LimitRow",
    "ReportCell",
    "ReportRow",
    "Tone",
    "figure_cell",
    "figure_name",
    "original_figure",
    "ratio_text",
    "report_headline",
    "report_limits",
    "report_rows",
    "show_figure",
    "summarize_report",
]

Tone = Literal["better", "worse", "same", ""]
Evidence = Literal["measured", "estimated", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCell:
    """One figure as text.

    Attributes:
        value: such as "4.2 MiB"; "not measured" where there is no figure.
        detail: interval, or spread and number of runs; "" where there is none.
        evidence: "measured", "estimated", or "" where there is no figure.
    """

    value: str
    detail: str = ""
    evidence: Evidence = ""

    @property
    def text(self) -> str:
        """Value and detail in one line."""
        return f"{self.value} ({self.detail})" if self.detail else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One figure of the original beside one variant's.

    Attributes:
        measurement: the figure's name, as in `Measurement`.
        name: its name for people.
        original: of the original model.
        variant: of the variant.
        ratio: variant / original, such as "0.28x"; "" where that says nothing.
        tone: whether the variant is "better" or "worse" by more than the spread, or the "same";
            "" where one of the two is not known.
    """

    measurement: str
    name: str
    original: ReportCell
    variant: ReportCell
    ratio: str
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRow:
    """One limit of the budget and its verdict for the default variant.

    Attributes:
        key: the axis, as in `AXES`.
        name: its name for people.
        limit: such as "at most 400.0 MiB".
        found: the figure that was judged: for times its slow side.
        holds: the verdict.
        why: what is wrong, or how far the figure is from the limit.
    """

    key: str
    name: str
    limit: str
    found: str
    holds: bool
    why: str


_TIMED = {axis.measurement for axis in AXES.values() if axis.timed}
_LOSSES = {"perplexity": "perplexity_increase"}
_LOSSES |= {name: f"{name}_loss" for name in ("accuracy", "map_50")}
# The original's perplexity, or accuracy, stands in its own column.
_FOLDED = {name: f"original_{name}" for name in ("perplexity", "accuracy", "map_50", "map_50_95")}


def summarize_report(
    report: Mapping[str, object], *, variant: str | None = None
) -> list[ReportRow]:
    """Check a report object and return its table: the original beside one variant.

    Args:
        report: the parsed `report.json`.
        variant: a key of its variants; None for the default one.

    Returns:
        One row for each figure, unmeasured ones included.

    Raises:
        InputError: if something is missing or of the wrong type, or there is no such variant.
    """
    return report_rows(parse_report(report), variant=variant)


def report_rows(report: Report, *, variant: str | None = None) -> list[ReportRow]:
    """Return the table of a report: the original beside one variant.

    Args:
        report: the report.
        variant: a key of its variants; None for the default one.

    Returns:
        One row for each figure, unmeasured ones included.

    Raises:
        InputError: if there is no such variant.
    """
    chosen = report.default_variant if variant is None else variant
    if chosen not in report.variants:
        raise InputError(f"report: no variant {chosen!r}; it has {', '.join(report.variants)}")
    figures = report.variants[chosen].figures
    # Every variant has the same rows, so that they fit one table.
    names = dict.fromkeys(NETWORK_ALWAYS if report.kind == "network" else KINDS)
    for table in (report.original, *(each.figures for each in report.variants.values())):
        names |= dict.fromkeys(table)
    names = {name: None for name in names if name not in _FOLDED.values()}
    rows = [_row(name, original_figure(report, name), figures.get(name)) for name in names]
    return [_judged(row, figures) for row in rows]


def _judged(row: ReportRow, figures: Mapping[str, Measurement]) -> ReportRow:
    """Judge a quality by what was lost: both models read the same, so that is known better."""
    lost = figures.get(_LOSSES.get(row.measurement, ""))
    if not row.ratio or lost is None or lost.interval is None:
        return row
    low, high = lost.interval
    tone: Tone = "worse" if low > 0 else "better" if high < 0 else "same"
    return replace(row, tone=tone)


def original_figure(report: Report, name: str) -> Measurement | None:
    """Return a figure of the original, or None where nobody measured it."""
    if name in report.original or name not in _FOLDED:
        return report.original.get(name)
    # Quality is judged against the original, so each variant's figures hold the original's.
    found = (variant.figures.get(_FOLDED[name]) for variant in report.variants.values())
    return next((figure for figure in found if figure is not None), None)


def _row(name: str, original: Measurement | None, variant: Measurement | None) -> ReportRow:
    kind = kind_of(name)
    reference = ReportCell(value="reference")
    ratio = ""
    tone: Tone = ""
    if original and variant and original.value > 0 and not kind.against:
        ratio = ratio_text(variant.value / original.value)
        tone = _tone(variant, original, more_is_better=kind.more_is_better)
    return ReportRow(
        measurement=name,
        name=kind.name,
        original=reference if name in NETWORK | KINDS and kind.against else figure_cell(original),
        variant=figure_cell(variant),
        ratio=ratio,
        tone=tone,
    )


def figure_cell(figure: Measurement | None) -> ReportCell:
    """Return a figure as text; None is one that nobody measured."""
    if figure is None:
        return ReportCell(value="not measured")
    show = kind_of(figure.name).show
    details: list[str] = []
    if figure.interval is not None:
        low, high = figure.interval
        details.append(f"95 %: {show(low)} to {show(high)}")
    elif figure.spread > 0:
        details.append(f"IQR {show(figure.spread).removeprefix('+')}")
    if figure.name in _TIMED:
        details.append("1 run" if figure.samples == 1 else f"{figure.samples} runs")
    about = "about " if figure.estimated else ""
    return ReportCell(
        value=about + show(figure.value),
        detail=", ".join(details),
        evidence="estimated" if figure.estimated else "measured",
    )


def ratio_text(ratio: float) -> str:
    """Write a ratio for people, such as "0.28x"."""
    if 0.95 < ratio < 1.05:
        return f"{ratio:.3f}x"
    if ratio >= 10:
        return f"{ratio:,.0f}x"
    return f"{ratio:.2f}x" if ratio >= 0.1 else f"{ratio:.2g}x"


def _tone(variant: Measurement, original: Measurement, *, more_is_better: bool) -> Tone:
    gain = variant.value - original.value if more_is_better else original.value - variant.value
    # Half of an interquartile range lies on each side of a median.
    noise = (variant.spread + original.spread) / 2
    if abs(gain) <= noise:
        return "same"
    return "better" if gain > 0 else "worse"


def report_limits(report: Report) -> list[LimitRow]:
    """Return the verdict on each limit of the budget, for the default variant."""
    figures = report.variants[report.default_variant].figures
    breaches = {breach.key: breach.why for breach in report.breaches}
    rows: list[LimitRow] = []
    for key, limit in report.limits.items():
        axis = AXES[key]
        figure = figures.get(axis.measurement)
        why, found = breaches.get(key, ""), "not measured"
        holds = key not in breaches and figure is not None
        if figure is not None:
            most = axis.limit == "most"
            judged = figure.value + axis.timed * (figure.spread if most else -figure.spread)
            about = "about " if figure.estimated else ""
            found = f"{about}{show_figure(figure.name, judged)}" + " (slow side)" * axis.timed
            within = judged <= limit if most else judged >= limit
            margin = abs(judged / limit - 1) if limit else 0.0
            if holds and within:
                why = f"{margin:.0%} to spare"
            elif holds:
                holds, why = False, "is past its limit, though the report lists no breach"
        rows.append(
            LimitRow(
                key=key,
                name=kind_of(axis.measurement).name,
                limit=f"at {axis.limit} {kind_of(axis.measurement).show(limit)}",
                found=found,
                holds=holds,
                why=why or "was not measured",
            )
        )
    return rows


def report_headline(report: Report) -> str:
    """Say in one sentence what the default variant achieved and whether the budget holds."""
    figures = report.variants[report.default_variant].figures
    rows = {row.measurement: row for row in report_rows(report)}
    parts: list[str] = []
    if "size_bytes" in figures:
        row = rows["size_bytes"]
        beside = f", {row.ratio} the original's {row.original.value}" if row.ratio else ""
        parts.append(f"takes {row.variant.value} on disk{beside}")
    for name, words in (
        ("perplexity_increase", "changes perplexity by {}"),
        ("top1_agreement", "makes the original's first choice for {} of the tokens"),
        ("decode_tokens_per_s", "writes {}"),
        ("accuracy", "is right for {} of the examples"),
        ("agreement", "agrees with the original on {}"),
        ("latency_s", "answers in {}"),
    ):
        if name in figures:
            row = rows[name]
            beside = f" ({row.ratio} the original's)" if row.ratio else ""
            parts.append(words.format(row.variant.value) + beside)
    said = _listed(parts) if parts else "has no measured figures"
    return f"Variant {report.default_variant} {said}; {_verdict(report)}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _verdict(report: Report) -> str:
    limits = report_limits(report)
    failed = [row.key for row in limits if not row.holds]
    if not limits:
        return "no budget was set"
    if failed:
        return f"the budget does not hold: {', '.join(failed)}"
    return "the budget holds"
