"""What a report holds beyond its table of figures: checked once, then used."""

from collections.abc import Mapping

from onhand.core.errors import InputError
from onhand.core.evaluation import MODELS, Evaluation, Part, Waterfall
from onhand.core.measurement import Measurement
from onhand.device.context_speed import ContextSpeed
from onhand.device.memory_series import MemorySeries
from onhand.device.report_evidence import (
    FrontDot,
    ReportEvidence,
    ReportFront,
    ReportWay,
    SensitivityCell,
)
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

__all__ = ["read_evidence"]


def read_evidence(report: Mapping[str, object]) -> ReportEvidence:
    """Read all that a report may hold beside its table of figures.

    Args:
        report: the parsed `report.json`; older ones lack some of the keys, or all.

    Returns:
        The evidence.

    Raises:
        InputError: if something is of the wrong type, or out of range.
    """
    memory, front = report.get("memory"), report.get("front")
    return ReportEvidence(
        evaluation=_evaluations(report.get("evaluation") or ()),
        ways=tuple(_way(item, where) for item, where in _listed(report, "ways")),
        contexts=tuple(
            sorted(
                (_context(item, where) for item, where in _listed(report, "contexts")),
                key=lambda speed: speed.tokens,
            )
        ),
        memory=None if memory is None else _memory(memory),
        waterfalls=tuple(_waterfall(item, where) for item, where in _listed(report, "waterfalls")),
        front=None if front is None else _front(front),
        sensitivity=tuple(
            read_record(SensitivityCell, item, where)
            for item, where in _listed(report, "sensitivity")
        ),
    )


def _listed(report: Mapping[str, object], key: str) -> list[tuple[object, str]]:
    items = read_items(report.get(key) or (), key)
    return [(item, f"{key}[{i}]") for i, item in enumerate(items)]


def _evaluations(value: object) -> tuple[Evaluation, ...]:
    found: dict[str, Evaluation] = {}
    for i, item in enumerate(read_items(value, "evaluation")):
        where = f"evaluation[{i}]"
        table = read_table(item, where)
        model = get_text(table, "model", f"{where}.")
        if model not in MODELS or model in found:
            raise InputError(
                f"report: {where}.model is {model!r}, must be one of {', '.join(MODELS)}, each once"
            )
        given = {key: _optional(table, key, where) for key in ("before", "after", "ratio")}
        predicted = table.get("predicted")
        found[model] = Evaluation(
            model=model,
            **given,
            outcome=_optional(table, "outcome", where),
            predicted=None
            if predicted is None
            else read_value(predicted, float, f"{where}.predicted"),
            missing=get_text(table, "missing", f"{where}."),
        )
    return tuple(found.values())


def _optional(table: Mapping[str, object], key: str, where: str) -> Measurement | None:
    value = table.get(key)
    return None if value is None else read_figure(value, f"{where}.{key}")


def _way(value: object, where: str) -> ReportWay:
    table = read_table(value, where)
    return ReportWay(
        model=get_text(table, "model", f"{where}."),
        engine=get_text(table, "engine", f"{where}."),
        threads=read_value(get_field(table, "threads", f"{where}."), int, f"{where}.threads"),
        figures=read_figures(get_field(table, "figures", f"{where}."), f"{where}.figures"),
        missing=get_text(table, "missing", f"{where}."),
    )


def _context(value: object, where: str) -> ContextSpeed:
    table = read_table(value, where)
    first, rate = (
        read_figure(get_field(table, key, f"{where}."), f"{where}.{key}")
        for key in ("time_to_first_token_s", "decode_tokens_per_s")
    )
    tokens = read_value(get_field(table, "tokens", f"{where}."), int, f"{where}.tokens")
    if tokens < 1:
        raise InputError(f"report: {where}.tokens is {tokens}, must be 1 or more")
    return ContextSpeed(tokens=tokens, time_to_first_token_s=first, decode_tokens_per_s=rate)


def _memory(value: object) -> MemorySeries:
    table = read_table(value, "memory")
    points: list[tuple[float, int]] = []
    for i, item in enumerate(read_items(get_field(table, "points", "memory."), "memory.points")):
        at, size = _pair(item, f"memory.points[{i}]")
        points.append((
            read_value(at, float, f"memory.points[{i}][0]"),
            read_value(size, int, f"memory.points[{i}][1]"),
        ))
    phases: list[tuple[str, float]] = []
    for i, item in enumerate(read_items(get_field(table, "phases", "memory."), "memory.phases")):
        name, began = _pair(item, f"memory.phases[{i}]")
        phases.append((
            read_value(name, str, f"memory.phases[{i}][0]"),
            read_value(began, float, f"memory.phases[{i}][1]"),
        ))
    times = [at for at, _ in points]
    if times != sorted(times) or any(at < 0 or size < 0 for at, size in points):
        raise InputError("report: memory.points must be in order of time, and not below 0")
    return MemorySeries(
        points=tuple(points), phases=tuple(phases), how=get_text(table, "how", "memory.")
    )


def _pair(value: object, where: str) -> tuple[object, object]:
    items = read_items(value, where)
    if len(items) != 2:
        raise InputError(f"report: {where} has {len(items)} items, must have 2")
    return items[0], items[1]


def _waterfall(value: object, where: str) -> Waterfall:
    table = read_table(value, where)
    parts: list[Part] = []
    for i, item in enumerate(read_items(get_field(table, "parts", f"{where}."), f"{where}.parts")):
        place = f"{where}.parts[{i}]"
        part = read_table(item, place)
        without = read_figure(get_field(part, "without", f"{place}."), f"{place}.without")
        # What each part brought follows from the figures: it is not believed, but computed.
        parts.append(Part(label=get_text(part, "label", f"{place}."), without=without))
    missing = read_table(table.get("missing", {}), f"{where}.missing")
    return Waterfall(
        measurement=get_text(table, "measurement", f"{where}."),
        before=read_figure(get_field(table, "before", f"{where}."), f"{where}.before"),
        after=read_figure(get_field(table, "after", f"{where}."), f"{where}.after"),
        parts=tuple(parts),
        missing={
            label: read_value(why, str, f"{where}.missing.{label}")
            for label, why in missing.items()
        },
    )


def _front(value: object) -> ReportFront:
    table = read_table(value, "front")
    axes = read_items(table.get("axes", ()), "front.axes")
    points = read_items(get_field(table, "points", "front."), "front.points")
    return ReportFront(
        dots=tuple(_dot(point, f"front.points[{i}]") for i, point in enumerate(points)),
        axes=tuple(read_value(axis, str, f"front.axes[{i}]") for i, axis in enumerate(axes)),
    )


def _dot(value: object, where: str) -> FrontDot:
    table = read_table(value, where)
    choices = read_table(get_field(table, "choices", f"{where}."), f"{where}.choices")
    measured = table.get("measured")
    return FrontDot(
        label=get_text(table, "label", f"{where}."),
        choices={
            group: read_value(choice, str, f"{where}.choices.{group}")
            for group, choice in choices.items()
        },
        predicted=_numbers(get_field(table, "predicted", f"{where}."), f"{where}.predicted"),
        measured=None if measured is None else _numbers(measured, f"{where}.measured"),
        is_chosen=read_value(table.get("is_chosen", False), bool, f"{where}.is_chosen"),
        is_on_front=read_value(table.get("is_on_front", False), bool, f"{where}.is_on_front"),
    )


def _numbers(value: object, where: str) -> dict[str, float]:
    return {
        name: read_value(number, float, f"{where}.{name}")
        for name, number in read_table(value, where).items()
    }
