"""A bundle's report as typed data: checked once, then used by the command line and the page."""

from collections.abc import Mapping
from datetime import UTC, datetime

from onhand.core.budget import AXES, Breach
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.device.report_evidence_data import read_evidence
from onhand.device.report_fields import (
    get_field,
    get_text,
    read_figure,
    read_figures,
    read_items,
    read_record,
    read_table,
    read_value,
)
from onhand.device.report_records import (
    EngineUsed,
    Report,
    ReportMatrix,
    ReportRepair,
    ReportStep,
    ReportVariant,
    SourceModel,
    TextUsed,
)

__all__ = ["parse_report"]

FORMAT = 1


def parse_report(report: Mapping[str, object]) -> Report:
    """Check a report object and give it types.

    Args:
        report: the parsed `report.json`; `text.calibration` may be null where no text was used.

    Returns:
        The report.

    Raises:
        InputError: if something is missing or of the wrong type, or the format is a later one.
    """
    if (found := report.get("format")) != FORMAT:
        raise InputError(f"report: format is {found!r}, this reader knows {FORMAT}")
    original = read_table(get_field(report, "original"), "original")
    text = read_table(get_field(report, "text"), "text")
    budget = read_table(get_field(report, "budget"), "budget")
    energy = read_table(get_field(report, "energy"), "energy")
    missing = original.get("missing")
    calibration = get_field(text, "calibration", "text.")
    default = get_text(report, "default_variant")
    return Report(
        name=get_text(report, "name"),
        manifest_sha256=get_text(report, "manifest_sha256"),
        onhand_version=get_text(report, "onhand_version"),
        measured_at=_moment(get_text(report, "measured_at")),
        device=read_record(DeviceProfile, get_field(report, "device"), "device"),
        engine=read_record(EngineUsed, get_field(report, "engine"), "engine"),
        read_bandwidth=read_figure(get_field(report, "read_bandwidth"), "read_bandwidth"),
        source=read_record(SourceModel, get_field(report, "source"), "source"),
        original=read_figures(get_field(original, "figures", "original."), "original.figures"),
        missing=None if missing is None else read_value(missing, str, "original.missing"),
        default_variant=default,
        variants=_variants(get_field(report, "variants"), default),
        calibration=None
        if calibration is None
        else read_record(TextUsed, calibration, "text.calibration"),
        heldout=read_record(TextUsed, get_field(text, "heldout", "text."), "text.heldout"),
        limits=_limits(get_field(budget, "limits", "budget.")),
        breaches=_breaches(get_field(budget, "breaches", "budget.")),
        energy_how=get_text(energy, "how", "energy."),
        energy_estimated=read_value(
            get_field(energy, "estimated", "energy."), bool, "energy.estimated"
        ),
        notes=tuple(
            read_value(note, str, f"notes[{i}]")
            for i, note in enumerate(read_items(get_field(report, "notes"), "notes"))
        ),
        kind=read_value(report.get("kind", "language-model"), str, "kind"),
        steps={
            name: tuple(
                read_record(ReportStep, step, f"steps.{name}[{i}]")
                for i, step in enumerate(read_items(steps, f"steps.{name}"))
            )
            for name, steps in read_table(report.get("steps", {}), "steps").items()
        },
        evidence=read_evidence(report),
    )


def _variants(value: object, default: str) -> dict[str, ReportVariant]:
    found = {}
    for name, item in read_table(value, "variants").items():
        where = f"variants.{name}"
        table = read_table(item, where)
        figures, matrices, kept = (
            get_field(table, key, f"{where}.") for key in ("figures", "matrices", "kept")
        )
        found[name] = ReportVariant(
            figures=read_figures(figures, f"{where}.figures"),
            matrices=tuple(
                read_record(ReportMatrix, matrix, f"{where}.matrices[{i}]")
                for i, matrix in enumerate(read_items(matrices, f"{where}.matrices"))
            ),
            kept={
                tensor: read_value(reason, str, f"{where}.kept.{tensor}")
                for tensor, reason in read_table(kept, f"{where}.kept").items()
            },
            repair=None
            if (repair := table.get("repair")) is None
            else read_record(ReportRepair, repair, f"{where}.repair"),
        )
    if default not in found:
        known = ", ".join(found) or "none"
        raise InputError(f"report: default_variant is {default!r}, the variants are {known}")
    return {default: found.pop(default), **found}


def _limits(value: object) -> dict[str, float]:
    table = read_table(value, "budget.limits")
    return {
        _axis(key): read_value(limit, float, f"budget.limits.{key}") for key, limit in table.items()
    }


def _breaches(value: object) -> tuple[Breach, ...]:
    found = []
    for i, item in enumerate(read_items(value, "budget.breaches")):
        where = f"budget.breaches[{i}]"
        table = read_table(item, where)
        judged = get_field(table, "found", f"{where}.")
        found.append(
            Breach(
                key=_axis(get_text(table, "key", f"{where}.")),
                ceiling=read_value(
                    get_field(table, "ceiling", f"{where}."), float, f"{where}.ceiling"
                ),
                found=None if judged is None else read_value(judged, float, f"{where}.found"),
                why=get_text(table, "why", f"{where}."),
            )
        )
    return tuple(found)


def _axis(key: str) -> str:
    if key not in AXES:
        raise InputError(f"report: the budget has {key!r}, known: {', '.join(AXES)}")
    return key


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"report: measured_at is {text!r}, must be a time as in ISO 8601"
        ) from error
    if moment.tzinfo is None:
        raise InputError(f"report: measured_at is {text!r}, must name its time zone, such as Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InputError(f"report: measured_at is {text!r}, is no time of this calendar") from error
