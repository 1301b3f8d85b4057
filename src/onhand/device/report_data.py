"""A bundle's report as typed data: checked once, then used by the command line and the page."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin

from onhand.core.budget import AXES, Breach
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.profile import DeviceProfile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "EngineUsed",
    "Report",
    "ReportMatrix",
    "ReportRepair",
    "ReportVariant",
    "SourceModel",
    "TextUsed",
    "parse_report",
]

FORMAT = 1
Record = TypeVar("Record", bound="DataclassInstance")
Scalar = TypeVar("Scalar", str, bool, int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUsed:
    """The engine that every figure was measured with: its settings, and its package."""

    name: str
    package: str
    version: str
    threads: int
    accuracy_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """The model that was compressed; `weight_bits` is the width of one of its weights."""

    family: str
    sha256: str
    n_parameters: int
    weight_bits: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextUsed:
    """A text: what it is, its length and its hash."""

    what: str
    n_tokens: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMatrix:
    """What one matrix takes and lost.

    Attributes:
        name: the matrix.
        bits: width of one code.
        group_size: inputs that share a scale.
        size_bytes: bytes stored.
        original_bytes: bytes of the same matrix in the original.
        relative_error: norm of the weight error / norm of the weights.
        output_error: the same, each input weighted by its mean square on the calibration text.
    """

    name: str
    bits: int
    group_size: int
    size_bytes: int
    original_bytes: int
    relative_error: float
    output_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRepair:
    """The cheapest way to lose less; its figures are estimates.

    Attributes:
        worst: the matrices that lose most, the worst one first.
        share: what these lose of all that is lost, 0 to 1.
        recipe: that gives more bits where most is lost for a byte, as TOML.
        added_bytes: what it adds to the size.
        remaining: loss afterwards, as a share of the present one.
    """

    worst: tuple[str, ...]
    share: float
    recipe: str
    added_bytes: int
    remaining: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVariant:
    """One variant: its figures by name, its matrices, and why other tensors stayed as they are.

    `repair` is None where nothing can be given more bits.
    """

    figures: Mapping[str, Measurement]
    matrices: tuple[ReportMatrix, ...]
    kept: Mapping[str, str]
    repair: ReportRepair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All evidence for one bundle; `parse_report` reads it.

    Attributes:
        name: the bundle's name.
        manifest_sha256: the bundle that the figures are of.
        onhand_version: that measured.
        measured_at: when, UTC.
        device: where.
        engine: with what.
        read_bandwidth: of the memory, measured beside the other figures.
        source: the original model.
        original: its figures by name.
        missing: why speed figures of the original are absent; None where they are not.
        default_variant: a key of `variants`.
        variants: by name, the default one first.
        calibration: text that scales were fitted on; None where no text was used.
        heldout: text that quality was judged on.
        limits: the budget: key of `AXES` -> value in SI units.
        breaches: limits that do not hold.
        energy_how: how energy was counted or estimated.
        energy_estimated: whether a formula gives the energy, not a counter.
        notes: sentences that a reader should know.
    """

    name: str
    manifest_sha256: str
    onhand_version: str
    measured_at: datetime
    device: DeviceProfile
    engine: EngineUsed
    read_bandwidth: Measurement
    source: SourceModel
    original: Mapping[str, Measurement]
    missing: str | None
    default_variant: str
    variants: Mapping[str, ReportVariant]
    calibration: TextUsed | None
    heldout: TextUsed
    limits: Mapping[str, float]
    breaches: tuple[Breach, ...]
    energy_how: str
    energy_estimated: bool
    notes: tuple[str, ...]


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
    for field in dataclasses.fields(kind):
        if field.name in table or field.default is dataclasses.MISSING:
            place = f"{where}.{field.name}"
            given[field.name] = _field(_get(table, field.name, f"{where}."), field.type, place)
    return kind(**given)


def _field(value: object, kind: object, where: str) -> object:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(_field(v, item, f"{where}[{i}]") for i, v in enumerate(_items(value, where)))
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
