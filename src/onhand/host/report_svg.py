"""A small writer of SVG for the page of a report: scales, axes, marks that speak when pointed at.

Every text is escaped here, and colours are the page's own, so that they follow light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

__all__ = [
    "Canvas",
    "Scale",
    "attribute",
    "bytes_unit",
    "cut",
    "linear_scale",
    "log_scale",
    "series_colour",
]

_SERIES = 8
_ODD = {ord(c): "\ufffd" for c in map(chr, range(32)) if c not in "\t\n\r"}


def attribute(text: str) -> str:
    """Return a text as an attribute's value, quotes and all."""
    return quoteattr(text.translate(_ODD))


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters, with a sign where it was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def series_colour(place: int) -> str:
    """Return the page's colour of a series; 0 is the muted one, of the original."""
    return "var(--muted)" if place == 0 else f"var(--series-{(place - 1) % _SERIES + 1})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From values to pixels.

    Attributes:
        low: the value at `start`.
        high: the value at `end`; above `low`.
        start: pixel.
        end: pixel.
        ticks: values to mark, within.
        is_log: whether equal ratios take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.is_log:
            low, high, at = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high, at = self.low, self.high, value
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def linear_scale(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    zero: bool = False,
    n: int = 5,
    unit: float = 1.0,
) -> Scale:
    """Return a scale that holds all values, with round numbers marked.

    Args:
        values: at least one, finite.
        start: pixel of the lowest.
        end: pixel of the highest.
        zero: whether it begins at 0 at the latest.
        n: about how many marks.
        unit: that marks are round numbers of.
    """
    low, high = min(values) / unit, max(values) / unit
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = high - low
    # Values that are all the same still need some room around them.
    room = room if room > abs(high) * 1e-9 and room > 1e-300 else max(abs(high), 1e-9)
    low = low if zero and low == 0 else low - room * 0.08
    high = high if zero and high == 0 > low else high + room * 0.08
    step = 10.0 ** math.floor(math.log10((high - low) / n))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= n)
    first = math.ceil(low / step)
    ticks = tuple((first + i) * step for i in range(n + 2) if low <= (first + i) * step <= high)
    marks = tuple(tick * unit for tick in ticks)
    return Scale(low=low * unit, high=high * unit, start=start, end=end, ticks=marks)


def bytes_unit(largest: float) -> float:
    """Return the unit of 1024 that a size is shown in."""
    return next((unit for unit in (2.0**30, 2.0**20, 2.0**10) if largest >= unit), 1.0)


def log_scale(values: Sequence[float], start: float, end: float, *, base: float = 10) -> Scale:
    """Return a scale where equal ratios take equal room.

    Args:
        values: at least one, above 0.
        start: pixel of the lowest.
        end: pixel of the highest.
        base: marks are its powers.
    """
    low, high = min(values), max(values)
    low, high = (low / 1.2, high * 1.2) if high > low else (low / base, high * base)
    powers = range(math.ceil(math.log(low, base)), math.floor(math.log(high, base)) + 1)
    every = max(1, len(powers) // 6)
    ticks = tuple(base**power for power in powers[::every])
    return Scale(low=low, high=high, start=start, end=end, ticks=ticks, is_log=True)


@dataclass(slots=True)
class Canvas:
    """An SVG in the making.

    Attributes:
        width: in pixels.
        height: in pixels.
    """

    width: float
    height: float
    _parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "ink"
    ) -> None:
        """Write a text; `kind` is a class of the page."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
            f"{escape(text.translate(_ODD))}</text>"
        )

    def turned(self, x: float, y: float, text: str) -> None:
        """Write a text from below to above, its middle at a place."""
        self._parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="middle" '
            f'class="ink">{escape(text.translate(_ODD))}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, kind: str = "grid") -> None:
        """Draw a line."""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], *, colour: str) -> None:
        """Draw a line through points."""
        drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(f'<path d="M{drawn}" class="curve" style="stroke:{colour}"/>')

    def bar(self, x1: float, x2: float, y: float, height: float, *, tip: str, kind: str) -> None:
        """Draw a bar from one place to another, that speaks when pointed at."""
        left, width = min(x1, x2), max(abs(x2 - x1), 1.0)
        self._speaking(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'class="{kind}"/>',
            tip,
        )

    def cell(
        self, x: float, y: float, width: float, height: float, *, tip: str, level: int, text: str
    ) -> None:
        """Draw a cell of a heat map; its level is one of the page's, 0 to 5."""
        self._speaking(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'class="heat-{level}"/><text x="{x + width / 2:.1f}" y="{y + height / 2 + 3.5:.1f}" '
            f'text-anchor="middle" class="heat-text-{level}">{escape(text.translate(_ODD))}</text>',
            tip,
        )

    def mark(
        self, x: float, y: float, *, tip: str, colour: str, is_hollow: bool = False, size: float = 5
    ) -> None:
        """Draw a point that speaks when pointed at; a hollow one is a prediction."""
        paint = f"fill:var(--card);stroke:{colour}" if is_hollow else f"fill:{colour}"
        self._speaking(
            # A wider circle that is not seen, so that fingers find it.
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size + 6:.1f}" class="reach"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="mark" style="{paint}"/>',
            tip,
        )

    def ring(self, x: float, y: float, *, colour: str) -> None:
        """Draw a ring around a point: the chosen one."""
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" class="ring" style="stroke:{colour}"/>'
        )

    def _speaking(self, drawn: str, tip: str) -> None:
        said = attribute(tip)
        self._parts.append(
            f'<g class="tip" tabindex="0" role="img" aria-label={said} data-tip={said}>'
            f"<title>{escape(tip.translate(_ODD))}</title>{drawn}</g>"
        )

    def axes(
        self,
        x: Scale,
        y: Scale,
        *,
        show_x: Callable[[float], str],
        show_y: Callable[[float], str],
        x_label: str,
        y_label: str,
    ) -> None:
        """Draw a grid with its numbers, and what the two axes are."""
        for value in x.ticks:
            at = x.place(value)
            self.line(at, y.start, at, y.end)
            self.text(at, y.start + 16, show_x(value), anchor="middle", kind="tick")
        for value in y.ticks:
            at = y.place(value)
            self.line(x.start, at, x.end, at)
            self.text(x.start - 6, at + 4, show_y(value), anchor="end", kind="tick")
        self.line(x.start, y.start, x.end, y.start, kind="axis")
        self.line(x.start, y.start, x.start, y.end, kind="axis")
        self.text((x.start + x.end) / 2, self.height - 6, x_label, anchor="middle")
        self.turned(12, (y.start + y.end) / 2, y_label)

    def svg(self, title: str) -> str:
        """Return the whole as an element; `title` is what a screen reader says of it."""
        return (
            f'<svg class="canvas" viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="group" '
            f"aria-label={attribute(title)}>{''.join(self._parts)}</svg>"
        )
