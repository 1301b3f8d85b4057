"""Heat maps of a report: matrices by layer, groups by choice; bits as text, error as colour."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onhand.device.report_evidence import SensitivityCell
from onhand.device.report_kinds import show_figure
from onhand.device.report_records import ReportMatrix
from onhand.host.report_svg import Canvas, cut

__all__ = ["LEVELS", "HeatMap", "matrix_heat", "sensitivity_heat"]

LEVELS = 6
_LAYERED = re.compile(r"layers\.([0-9]{1,4})\.(.+)")
_MOST_ROWS, _MOST_COLUMNS = 130, 16
_MOST_CHOICES = 8  # of one search; of more, each number of bits shows its best
_ROW, _LEFT, _TOP = 21.0, 118.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """One heat map.

    Attributes:
        title: for people and screen readers.
        svg: an `<svg>` element.
        legend: for each level of colour, the errors that it stands for.
        left_out: rows that are not drawn, because there are too many.
    """

    title: str
    svg: str
    legend: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    row: str
    column: str
    text: str
    error: float
    tip: str


def matrix_heat(matrices: Sequence[ReportMatrix], *, name: str) -> HeatMap | None:
    """Draw the matrices of a variant: layers downwards, kinds across.

    Args:
        matrices: of one variant.
        name: of the variant.

    Returns:
        The map; None if there is no matrix.
    """
    cells: list[_Cell] = []
    for matrix in matrices:
        found = _LAYERED.fullmatch(matrix.name)
        cells.append(
            _Cell(
                row=f"layer {int(found[1])}" if found else matrix.name,
                column=found[2] if found else "whole",
                text=str(matrix.bits),
                error=matrix.output_error,
                tip=(
                    f"{matrix.name}\n{matrix.bits} bits, groups of {matrix.group_size}\n"
                    f"output error {matrix.output_error * 100:.3g} %, weight error "
                    f"{matrix.relative_error * 100:.3g} %\n"
                    f"{show_figure('size_bytes', matrix.size_bytes)} of "
                    f"{show_figure('size_bytes', matrix.original_bytes)}"
                ),
            )
        )
    return _heat(cells, f"Bits and output error of each matrix, {name}", shown=_percent)


def sensitivity_heat(found: Sequence[SensitivityCell]) -> HeatMap | None:
    """Draw what each choice of each group would lose, as the search saw it.

    Where there are many choices, a cell stands for the one of its number of bits that loses least.

    Args:
        found: groups and choices.

    Returns:
        The map; None if there is none.
    """
    ordered = sorted(found, key=lambda cell: cell.bits)
    if len({cell.choice for cell in ordered}) > _MOST_CHOICES:
        ordered = _best_by_bits(ordered)
        columns = [f"{cell.bits:g} bits" for cell in ordered]
    else:
        columns = [cell.choice for cell in ordered]
    cells = [
        _Cell(
            row=cell.group,
            column=column,
            text=f"{cell.bits:g}",
            error=cell.damage,
            tip=(
                f"{cell.group}\n{cell.choice} ({cell.bits:g} bits)\nlost {cell.damage:.3g}\n"
                f"{show_figure('size_bytes', cell.size_bytes)}"
            ),
        )
        for cell, column in zip(ordered, columns, strict=True)
    ]
    return _heat(cells, "What each choice of bits would lose, by group", shown=_plain)


def _best_by_bits(found: Sequence[SensitivityCell]) -> list[SensitivityCell]:
    """Keep of each group and number of bits the choice that loses least."""
    best: dict[tuple[str, float], SensitivityCell] = {}
    for cell in found:
        kept = best.get((cell.group, cell.bits))
        if kept is None or cell.damage < kept.damage:
            best[cell.group, cell.bits] = cell
    return list(best.values())


def _heat(cells: Sequence[_Cell], title: str, *, shown: Callable[[float], str]) -> HeatMap | None:
    if not cells:
        return None
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))[:_MOST_COLUMNS]
    drawn, edges = rows[:_MOST_ROWS], _edges([cell.error for cell in cells])
    width = max(34.0, min(96.0, (560 - _LEFT) / len(columns)))
    canvas = Canvas(max(_LEFT + width * len(columns) + 6, 300.0), _TOP + _ROW * len(drawn) + 4)
    letters = max(4, int(width / 6.4))
    for i, column in enumerate(columns):
        at = _LEFT + width * (i + 0.5)
        canvas.text(at, _TOP - 9, cut(column, letters), anchor="middle", kind="tick")
    for i, row in enumerate(drawn):
        canvas.text(_LEFT - 8, _TOP + _ROW * (i + 0.68), cut(row, 18), anchor="end", kind="tick")
    for cell in cells:
        if cell.row in drawn and cell.column in columns:
            canvas.cell(
                _LEFT + width * columns.index(cell.column) + 1,
                _TOP + _ROW * drawn.index(cell.row) + 1,
                width - 2,
                _ROW - 2,
                tip=cell.tip,
                level=_level(cell.error, edges),
                text=cell.text,
            )
    legend = [f"up to {shown(edge)}" for edge in edges]
    return HeatMap(
        title=title,
        svg=canvas.svg(title),
        legend=(*legend, "more"),
        left_out=len(rows) - len(drawn),
    )


def _edges(errors: Sequence[float]) -> tuple[float, ...]:
    """Return where one level of colour ends and the next begins: in equal ratios."""
    known = [error for error in errors if error > 0]
    if not known:
        return tuple(float(i) for i in range(1, LEVELS))
    low, high = min(known), max(known)
    # Small differences are not to look like large ones.
    low = min(low, high / 1.5)
    step = (math.log(high) - math.log(low)) / LEVELS
    return tuple(low * math.exp(step * i) for i in range(1, LEVELS))


def _level(error: float, edges: Sequence[float]) -> int:
    return sum(error > edge for edge in edges)


def _percent(value: float) -> str:
    return f"{value * 100:.2g} %"


def _plain(value: float) -> str:
    return f"{value:.2g}"
