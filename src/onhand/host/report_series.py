"""Plots of a report along time and context, and the waterfall of what each technique brought."""

from collections.abc import Sequence
from dataclasses import dataclass

from onhand.core.evaluation import Waterfall
from onhand.core.measurement import Measurement
from onhand.core.units import format_bytes, format_seconds
from onhand.device.context_speed import ContextSpeed
from onhand.device.memory_series import MemorySeries
from onhand.device.report_kinds import figure_name, kind_of, show_figure
from onhand.host.report_svg import Canvas, bytes_unit, cut, linear_scale, log_scale

__all__ = ["FallPlot", "FallRow", "SeriesPlot", "context_plots", "memory_plot", "waterfall_plots"]

_WIDTH, _HEIGHT = 560.0, 290.0
_LEFT, _ROW = 190.0, 30.0
_MOST_PARTS = 24
_MARKS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPlot:
    """One plot.

    Attributes:
        title: for people and screen readers.
        svg: an `<svg>` element.
        notes: what its numbers stand for.
    """

    title: str
    svg: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FallRow:
    """One bar of a waterfall as a row of the table beside it.

    Attributes:
        label: the technique, or the state before or after.
        without: the figure without the technique; "" for the states and the rest.
        brought: what it changes; "" for the states.
    """

    label: str
    without: str
    brought: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FallPlot:
    """One waterfall.

    Attributes:
        title: for people and screen readers.
        svg: an `<svg>` element.
        rows: its table.
        missing: technique -> why it could not be left out.
    """

    title: str
    svg: str
    rows: tuple[FallRow, ...]
    missing: tuple[tuple[str, str], ...]


def memory_plot(series: MemorySeries | None) -> SeriesPlot | None:
    """Draw resident memory over time, with numbers where phases begin.

    Args:
        series: the series; None for none.

    Returns:
        The plot; None where there are not two points.
    """
    if series is None or len(series.points) < 2:
        return None
    title = "Resident memory over time"
    canvas = Canvas(_WIDTH, _HEIGHT)
    across = linear_scale([at for at, _ in series.points], 86, _WIDTH - 18, zero=True)
    sizes = [float(size) for _, size in series.points]
    up = linear_scale(sizes, _HEIGHT - 52, 30, zero=True, unit=bytes_unit(max(sizes)))
    canvas.axes(
        across,
        up,
        show_x=lambda value: _brief(format_seconds(value)) if value else "0",
        show_y=lambda value: _brief(format_bytes(value)) if value else "0",
        x_label="time since the start of the process",
        y_label="resident memory",
    )
    notes: list[str] = []
    last = -100.0
    phases = series.phases[:9]
    for number, (name, began) in enumerate(phases, start=1):
        if not 0 <= began <= across.high:
            continue
        at = across.place(began)
        canvas.line(at, up.start, at, up.end, kind="phase")
        # Phases that begin at almost the same moment must not write over each other.
        last = max(at, last + 14)
        canvas.text(last, 22, str(number), anchor="middle")
        notes.append(f"{number} {name} ({format_seconds(began)})")
    places = [(across.place(at), up.place(size)) for at, size in series.points]
    canvas.path(places, colour="var(--series-1)")
    for i in _spread(len(series.points), series.points):
        at, size = series.points[i]
        tip = f"{format_bytes(size)} after {format_seconds(at)}\n{_phase(series, at)}"
        canvas.mark(*places[i], tip=tip, colour="var(--series-1)", size=3)
    return SeriesPlot(title=title, svg=canvas.svg(title), notes=tuple(notes))


def _spread(n: int, points: Sequence[tuple[float, int]]) -> list[int]:
    """Return some points to be pointed at, the highest among them."""
    every = max(1, n // _MARKS)
    highest = max(range(n), key=lambda i: points[i][1])
    return sorted({*range(0, n, every), highest, n - 1})


def _phase(series: MemorySeries, at: float) -> str:
    begun = [name for name, began in series.phases if began <= at]
    return begun[-1] if begun else ""


def context_plots(contexts: Sequence[ContextSpeed]) -> list[SeriesPlot]:
    """Draw decode speed and time to first token against the length of the context.

    Args:
        contexts: ascending.

    Returns:
        Two plots; none where there are not two lengths.
    """
    if len(contexts) < 2:
        return []
    made: list[SeriesPlot] = []
    for name in ("decode_tokens_per_s", "time_to_first_token_s"):
        points = [(speed.tokens, _figure(speed, name)) for speed in contexts]
        title = f"{figure_name(name)} by length of the context"
        canvas = Canvas(_WIDTH, _HEIGHT)
        across = log_scale([float(tokens) for tokens, _ in points], 86, _WIDTH - 18, base=4)
        up = linear_scale([figure.value for _, figure in points], _HEIGHT - 52, 16, zero=True)
        better = "more" if kind_of(name).more_is_better else "less"
        unit = "tokens/s" if name == "decode_tokens_per_s" else "time"
        canvas.axes(
            across,
            up,
            show_x=lambda value: f"{value:,.0f}",
            show_y=lambda value, name=name: (  # type: ignore[misc] # bound at once
                _brief(show_figure(name, value).removesuffix(" tokens/s")) if value else "0"
            ),
            x_label="tokens in the context",
            y_label=f"{unit} ({better} is better)",
        )
        canvas.path(
            [(across.place(tokens), up.place(figure.value)) for tokens, figure in points],
            colour="var(--series-1)",
        )
        for tokens, figure in points:
            tip = (
                f"{tokens:,} tokens\n{figure_name(name)}: {show_figure(name, figure.value)}\n"
                f"{figure.samples} runs"
            )
            canvas.mark(
                across.place(tokens), up.place(figure.value), tip=tip, colour="var(--series-1)"
            )
        made.append(SeriesPlot(title=title, svg=canvas.svg(title)))
    return made


def _figure(speed: ContextSpeed, name: str) -> Measurement:
    is_rate = name == "decode_tokens_per_s"
    return speed.decode_tokens_per_s if is_rate else speed.time_to_first_token_s


def waterfall_plots(falls: Sequence[Waterfall]) -> list[FallPlot]:
    """Draw what each technique brought, and the rest that only all of them together bring.

    Args:
        falls: one for each figure.

    Returns:
        A plot for each.
    """
    return [_fall(fall) for fall in falls]


def _fall(fall: Waterfall) -> FallPlot:
    name = fall.measurement
    title = f"{figure_name(name)}: what each technique brings"
    parts = list(zip(fall.parts, fall.brought(), strict=True))[:_MOST_PARTS]
    bars: list[tuple[str, float, float]] = []  # label, from, to
    at = fall.before.value
    for part, brought in parts:
        bars.append((part.label, at, at + brought))
        at += brought
    bars.append(("together, beyond the sum", at, fall.after.value))
    ends = [end for _, a, b in bars for end in (a, b)]
    canvas = Canvas(_WIDTH, _ROW * (len(bars) + 2) + 8)
    across = linear_scale([fall.before.value, *ends], _LEFT, _WIDTH - 92, zero=True)
    zero = across.place(0.0)
    canvas.line(zero, 0, zero, canvas.height, kind="axis")
    rows = [FallRow(label="without any of them", without="", brought="")]
    _state(canvas, 0, rows[0].label, fall.before, (zero, across.place(fall.before.value)), name)
    for place, (label, a, b) in enumerate(bars, start=1):
        top = 4 + _ROW * place
        changed = _signed(name, b - a)
        is_better = (b < a) != kind_of(name).more_is_better
        kind = "bar-state" if a == b else "bar-good" if is_better else "bar-bad"
        kind = "bar-rest" if place == len(bars) else kind
        canvas.text(_LEFT - 10, top + 18, cut(label, 28), anchor="end", kind="tick")
        canvas.bar(
            across.place(a),
            across.place(b),
            top + 4,
            _ROW - 10,
            tip=f"{label}\n{changed}",
            kind=kind,
        )
        right = max(across.place(a), across.place(b))
        canvas.text(right + 6, top + 18, changed, kind="tick")
        canvas.line(across.place(b), top + 4, across.place(b), top + _ROW + 4, kind="phase")
        without = "" if place == len(bars) else _shown(parts[place - 1][0].without, name)
        rows.append(FallRow(label=label, without=without, brought=changed))
    end = (zero, across.place(fall.after.value))
    _state(canvas, len(bars) + 1, "with all of them", fall.after, end, name)
    rows[0] = FallRow(label=rows[0].label, without=_shown(fall.before, name), brought="")
    rows.append(FallRow(label="with all of them", without=_shown(fall.after, name), brought=""))
    missing = tuple(fall.missing.items())
    return FallPlot(title=title, svg=canvas.svg(title), rows=tuple(rows), missing=missing)


def _state(
    canvas: Canvas,
    place: int,
    label: str,
    figure: Measurement,
    ends: tuple[float, float],
    name: str,
) -> None:
    top = 4 + _ROW * place
    shown = _shown(figure, name)
    canvas.text(_LEFT - 10, top + 18, label, anchor="end", kind="tick")
    canvas.bar(*ends, top + 4, _ROW - 10, tip=f"{label}\n{shown}", kind="bar-state")
    canvas.text(max(ends) + 6, top + 18, shown, kind="tick")


def _shown(figure: Measurement, name: str) -> str:
    return ("about " if figure.estimated else "") + show_figure(name, figure.value)


def _signed(name: str, change: float) -> str:
    if not change:
        return "no change"
    shown = show_figure(name, abs(change)).removeprefix("+")
    return ("+" if change > 0 else "\u2212") + shown


def _brief(shown: str) -> str:
    """Leave out a fraction that is nothing: "400.0 ms" is "400 ms"."""
    number, _, unit = shown.partition(" ")
    return f"{number.removesuffix('.0')} {unit}".rstrip()
