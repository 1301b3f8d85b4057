"""The plot of `benchmarks.governor`: time per token over time, as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["plot"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 320, 56, 36, 24
_COLORS = {"fixed": "#b4552d", "governed": "#1f6f8b"}


def plot(results: Mapping[str, Any]) -> str:
    """Draw the first run of each configuration, with the target and the phase under load.

    Args:
        results: what the benchmark found.

    Returns:
        An SVG file's text.
    """
    runs = {name: found[0] for name, found in results["runs"].items()}
    edges: Sequence[float] = runs["fixed"]["edges_s"]
    target_ms: float = results["target_s"] * 1000
    most_ms: float = max([
        2 * target_ms,
        *(1000 * one for run in runs.values() for one in run["p95_by_second"] if one),
    ])

    def x(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 12) * seconds / edges[-1]

    def y(ms: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * ms / most_ms

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<rect x="{x(edges[1]):.1f}" y="{_TOP}" width="{x(edges[2]) - x(edges[1]):.1f}" '
        f'height="{_HEIGHT - _BOTTOM - _TOP}" fill="#eeeeee"/>',
        f'<text x="{x(edges[1]) + 4:.1f}" y="{_TOP + 14}">load from outside</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(target_ms):.1f}" y2="{y(target_ms):.1f}" '
        f'stroke="#555555" stroke-dasharray="4 3"/>',
        f'<text x="{_WIDTH - 12}" y="{y(target_ms) - 4:.1f}" text-anchor="end">target '
        f"{target_ms:.0f} ms</text>",
    ]
    for number, (name, run) in enumerate(runs.items()):
        points = " ".join(
            f"{x(second + 0.5):.1f},{y(value * 1000):.1f}"
            for second, value in enumerate(run["p95_by_second"])
            if value is not None and second < edges[-1]
        )
        color = _COLORS[name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 90 * number}" y="16" fill="{color}">{name}</text>')
    for share in (0, 0.5, 1):
        ms = most_ms * share
        parts.append(f'<text x="{_LEFT - 6}" y="{y(ms) + 4:.1f}" text-anchor="end">{ms:.0f}</text>')
    for edge in edges:
        parts.append(
            f'<text x="{x(edge):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{edge:.0f} s</text>"
        )
    parts.append(f'<text x="{_WIDTH - 12}" y="16" text-anchor="end">p95 of ms per token</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
