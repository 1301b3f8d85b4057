"""Measurements for people, as a table, and for programs, as one JSON object."""

from collections.abc import Mapping

from onhand.cli.output import write_json, write_table
from onhand.core.measurement import Measurement
from onhand.device.report_view import show_figure

__all__ = ["write_measurements"]


def write_measurements(figures: Mapping[str, Measurement], *, as_json: bool) -> None:
    """Write measurements on stdout.

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
        ["figure", "value", "spread", "made by"],
        [
            (
                name.replace("_", " "),
                _value(figure),
                _spread(figure),
                "estimate" if figure.estimated else f"{figure.samples} samples",
            )
            for name, figure in figures.items()
        ],
    )


def _value(figure: Measurement) -> str:
    about = "about " if figure.estimated else ""
    return about + show_figure(figure.name, figure.value)


def _spread(figure: Measurement) -> str:
    if figure.interval is not None:
        low, high = (show_figure(figure.name, end) for end in figure.interval)
        return f"95 %: {low} to {high}"
    return f"IQR {show_figure(figure.name, figure.spread)}" if figure.spread else ""
