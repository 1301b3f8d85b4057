"""A bundle's report as typed data: checked once, then used by the command line and the page."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import UnionType
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin

from onhand.core.budget import AXES, Breach
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.profile import DeviceProfile
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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["parse_report"]

FORMAT = 1
Record = TypeVar("Record", bound="DataclassInstance")
Scalar = TypeVar("Scalar", str, bool, int, float)


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
    original = _table(_get(report, "original"), "original")
    text = _table(_get(report, "text"), "text")
    budget = _table(_get(report, "budget"), "budget")
    energy = _table(_get(report, "energy"), "energy")
    missing = original.get("missing")
    calibration = _get(text, "calibration", "text.")
    default = _text(report, "default_variant")
    return Report(
        name=_text(report, "name"),
        manifest_sha256=_text(report, "manifest_sha256"),
        onhand_version=_text(report, "onhand_version"),
        measured_at=_moment(_text(report, "measured_at")),
        device=_record(DeviceProfile, _get(report, "device"), "device"),
        engine=_record(EngineUsed, _get(report, "engine"), "engine"),
        read_bandwidth=_figure(_get(report, "read_bandwidth"), "read_bandwidth"),
        source=_record(SourceModel, _get(report, "source"), "source"),
        original=_figures(_get(original, "figures", "original."), "original.figures"),
        missing=None if missing is None else _value(missing, str, "original.missing"),
        default_variant=default,
        variants=_variants(_get(report, "variants"), default),
        calibration=None
        if calibration is None
        else _record(TextUsed, calibration, "text.calibration"),
        heldout=_record(TextUsed, _get(text, "heldout", "text."), "text.heldout"),
        limits=_limits(_get(budget, "limits", "budget.")),
        breaches=_breaches(_get(budget, "breaches", "budget.")),
        energy_how=_text(energy, "how", "energy."),
        energy_estimated=_value(_get(energy, "estimated", "energy."), bool, "energy.estimated"),
        notes=tuple(
            _value(note, str, f"notes[{i}]")
            for i, note in enumerate(_items(_get(report, "notes"), "notes"))
        ),
        kind=_value(report.get("kind", "language-model"), str, "kind"),
        steps={
            name: tuple(
                _record(ReportStep, step, f"steps.{name}[{i}]")
                for i, step in enumerate(_items(steps, f"steps.{name}"))
            )
            for name, steps in _table(report.get("steps", {}), "steps").items()
        },
    )


def _variants(value: object, default: str) -> dict[str, ReportVariant]:
    found = {}
    for name, item in _table(value, "variants").items():
        where = f"variants.{name}"
        table = _table(item, where)
        figures, matrices, kept = (
            _get(table, key, f"{where}.") for key in ("figures", "matrices", "kept")
        )
        found[name] = ReportVariant(
            figures=_figures(figures, f"{where}.figures"),
            matrices=tuple(
                _record(ReportMatrix, matrix, f"{where}.matrices[{i}]")
                for i, matrix in enumerate(_items(matrices, f"{where}.matrices"))
            ),
            kept={
                tensor: _value(reason, str, f"{where}.kept.{tensor}")
                for tensor, reason in _table(kept, f"{where}.kept").items()
            },
            repair=None
            if (repair := table.get("repair")) is None
            else _record(ReportRepair, repair, f"{where}.repair"),
        )
    if default not in found:
        known = ", ".join(found) or "none"
        raise InputError(f"report: default_variant is {default!r}, the variants are {known}")
    return {default: found.pop(default), **found}


def _figures(value: object, where: str) -> dict[str, Measurement]:
    table = _table(value, where)
    found = {name: _figure(item, f"{where}.{name}") for name, item in table.items()}
    for name, figure in found.items():
        if figure.name != name:
            raise InputError(f"report: {where}.{name} is a measurement of {figure.name!r}")
    return found


def _figure(value: object, where: str) -> Measurement:
    try:
        figure = measurement_from_json(value)
    except InputError as error:
        raise InputError(f"report: {where}: {error}") from error
    _value(figure.how, str, f"{where}.how")
    numbers = [figure.value, figure.spread, *(figure.interval or ())]
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"report: {where} is {numbers}, must be finite numbers")
    if figure.spread < 0 or (figure.interval and figure.interval[0] > figure.interval[1]):
        raise InputError(
            f"report: {where}: spread {figure.spread} or interval {figure.interval} is negative"
        )
    return figure


def _limits(value: object) -> dict[str, float]:
    table = _table(value, "budget.limits")
    return {
        _axis(key): _value(limit, float, f"budget.limits.{key}") for key, limit in table.items()
    }


def _breaches(value: object) -> tuple[Breach, ...]:
    found = []
    for i, item in enumerate(_items(value, "budget.breaches")):
        where = f"budget.breaches[{i}]"
        table = _table(item, where)
        judged = _get(table, "found", f"{where}.")
        found.append(
            Breach(
                key=_axis(_text(table, "key", f"{where}.")),
                ceiling=_value(_get(table, "ceiling", f"{where}."), float, f"{where}.ceiling"),
                found=None if judged is None else _value(judged, float, f"{where}.found"),
                why=_text(table, "why", f"{where}."),
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
    return moment.astimezone(UTC)


def _get(table: Mapping[str, object], key: str, where: str = "") -> object:
    if key not in table:
        raise InputError(f"report: {where}{key} is missing")
    return table[key]


def _text(table: Mapping[str, object], key: str, where: str = "") -> str:
    return _value(_get(table, key, where), str, f"{where}{key}")


def _table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise InputError(f"report: {where} is {type(value).__name__}, must be an object")
    return {_value(key, str, f"a key of {where}"): item for key, item in value.items()}


def _items(value: object, where: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise InputError(f"report: {where} is {type(value).__name__}, must be a list")
    return list(value)


def _record(kind: type[Record], value: object, where: str) -> Record:
    table = _table(value, where)
    given: dict[str, object] = {}
    for one in dataclasses.fields(kind):
        if one.name in table or one.default is dataclasses.MISSING:
            place = f"{where}.{one.name}"
            given[one.name] = _field(_get(table, one.name, f"{where}."), one.type, place)
    return kind(**given)


def _field(value: object, kind: object, where: str) -> object:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(_field(v, item, f"{where}[{i}]") for i, v in enumerate(_items(value, where)))
    if isinstance(kind, UnionType):  # what may be None
        return None if value is None else _field(value, get_args(kind)[0], where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    scalars = {"str": str, "bool": bool, "int": int, "float": float}
    return _value(value, scalars[getattr(kind, "__name__", "")], where)


def _value(value: object, kind: type[Scalar], where: str) -> Scalar:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        raise InputError(f"report: {where} is not finite, must be a number that is")
    if kind is float and is_whole and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and not is_whole):
        said = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
        raise InputError(f"report: {where} is {value!r}, must be {said[kind]}")
    if isinstance(value, str):
        # JSON can hold half of a pair of surrogates, which no file can.
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"report: {where} is {value!r}, must be valid Unicode") from error
    return value
