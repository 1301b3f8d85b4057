"""Measurements for people, as a table, and for programs, as one JSON object."""

import re
from collections.abc import Mapping

from onhand.cli.output import write, write_json, write_table
from onhand.core.measurement import Measurement
from onhand.device.report_view import show_figure

__all__ = ["write_measurements"]

# For people the value shows its unit.
_UNIT = re.compile(r"(?<!per)_(?:bytes|s|tokens_per_s|j_per_token|j_per_run)$")


def write_measurements(figures: Mapping[str, Measurement], *, as_json: bool) -> None:
    """Write measurements on stdout; for people, the command that measures them again follows.

    Args:
        figures: by name.
        as_json: whether a program reads them.

    Raises:
        EngineError: if a figure is NaN or infinite and JSON is wanted.
    """
    if as_json:
        write_json({name: figure.to_json() for name, figure in figures.items()})
        return
    write_table(
        ["figure", "value", "spread", "from"],
        [
            (
                _UNIT.sub("", name).replace("_", " "),
                _value(figure),
                _spread(figure),
                _evidence(figure),
            )
            for name, figure in figures.items()
        ],
    )
    # What follows a "#" is of one figure.
    for command in dict.fromkeys(figure.how.partition("  # ")[0] for figure in figures.values()):
        write(f"measured by: {command}\n")


def _show(figure: Measurement, value: float) -> str:
    if figure.unit == "byte/s":
        return f"{value / 1e9:.1f} GB/s"
    return show_figure(figure.name, value)


def _value(figure: Measurement) -> str:
    about = "about " if figure.estimated else ""
    return about + _show(figure, figure.value)


def _spread(figure: Measurement) -> str:
    if figure.interval is not None:
        low, high = (_show(figure, end) for end in figure.interval)
        return f"95 %: {low} to {high}"
    return f"IQR {_show(figure, figure.spread)}" if figure.spread else ""


def _evidence(figure: Measurement) -> str:
    if figure.estimated:
        return "estimate"
    return f"{figure.samples} samples" if figure.samples > 1 else "1 sample"
