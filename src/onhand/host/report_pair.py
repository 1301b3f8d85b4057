"""The page of two reports side by side: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence

from onhand.device.report_data import parse_report
from onhand.device.report_pair import PairRow, pair_reports
from onhand.device.report_summary import plain_summary
from onhand.host.report_page import render_page
from onhand.host.report_svg import Canvas, cut, log_scale

__all__ = ["render_pair"]

TEMPLATE = "pair.html.jinja"
_LEFT, _ROW, _WIDTH = 190.0, 26.0, 600.0
_FURTHEST = 1e4


def render_pair(first: Mapping[str, object], second: Mapping[str, object]) -> str:
    """Write the page of two reports; the same reports give the same bytes.

    Args:
        first: the parsed `report.json` that the other is compared with.
        second: the other.

    Returns:
        An HTML document without anything to fetch.

    Raises:
        InputError: if one of them is wrong, or they have nothing in common.
    """
    reports = parse_report(first), parse_report(second)
    pair = pair_reports(*reports)
    title = f"{pair.names[1]} divided by {pair.names[0]}"
    return render_page(
        TEMPLATE,
        pair=pair,
        reports=list(zip(pair.names, reports, map(plain_summary, reports), strict=True)),
        plot_title=title,
        plot=_ratios(pair.rows, title),
    )


def _ratios(rows: Sequence[PairRow], title: str) -> str:
    """Draw every ratio with its spread, on a line where 1 means equal; "" where there is none."""
    known = [
        (row, value, row.range)
        for row in rows
        if (value := row.value) is not None
        and row.range is not None
        and 1 / _FURTHEST < value < _FURTHEST
    ]
    if not known:
        return ""
    canvas = Canvas(_WIDTH, _ROW * len(known) + 44)
    ends = [max(end, 1 / _FURTHEST) for _, value, spread in known for end in (value, *spread)]
    furthest = max(2.0, *ends, *(1 / end for end in ends))
    across = log_scale([1 / furthest, furthest], _LEFT, _WIDTH - 66, base=2)
    bottom = _ROW * len(known) + 8
    for tick in across.ticks:
        at = across.place(tick)
        canvas.line(at, 4, at, bottom, kind="axis" if tick == 1 else "grid")
        canvas.text(at, bottom + 16, f"{tick:g}x", anchor="middle", kind="tick")
    colours = {"better": "var(--good)", "worse": "var(--bad)"}
    for place, (row, value, spread) in enumerate(known):
        y = 8 + _ROW * (place + 0.5)
        canvas.text(_LEFT - 10, y + 4, cut(row.name, 26), anchor="end", kind="tick")
        left, right = (across.place(max(end, across.low)) for end in spread)
        canvas.line(left, y, right, y, kind="interval")
        said = {"better": "better", "worse": "worse", "same": "same within the spread", "": ""}
        tip = f"{row.name}: {row.ratio} {said[row.tone]}\n{row.first.text}\n{row.second.text}"
        tip += f"\n{row.remark}" if row.remark else ""
        canvas.mark(across.place(value), y, tip=tip, colour=colours.get(row.tone, "var(--muted)"))
        canvas.text(_WIDTH - 60, y + 4, row.ratio, kind="tick")
    canvas.text((_LEFT + _WIDTH - 66) / 2, bottom + 33, "ratio; 1x is equal", anchor="middle")
    return canvas.svg(title)
