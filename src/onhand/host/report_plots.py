"""The plots of a report: SVG to stand inside a page, in the page's own colours and fonts."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from onhand.core.measurement import Measurement
from onhand.device.report_records import Report, ReportMatrix
from onhand.device.report_view import show_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plot", "error_plots", "speed_plots"]

_SERIES = 8  # colours that the page defines: --series-1 and so on
_INK, _LINE, _MUTED = "#01010a", "#01010b", "#01010c"
_COLOURS = tuple(f"#0101a{i}" for i in range(1, _SERIES + 1))
# matplotlib writes plain colours; the page needs names that follow light and dark.
_NAMES = {
    _INK: "var(--ink)",
    _LINE: "var(--line)",
    _MUTED: "var(--muted)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(_COLOURS, start=1)},
}
_MARKERS = "osD^vPX<>"
_WIDTH = 5.2  # inches; the page scales it
_LONGEST = 18  # characters of a label; the page has the whole name in its tables
_LAYERED = re.compile(r"layers\.([0-9]{1,4})\.(.+)")
_SPEED = {
    "prefill_tokens_per_s": "Prefill speed (more is better)",
    "decode_tokens_per_s": "Decode speed (more is better)",
    "time_to_first_token_s": "Time to first token (less is better)",
    "latency_s": "Latency (less is better)",
    "cold_start_s": "Cold start (less is better)",
}
_SETTINGS: dict[str, dict[str, object]] = {
    "axes": {
        "edgecolor": _MUTED,
        "grid": True,
        "labelcolor": _INK,
        "spines.right": False,
        "spines.top": False,
    },
    "font": {"size": 10},
    "grid": {"color": _LINE},
    "legend": {"frameon": False},
    "lines": {"linewidth": 1.5, "markersize": 4.5},
    "svg": {"fonttype": "none"},
    "text": {"color": _INK, "parse_math": False},  # a name may hold a dollar
    "xtick": {"color": _MUTED, "labelcolor": _INK},
    "ytick": {"color": _MUTED, "labelcolor": _INK},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: what it shows, for people and screen readers.
        svg: an `<svg>` element with its text as text.
    """

    title: str
    svg: str


def error_plots(matrices: Sequence[ReportMatrix], *, name: str) -> list[Plot]:
    """Draw the weight error and the output error by layer, a line for each kind of matrix.

    Changes matplotlib's settings while it draws: one thread at a time.

    Args:
        matrices: of one variant.
        name: of the variant.

    Returns:
        Two plots, or none if there is no matrix.
    """
    if not matrices:
        return []
    weights = {matrix.name: matrix.relative_error for matrix in matrices}
    outputs = {matrix.name: matrix.output_error for matrix in matrices}
    return [
        _plot(
            f"Relative error of the {what}, {name}",
            partial(_draw_errors, values=values),
            height=3.3,
        )
        for what, values in (("weights", weights), ("outputs", outputs))
    ]


def speed_plots(report: Report) -> list[Plot]:
    """Draw prefill, decode, time to first token, latency, cold start: original and variants.

    Changes matplotlib's settings while it draws: one thread at a time.

    Args:
        report: the report.

    Returns:
        A plot for each of them that somebody measured.
    """
    plots: list[Plot] = []
    for measurement, title in _SPEED.items():
        bars = [("original", report.original.get(measurement))]
        bars += [(name, v.figures.get(measurement)) for name, v in report.variants.items()]
        if any(figure is not None for _, figure in bars):
            height = 0.6 + 0.4 * len(bars)
            plots.append(_plot(title, partial(_draw_bars, bars=bars), height=height))
    return plots


def _draw_errors(axes: "Axes", *, values: Mapping[str, float]) -> None:
    layered = {name: match for name in values if (match := _LAYERED.fullmatch(name))}
    n_layers = max((int(match[1]) + 1 for match in layered.values()), default=0)
    # The embedding stands before the first layer, all else without a layer behind the last.
    others = [name for name in values if name not in layered]
    behind = [name for name in others if name != "embed"]
    places = {name: int(match[1]) for name, match in layered.items()}
    gap = n_layers // 10 + 1  # room for their names
    places |= {"embed": -gap} if "embed" in others else {}
    places |= {name: n_layers - 1 + (i + 1) * gap for i, name in enumerate(behind)}
    kinds = {name: layered[name][2] if name in layered else name for name in values}
    for i, kind in enumerate(dict.fromkeys(kinds.values())):
        names = sorted((name for name in values if kinds[name] == kind), key=places.__getitem__)
        axes.plot(
            [places[name] for name in names],
            [values[name] * 100 for name in names],
            color=_COLOURS[i % _SERIES],
            marker=_MARKERS[i % len(_MARKERS)],
            label=_short(kind),
        )
    step = max(n_layers // 8, 1)
    ticks = {place: str(place) for place in range(0, n_layers, step)}
    ticks |= {places[name]: _short(name) for name in others}
    axes.set_xticks(sorted(ticks), [ticks[place] for place in sorted(ticks)])
    axes.set_xlabel("layer")
    axes.set_ylabel("%")
    axes.set_ylim(0, max(*values.values(), 1e-12) * 108)
    _legend(axes)


def _draw_bars(axes: "Axes", *, bars: Sequence[tuple[str, Measurement | None]]) -> None:
    ends = [0.0 if figure is None else figure.value + figure.spread / 2 for _, figure in bars]
    largest = max(*ends, 1e-12)
    for place, ((_, figure), end) in enumerate(zip(bars, ends, strict=True)):
        text = "not measured"
        if figure is not None:
            text = ("about " if figure.estimated else "") + show_figure(figure.name, figure.value)
            axes.barh(place, figure.value, height=0.6, color=_colour(place))
            # An interquartile range says how wide the middle half is: centred on the median.
            half = figure.spread / 2
            axes.hlines(place, figure.value - half, figure.value + half, colors=_INK)
        axes.text(end + largest * 0.02, place, text, va="center", color=_INK)
    axes.set_yticks(range(len(bars)), [_short(label) for label, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)  # the first bar on top
    axes.set_xlim(0, largest * 1.42)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _colour(place: int) -> str:
    return _MUTED if place == 0 else _COLOURS[(place - 1) % _SERIES]


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _legend(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, 60 // (max(map(len, labels)) + 6))
    axes.figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _plot(title: str, draw: "Callable[[Axes], None]", *, height: float) -> Plot:
    """Draw one plot; the same input gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context():
        # The reader's own fonts draw the text; matplotlib's only measures it.
        warnings.filterwarnings("ignore", message="Glyph ")
        mpl.rcdefaults()  # not the settings of this user
        for group, values in _SETTINGS.items():
            # Newer versions list every group in the type, older ones take any text.
            mpl.rc(group, **values)  # type: ignore[arg-type, unused-ignore]
        mpl.rc("svg", hashsalt=title)  # two plots of one page must not share ids
        figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing, facecolor="none")
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, name in _NAMES.items():
        svg = svg.replace(f": {colour}", f": {name}")
    return Plot(title=title, svg=svg)
