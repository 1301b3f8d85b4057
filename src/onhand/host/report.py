"""The page of a bundle's report: one HTML file that needs nothing else, offline and for years."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.core.units import format_bytes
from onhand.device.report_data import parse_report
from onhand.device.report_kinds import figure_name, show_figure
from onhand.device.report_records import Report, ReportVariant
from onhand.device.report_summary import evaluation_rows, plain_summary
from onhand.device.report_view import (
    ReportCell,
    ReportRow,
    report_limits,
    report_rows,
)
from onhand.host.report_front import front_axes, front_plots, front_rows, front_sentence
from onhand.host.report_heat import HeatMap, matrix_heat, sensitivity_heat
from onhand.host.report_page import render_page
from onhand.host.report_plots import Plot, error_plots, speed_plots
from onhand.host.report_series import context_plots, memory_plot, waterfall_plots

__all__ = ["render_report"]

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One figure of the original beside every variant's."""

    name: str
    original: ReportCell
    variants: tuple[ReportRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """What the page says of one variant, beside its figures."""

    name: str
    variant: ReportVariant
    plots: list[Plot]
    heat: HeatMap | None
    kept: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """How one figure was made."""

    model: str
    name: str
    value: str
    figure: Measurement


def render_report(report: Mapping[str, object]) -> str:
    """Write the page of a report; the same report gives the same bytes.

    Changes matplotlib's settings while it draws: one thread at a time.

    Args:
        report: the parsed `report.json`.

    Returns:
        An HTML document without anything to fetch; its one script shows what is pointed at.

    Raises:
        InputError: if something is missing or of the wrong type, or the format is a later one.
    """
    parsed = parse_report(report)
    limits, evidence = report_limits(parsed), parsed.evidence
    costs, qualities = front_axes(parsed)
    memory = memory_plot(evidence.memory)
    return render_page(
        TEMPLATE,
        report=parsed,
        summary=plain_summary(parsed),
        lines=_lines(parsed),
        limits=limits,
        holds=all(limit.holds for limit in limits),
        evaluations=evaluation_rows(parsed),
        falls=waterfall_plots(evidence.waterfalls),
        speed=speed_plots(parsed),
        series=[*context_plots(evidence.contexts), *([memory] if memory else [])],
        front=front_plots(parsed),
        front_rows=front_rows(parsed),
        front_sentence=front_sentence(parsed),
        costs=costs,
        qualities=qualities,
        axes=(*qualities, *costs),
        sensitivity=sensitivity_heat(evidence.sensitivity),
        details=[_details(name, variant) for name, variant in parsed.variants.items()],
        made=list(_made(parsed)),
        device=_device(parsed.device),
        read_bandwidth=show_figure("read_bandwidth", parsed.read_bandwidth.value),
    )


def _lines(report: Report) -> list[_Line]:
    tables = [report_rows(report, variant=name) for name in report.variants]
    return [
        _Line(name=rows[0].name, original=rows[0].original, variants=rows)
        for rows in zip(*tables, strict=True)
    ]


def _details(name: str, variant: ReportVariant) -> _Details:
    kept: dict[str, list[str]] = {}
    for tensor, reason in variant.kept.items():
        kept.setdefault(reason, []).append(tensor)
    return _Details(
        name=name,
        variant=variant,
        plots=error_plots(variant.matrices, name=name),
        heat=matrix_heat(variant.matrices, name=name),
        kept=kept,
    )


def _made(report: Report) -> Iterator[_Made]:
    models = {"original": report.original}
    models |= {name: variant.figures for name, variant in report.variants.items()}
    for model, figures in models.items():
        for figure in figures.values():
            yield _Made(
                model=model,
                name=figure_name(figure.name),
                value=show_figure(figure.name, figure.value),
                figure=figure,
            )


def _device(device: DeviceProfile) -> dict[str, str]:
    """Name each field of a profile for people."""
    shown = {field.name: str(getattr(device, field.name)) for field in fields(device)}
    shown["memory_bytes"] = format_bytes(device.memory_bytes)
    shown["instruction_sets"] = ", ".join(device.instruction_sets) or "none known"
    shown["read_bandwidth"] = ", ".join(
        f"{show_figure('read_bandwidth', value)} with {n}"
        for n, value in enumerate(device.read_bandwidth, start=1)
    )
    shown["caches"] = ", ".join(
        f"L{one.level} {format_bytes(one.size_bytes)}" for one in device.caches
    )
    shown["matrix_rates"] = ", ".join(
        f"{one.kind} {one.rows} x {one.inputs} x {one.outputs}: {one.rate / 1e9:.0f} G/s"
        for one in device.matrix_rates
    )
    shown["providers"] = ", ".join(one.name for one in device.providers if one.is_usable)
    shown["sources"] = ", ".join(device.sources)
    shown["watts"] = f"{device.watts:g} W"
    shown["energy_counter"] = device.energy_counter or "none readable"
    shown["estimated"] = "from public sources" if device.estimated else "probed on the device"
    labels = {
        "memory_bytes": "memory",
        "read_bandwidth": "read bandwidth by threads",
        "estimated": "figures",
    }
    unknown = {"", "0", "0.0", "None", "unknown"}
    return {
        labels.get(key, key.replace("_", " ")): text
        for key, text in shown.items()
        if text not in unknown
    }
