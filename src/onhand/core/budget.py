"""Ceilings that a bundle must hold, and the check against measurements."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Literal

from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.core.units import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_fraction,
    parse_number,
)

__all__ = ["AXES", "Axis", "Breach", "Budget", "parse_budget"]


def _seconds(text: str) -> float:
    return parse_number(text, suffixes={"": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0})


def _rate(text: str) -> float:
    return parse_number(text, suffixes={"": 1.0, "/s": 1.0, "tok/s": 1.0, "tokens/s": 1.0})


def _joules(text: str) -> float:
    return parse_number(text, suffixes={"": 1.0, "j": 1.0, "mj": 1e-3})


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One thing that a budget can limit.

    Attributes:
        measurement: name of the `Measurement` (and field of `Budget`) it limits.
        limit: "most" for a ceiling, "least" for a floor.
        parse: text -> value in SI units.
        show: value -> text for people.
        timed: True if the figure changes with the machine's state.
    """

    measurement: str
    limit: Literal["most", "least"]
    parse: Callable[[str], float]
    show: Callable[[float], str]
    timed: bool = False


def _show_rate(value: float) -> str:
    return f"{value:.1f} tokens/s"


AXES: dict[str, Axis] = {
    "disk": Axis(measurement="size_bytes", limit="most", parse=parse_bytes, show=format_bytes),
    "ram": Axis(
        measurement="peak_memory_bytes", limit="most", parse=parse_bytes, show=format_bytes
    ),
    "quality": Axis(
        measurement="perplexity_increase",
        limit="most",
        parse=parse_fraction,
        show=lambda value: f"{value:+.2%} perplexity",
    ),
    "loss": Axis(
        measurement="quality_loss",
        limit="most",
        parse=parse_fraction,
        show=lambda value: f"{value:.2%} lost",
    ),
    "latency": Axis(
        measurement="latency_s", limit="most", parse=_seconds, show=format_seconds, timed=True
    ),
    "load": Axis(
        measurement="load_s", limit="most", parse=_seconds, show=format_seconds, timed=True
    ),
    "cold-start": Axis(
        measurement="cold_start_s", limit="most", parse=_seconds, show=format_seconds, timed=True
    ),
    "first-token": Axis(
        measurement="time_to_first_token_s",
        limit="most",
        parse=_seconds,
        show=format_seconds,
        timed=True,
    ),
    "prefill": Axis(
        measurement="prefill_tokens_per_s",
        limit="least",
        parse=_rate,
        show=_show_rate,
        timed=True,
    ),
    "decode": Axis(
        measurement="decode_tokens_per_s", limit="least", parse=_rate, show=_show_rate, timed=True
    ),
    "energy": Axis(
        measurement="energy_j_per_token",
        limit="most",
        parse=_joules,
        show=lambda value: f"{value:.3g} J/token",
        timed=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One limit that does not hold; `found` is None where nobody measured it.

    Attributes:
        key: the axis, as in `AXES`.
        ceiling: the limit, in SI units.
        found: the figure judged, in SI units, or None.
        why: one clause for people.
    """

    key: str
    ceiling: float
    found: float | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits in SI units; None means no limit. See `AXES` for the short names.

    Attributes:
        size_bytes: size of the default variant's files on disk, at most.
        peak_memory_bytes: highest resident memory of a generating process, at most.
        perplexity_increase: perplexity / original perplexity - 1, at most.
        quality_loss: of a network: the share that is lost of accuracy, agreement or similarity.
        latency_s: of a network: seconds of one run, at most.
        load_s: opening the bundle, seconds, at most.
        cold_start_s: start of the process to the first token, seconds, at most.
        time_to_first_token_s: request to first token, seconds, at most.
        prefill_tokens_per_s: prompt tokens per second, at least.
        decode_tokens_per_s: generated tokens per second, at least.
        energy_j_per_token: energy of one generated token, joules, at most.
    """

    size_bytes: float | None = None
    peak_memory_bytes: float | None = None
    perplexity_increase: float | None = None
    quality_loss: float | None = None
    latency_s: float | None = None
    load_s: float | None = None
    cold_start_s: float | None = None
    time_to_first_token_s: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    energy_j_per_token: float | None = None

    def limits(self) -> dict[str, float]:
        """Return the limits that are set: axis key -> value in SI units."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            key: float(given[axis.measurement])
            for key, axis in AXES.items()
            if given[axis.measurement] is not None
        }

    def breaches(
        self, measured: Iterable[Measurement], *, accept_estimates: bool = False
    ) -> list[Breach]:
        """Return every limit that does not hold or was not measured: silence is not a pass.

        Times are judged on the slow side, because a shared machine changes by the minute:
        median plus (for rates: minus) the interquartile range.

        Args:
            measured: the figures.
            accept_estimates: whether an estimated figure may satisfy a limit.

        Returns:
            The breaches, in the order of `AXES`.
        """
        known = {m.name: m for m in measured}
        found: list[Breach] = []
        for key, limit in self.limits().items():
            axis = AXES[key]
            figure = known.get(axis.measurement)
            if figure is None:
                found.append(Breach(key=key, ceiling=limit, found=None, why="was not measured"))
                continue
            if figure.estimated and not accept_estimates:
                why = f"is only estimated ({axis.show(figure.value)}); give --accept-estimates"
                found.append(Breach(key=key, ceiling=limit, found=figure.value, why=why))
                continue
            judged = _judged(figure, axis)
            holds = judged <= limit if axis.limit == "most" else judged >= limit
            if not holds:
                margin = " (median and interquartile range, slow side)" if axis.timed else ""
                why = f"is {axis.show(judged)}{margin}, at {axis.limit} {axis.show(limit)} allowed"
                found.append(Breach(key=key, ceiling=limit, found=judged, why=why))
        return found


def _judged(figure: Measurement, axis: Axis) -> float:
    if not axis.timed:
        return figure.value
    return figure.value + (figure.spread if axis.limit == "most" else -figure.spread)


def parse_budget(text: str) -> Budget:
    """Read a budget such as "disk=400MiB,ram=600MiB,quality=1%".

    Args:
        text: `key=value` pairs, separated by commas; the keys are those of `AXES`.

    Returns:
        The budget.

    Raises:
        InputError: if a key is unknown or given twice, or a value cannot be read.
    """
    values: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        key = key.strip()
        if key not in AXES:
            near = difflib.get_close_matches(key, AXES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(AXES)}"
            raise InputError(f"budget: unknown key {key!r}; {hint}")
        if not equals:
            raise InputError(f"budget: {key!r} needs a value, as in {key}=1")
        if AXES[key].measurement in values:
            raise InputError(f"budget: {key!r} is given twice")
        try:
            values[AXES[key].measurement] = AXES[key].parse(value)
        except InputError as error:
            raise InputError(f"budget: {key}: {error}") from error
    return Budget(**values)
