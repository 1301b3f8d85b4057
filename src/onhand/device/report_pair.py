"""Two reports side by side: two bundles, or one bundle on two devices."""

import math
from dataclasses import dataclass

from onhand.core.budget import AXES
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.device.report_kinds import KINDS, NETWORK, kind_of
from onhand.device.report_records import Report
from onhand.device.report_view import ReportCell, Tone, figure_cell, ratio_text

__all__ = ["Pair", "PairRow", "pair_reports"]

_TIMED = {axis.measurement for axis in AXES.values() if axis.timed}
_TIMED |= {"runs_per_s", "energy_j_per_run", "hardware_ratio", "optimisation_ratio"}
_TIMED |= {"interaction_ratio", "efficiency", "energy_used", "response"}
_SAME_ANYWHERE = {"size_bytes", "peak_memory_bytes", "compression_ratio"}
# A memory this much faster or slower was in another state, or is another memory.
_BANDWIDTH = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One figure of both.

    Attributes:
        measurement: its name, as in `Measurement`.
        name: its name for people.
        first: of the first report.
        second: of the second.
        ratio: second / first as text; "" where that says nothing.
        value: the same as a number; None likewise.
        range: the ratio's own spread, low and high; None likewise.
        tone: whether the second is "better" or "worse" by more than the spread, or the "same"; ""
            where the two cannot be compared.
        remark: what is to be known before the two are compared; "" where nothing is.
    """

    measurement: str
    name: str
    first: ReportCell
    second: ReportCell
    ratio: str
    value: float | None
    range: tuple[float, float] | None
    tone: Tone
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two reports side by side.

    Attributes:
        names: what the two are called, never the same.
        rows: every figure that one of them has.
        warnings: why some figures do not compare.
    """

    names: tuple[str, str]
    rows: tuple[PairRow, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object for programs."""
        return {
            "names": list(self.names),
            "warnings": list(self.warnings),
            "rows": [
                {
                    "measurement": row.measurement,
                    "first": row.first.value,
                    "second": row.second.value,
                    "ratio": row.value,
                    "range": None if row.range is None else list(row.range),
                    "difference": row.tone,
                    "remark": row.remark,
                }
                for row in self.rows
            ],
        }


def pair_reports(first: Report, second: Report) -> Pair:
    """Put the default variants of two reports side by side.

    Args:
        first: the report that the other is compared with.
        second: the other.

    Returns:
        The rows, and what does not compare.

    Raises:
        InputError: if one is of a language model and the other of a network.
    """
    if first.kind != second.kind:
        raise InputError(
            f"{first.name} is a {first.kind} and {second.name} a {second.kind}: their figures have "
            "nothing in common"
        )
    ours, theirs = _figures(first), _figures(second)
    order = [*(NETWORK if first.kind == "network" else KINDS), *ours, *theirs]
    names = [name for name in dict.fromkeys(order) if name in ours or name in theirs]
    remarks = _remarks(first, second)
    return Pair(
        names=_names(first, second),
        rows=tuple(_row(name, ours.get(name), theirs.get(name), remarks) for name in names),
        warnings=tuple(_warnings(first, second)),
    )


def _figures(report: Report) -> dict[str, Measurement]:
    found = dict(report.variants[report.default_variant].figures)
    for one in report.evidence.evaluation:
        for figure in (one.ratio, one.outcome):
            if figure is not None:
                found[figure.name] = figure
    return {name: figure for name, figure in found.items() if not name.startswith("original_")}


def _names(first: Report, second: Report) -> tuple[str, str]:
    """Return what tells the two apart: name, variant, device, or only the place."""
    for parts in (
        (first.name, second.name),
        (f"{first.name} {first.default_variant}", f"{second.name} {second.default_variant}"),
        (f"{first.name}, {first.device.name}", f"{second.name}, {second.device.name}"),
        (f"{first.name}, {first.engine.name}", f"{second.name}, {second.engine.name}"),
    ):
        if parts[0] != parts[1]:
            return parts
    return f"{first.name} (first)", f"{second.name} (second)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remarks:
    timed: str
    quality: str
    against: str


def _remarks(first: Report, second: Report) -> _Remarks:
    same_device = first.device.processor == second.device.processor
    text = "" if first.heldout.sha256 == second.heldout.sha256 else "another text"
    source = "" if first.source.sha256 == second.source.sha256 else "another original"
    return _Remarks(
        timed="" if same_device else "another device", quality=text, against=text or source
    )


def _warnings(first: Report, second: Report) -> list[str]:
    """Return why some figures do not compare."""
    found: list[str] = []
    remarks = _remarks(first, second)
    if remarks.timed:
        found.append(
            f"other devices: {first.device.processor} and {second.device.processor}; times, rates "
            "and energy tell the devices apart as much as the bundles"
        )
    if remarks.quality:
        found.append(
            f"other texts were held out ({first.heldout.what}; {second.heldout.what}): what was "
            "lost does not compare, and has no ratio"
        )
    elif remarks.against:
        found.append("other originals: what was lost against them does not compare")
    bandwidths = first.read_bandwidth.value, second.read_bandwidth.value
    if not remarks.timed and min(bandwidths) > 0 and max(bandwidths) > _BANDWIDTH * min(bandwidths):
        shown = " and ".join(figure_cell(r.read_bandwidth).value for r in (first, second))
        found.append(
            f"the memory was in another state ({shown} beside the figures): times may differ for "
            "that alone"
        )
    engines = [(r.engine.name, r.engine.version, r.engine.threads) for r in (first, second)]
    if engines[0] != engines[1]:
        said = " and ".join(f"{name} {version}, {n} threads" for name, version, n in engines)
        found.append(f"other ways of running: {said}")
    return found


def _row(
    name: str, first: Measurement | None, second: Measurement | None, remarks: _Remarks
) -> PairRow:
    kind = kind_of(name)
    if name in _TIMED or name.endswith("_s"):
        remark, comparable = remarks.timed, True
    elif name in _SAME_ANYWHERE:
        remark, comparable = "", True
    else:
        remark = remarks.against if kind.against else remarks.quality
        comparable = not remark
    if first is not None and second is not None and first.how != second.how:
        remark = remark or _lengths(first.how, second.how)
    value: float | None = None
    spread: tuple[float, float] | None = None
    tone: Tone = ""
    if comparable and first is not None and second is not None:
        tone = _tone(first, second, more_is_better=kind.more_is_better)
        if first.value > 0 and second.value > 0:
            value = second.value / first.value
            noise = value * math.hypot(_noise(first) / first.value, _noise(second) / second.value)
            spread = (max(value - noise, 0.0), value + noise)
    return PairRow(
        measurement=name,
        name=kind.name,
        first=figure_cell(first),
        second=figure_cell(second),
        ratio="" if value is None else ratio_text(value),
        value=value,
        range=spread,
        tone=tone,
        remark=remark,
    )


def _lengths(first: str, second: str) -> str:
    """Say where two commands measured answers to prompts of other lengths."""
    for option, what in (("--prompt-tokens", "prompt"), ("--generated-tokens", "answer")):
        lengths = [_option(how, option) for how in (first, second)]
        if all(lengths) and lengths[0] != lengths[1]:
            return f"another {what}: {lengths[0]} and {lengths[1]} tokens"
    return ""


def _option(how: str, option: str) -> str:
    words = how.split()
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _noise(figure: Measurement) -> float:
    """Return how far a figure may be off: half of its spread, or of its interval."""
    if figure.interval is not None:
        return (figure.interval[1] - figure.interval[0]) / 2
    return figure.spread / 2


def _tone(first: Measurement, second: Measurement, *, more_is_better: bool) -> Tone:
    gain = second.value - first.value if more_is_better else first.value - second.value
    if abs(gain) <= math.hypot(_noise(first), _noise(second)):
        return "same"
    return "better" if gain > 0 else "worse"
