"""A number that can be believed: value, unit, spread and how it was obtained."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np

from onhand.core.errors import InputError

__all__ = ["Measurement", "Unit", "measurement_from_json", "summarize"]

Unit = Literal["s", "byte", "joule", "fraction", "nat", "1/s", "byte/s", "one"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured quantity; the same in Python and in JSON.

    Attributes:
        name: what was measured, as in `Budget`: "decode_tokens_per_s", "size_bytes".
        value: the median of the samples, in `unit`.
        unit: SI or a plain number; never ms, MB or percent.
        samples: how many runs (or tokens, for a quality figure) the value is over.
        spread: interquartile range of the samples, in `unit`; 0.0 for an exact count.
        how: a command line that measures it again.
        estimated: True if a model gave the value, not a measurement.
        interval: 95 % confidence interval (low, high), where one is known.
    """

    name: str
    value: float
    unit: Unit
    samples: int
    spread: float
    how: str
    estimated: bool = False
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON object with every attribute."""
        return asdict(self)


def summarize(name: str, samples: Sequence[float], *, unit: Unit, how: str) -> Measurement:
    """Turn repeated runs into one `Measurement`: the median and the interquartile range.

    Args:
        name: what was measured.
        samples: one value for each run, in `unit`; at least one.
        unit: the unit of the samples.
        how: a command line that measures it again.

    Returns:
        The measurement.

    Raises:
        InputError: if there is no sample.
    """
    if not samples:
        raise InputError(f"{name}: no samples; run it at least once")
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.25, 0.5, 0.75])
    return Measurement(
        name=name,
        value=float(middle),
        unit=unit,
        samples=len(samples),
        spread=float(high - low),
        how=how,
    )


def measurement_from_json(value: object) -> Measurement:
    """Read what `Measurement.to_json` wrote.

    Args:
        value: a parsed JSON value.

    Returns:
        The measurement.

    Raises:
        InputError: if a key is missing, unknown, or of the wrong type.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"a measurement must be a JSON object, found {type(value).__name__}")
    try:
        interval = value.get("interval")
        made = Measurement(
            name=str(value["name"]),
            value=float(value["value"]),
            unit=value["unit"],
            samples=int(value["samples"]),
            spread=float(value["spread"]),
            how=str(value["how"]),
            estimated=value.get("estimated", False),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"not a measurement: {error!r}") from error
    if unknown := sorted(set(value) - {field.name for field in fields(Measurement)}):
        raise InputError(f"not a measurement: unknown key {unknown[0]!r}")
    if not isinstance(made.estimated, bool):
        raise InputError(f"not a measurement: estimated is {made.estimated!r}")
    if made.unit not in get_args(Unit):
        raise InputError(f"measurement {made.name!r}: unknown unit {made.unit!r}")
    return made
