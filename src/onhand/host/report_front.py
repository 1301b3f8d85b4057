"""The front as plots: quality against size, memory, time and energy, one point for each choice.

Where no search was run, the points are the original and the variants of the bundle.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onhand.core.measurement import Measurement
from onhand.device.report_evidence import FrontDot
from onhand.device.report_kinds import figure_name, kind_of, show_figure
from onhand.device.report_records import Report
from onhand.device.report_view import original_figure
from onhand.host.report_svg import Canvas, bytes_unit, cut, linear_scale, series_colour

__all__ = ["FrontPlot", "FrontRow", "front_axes", "front_plots", "front_rows", "front_sentence"]

COSTS = (
    "size_bytes",
    "peak_memory_bytes",
    "time_to_first_token_s",
    "latency_s",
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
    "energy_j_per_token",
    "energy_j_per_run",
    "load_s",
    "cold_start_s",
)
# The best known ones first; a figure that is neither a cost nor one of these comes after them.
QUALITIES = ("perplexity_increase", "kl_divergence", "quality_loss", "accuracy_loss", "damage")
_MOST_COSTS, _MOST_QUALITIES, _MOST_DOTS = 5, 2, 200
_MOST_GROUPS = 12
# By definition, of the original beside itself.
_NOTHING_LOST = ("perplexity_increase", "kl_divergence", "quality_loss", "accuracy_loss")
_WIDTH, _HEIGHT = 560.0, 330.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPlot:
    """One plane of two axes.

    Attributes:
        x: measurement of the horizontal axis, a cost.
        y: of the vertical one, a quality.
        title: for people and screen readers.
        svg: an `<svg>` element.
    """

    x: str
    y: str
    title: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """One point of the front as a row of the table beside the plot.

    Attributes:
        label: its name.
        choice: what was chosen, in words.
        values: for each axis, cost or quality: the value, and whether it was measured.
        state: "chosen", "on the front", or "".
    """

    label: str
    choice: str
    values: tuple[tuple[str, str], ...]
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dot:
    dot: FrontDot
    colour: str
    intervals: Mapping[str, tuple[float, float]]


def front_axes(report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the costs and the qualities that at least two points have a figure of.

    Args:
        report: the report.

    Returns:
        The horizontal axes and the vertical ones, the most telling first.
    """
    dots = [one.dot for one in _dots(report)]
    counts = Counter(name for dot in dots for name in {*dot.predicted, *(dot.measured or {})})
    known = [name for name, n in counts.items() if n > 1]
    costs = tuple(name for name in COSTS if name in known)[:_MOST_COSTS]
    listed = [name for name in QUALITIES if name in known]
    front = report.evidence.front
    axes = () if front is None else front.axes
    others = [n for n in axes if n in known and n not in COSTS and n not in listed]
    return costs, (*listed, *others)[:_MOST_QUALITIES]


def front_plots(report: Report) -> list[FrontPlot]:
    """Draw every plane of a cost and a quality.

    Args:
        report: the report.

    Returns:
        The plots, the first one the most telling; none where there is nothing to compare.
    """
    costs, qualities = front_axes(report)
    dots = _dots(report)
    made: list[FrontPlot] = []
    for y in qualities:
        for x in costs:
            title = f"{figure_name(y)} against {figure_name(x).lower()}"
            drawn = [d for d in dots if d.dot.value(x) is not None and d.dot.value(y) is not None]
            if len(drawn) > 1:
                made.append(FrontPlot(x=x, y=y, title=title, svg=_plane(title, x, y, drawn)))
    return made


def front_rows(report: Report) -> list[FrontRow]:
    """Return the table of the points: what a plot shows, for those who cannot see it."""
    costs, qualities = front_axes(report)
    return [
        FrontRow(
            label=one.dot.label,
            choice=_choice(one.dot),
            values=tuple(_cell(one.dot, axis) for axis in (*qualities, *costs)),
            state="chosen"
            if one.dot.is_chosen
            else "on the front"
            if one.dot.is_on_front and report.evidence.front is not None
            else "",
        )
        for one in _dots(report)
    ]


def front_sentence(report: Report) -> str:
    """Say what the points are."""
    front = report.evidence.front
    if front is None:
        return "The original and the variants of this bundle, all of them measured."
    n = len(front.dots)
    built = sum(dot.measured is not None for dot in front.dots)
    was = "was" if built == 1 else "were"
    shown = "" if n <= _MOST_DOTS else f" The {_MOST_DOTS} nearest to the front are shown."
    return (
        f"{n} choices that the search looked at: {built} {was} built and measured (filled), the "
        f"others are predicted (hollow, estimated). The ring marks this bundle.{shown}"
    )


def _cell(dot: FrontDot, axis: str) -> tuple[str, str]:
    value = dot.value(axis)
    if value is None:
        return "", ""
    return show_figure(axis, value), "measured" if dot.is_measured(axis) else "estimated"


def _dots(report: Report) -> list[_Dot]:
    front = report.evidence.front
    if front is None or not front.dots:
        return _variants(report)
    first = sorted(front.dots, key=lambda d: (not d.is_chosen, not d.measured, not d.is_on_front))
    return [
        _Dot(dot=dot, colour=series_colour(1 if dot.is_on_front else 0), intervals={})
        for dot in first[:_MOST_DOTS]
    ]


def _variants(report: Report) -> list[_Dot]:
    own = {name: figure.value for name, figure in report.original.items()}
    own |= {
        name: 0.0
        for name in _NOTHING_LOST
        if any(name in variant.figures for variant in report.variants.values())
    }
    for name in ("perplexity", "accuracy"):
        if (figure := original_figure(report, name)) is not None:
            own[name] = figure.value
    dots = [_variant("original", 0, own, {}, is_chosen=False)]
    for place, (name, variant) in enumerate(report.variants.items(), start=1):
        values = {key: figure.value for key, figure in variant.figures.items()}
        chosen = name == report.default_variant
        dots.append(_variant(name, place, values, variant.figures, is_chosen=chosen))
    return dots


def _variant(
    label: str,
    place: int,
    values: Mapping[str, float],
    figures: Mapping[str, Measurement],
    *,
    is_chosen: bool,
) -> _Dot:
    known = {name: figure.interval for name, figure in figures.items()}
    return _Dot(
        dot=FrontDot(
            label=label,
            choices={},
            predicted={},
            measured=values,
            is_chosen=is_chosen,
            is_on_front=True,
        ),
        colour=series_colour(place),
        intervals={name: interval for name, interval in known.items() if interval is not None},
    )


def _choice(dot: FrontDot) -> str:
    """Say what was chosen: each choice with its groups, the most usual one with their number."""
    groups: dict[str, list[str]] = {}
    for group, choice in dot.choices.items():
        groups.setdefault(choice, []).append(group)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    parts: list[str] = []
    for place, (choice, names) in enumerate(ordered):
        if place == 0 or len(names) > _MOST_GROUPS:
            parts.append(f"{choice} for {len(names)} group{'' if len(names) == 1 else 's'}")
        else:
            parts.append(f"{choice} for {', '.join(names)}")
    return cut("; ".join(parts), 400)


def _plane(title: str, x: str, y: str, dots: Sequence[_Dot]) -> str:
    xs = [_value(one.dot, x) for one in dots]
    ys = [_value(one.dot, y) for one in dots]
    ends = [end for one in dots for end in one.intervals.get(y, ())]
    canvas = Canvas(_WIDTH, _HEIGHT)
    unit = bytes_unit(max(xs)) if x.endswith("_bytes") else 1.0
    across = linear_scale(xs, 86, _WIDTH - 18, zero=True, unit=unit)
    up = linear_scale([*ys, *ends], _HEIGHT - 52, 16)
    canvas.axes(
        across,
        up,
        show_x=_shown(x),
        show_y=_shown(y),
        x_label=f"{figure_name(x)} ({_better(x)})",
        y_label=f"{figure_name(y)} ({_better(y)})",
    )
    on_front = sorted(
        (_value(one.dot, x), _value(one.dot, y))
        for one in dots
        if one.dot.is_on_front and one.dot.choices
    )
    if len(on_front) > 1:
        points = [(across.place(a), up.place(b)) for a, b in on_front]
        canvas.path(points, colour="var(--line)")
    few = len(dots) <= 6
    # The chosen one last, so that it lies on top.
    for one, a, b in sorted(zip(dots, xs, ys, strict=True), key=lambda item: item[0].dot.is_chosen):
        left, top = across.place(a), up.place(b)
        low, high = one.intervals.get(y, (b, b))
        if high > low:
            canvas.line(left, up.place(low), left, up.place(high), kind="interval")
        if one.dot.is_chosen:
            canvas.ring(left, top, colour=one.colour)
        measured = one.dot.is_measured(x) and one.dot.is_measured(y)
        canvas.mark(left, top, tip=_tip(one.dot, x, y), colour=one.colour, is_hollow=not measured)
        if few:
            right = left < _WIDTH * 0.7
            place = left + 13 if right else left - 13
            canvas.text(place, top + 4, cut(one.dot.label, 22), anchor="start" if right else "end")
    return canvas.svg(title)


def _tip(dot: FrontDot, x: str, y: str) -> str:
    lines = [dot.label]
    for axis in (x, y):
        value, evidence = _cell(dot, axis)
        lines.append(f"{figure_name(axis)}: {value} ({evidence})")
    if choice := _choice(dot):
        lines.append(choice)
    if dot.is_chosen:
        lines.append("this bundle")
    return "\n".join(lines)


def _value(dot: FrontDot, axis: str) -> float:
    value = dot.value(axis)
    return 0.0 if value is None else value


def _better(name: str) -> str:
    return "more is better" if kind_of(name).more_is_better else "less is better"


def _shown(name: str) -> Callable[[float], str]:
    def show(value: float) -> str:
        # Room is scarce on an axis: the rate's words are in its label.
        number, _, unit = show_figure(name, value).removesuffix(" tokens/s").partition(" ")
        return cut(f"{number.removesuffix('.0')} {unit}".rstrip(), 12) if value else "0"

    return show
