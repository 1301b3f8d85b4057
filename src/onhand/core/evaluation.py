"""Four ways to judge a change, each beside what a textbook's rule of thumb says of it.

State 1 is before, state 2 is after:

* compression: C = N1 / N2, N the bytes stored; the rule says that 1 - (N1 - N2) / N1 of the
  accuracy is kept.
* optimisation: O = T2 / T1, T a time in one engine before and after the model was changed; the
  rule says that efficiency becomes 1 + (T1 - T2) / T1.
* hardware: H = T2 / T1, T a time of one model on a plain and on the chosen way of running it; the
  rule says that 1 - (T1 - T2) / T1 of the energy is used.
* interaction: S = L2 / L1, L the time that a user waits without and with what is remembered; the
  rule says that the response becomes 1 + (L1 - L2) / L1.

The rules are straight lines; what is measured is not. Both are kept, and never mixed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from onhand.core.errors import InputError
from onhand.core.measurement import Measurement

__all__ = [
    "MODELS",
    "Evaluation",
    "EvaluationName",
    "Part",
    "Waterfall",
    "evaluate",
    "inverse",
    "kept_probability",
    "not_evaluated",
    "predict",
    "quotient",
]

EvaluationName = Literal["compression", "optimisation", "hardware", "interaction"]
MODELS: Final[tuple[EvaluationName, ...]] = get_args(EvaluationName)
# What each ratio is called where it is a measurement.
_RATIOS: Mapping[EvaluationName, str] = {
    "compression": "compression_ratio",
    "optimisation": "optimisation_ratio",
    "hardware": "hardware_ratio",
    "interaction": "interaction_ratio",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One of the four, measured.

    Attributes:
        model: which.
        before: N1, T1 or L1; None where it was not measured.
        after: N2, T2 or L2; likewise.
        ratio: C, O, H or S; None unless both were measured.
        outcome: what the rule speaks of, measured: accuracy kept, efficiency, energy, response;
            None where it was not.
        predicted: the same by the rule; None without a ratio.
        missing: why something was not measured; "" where nothing is missing.
    """

    model: EvaluationName
    before: Measurement | None = None
    after: Measurement | None = None
    ratio: Measurement | None = None
    outcome: Measurement | None = None
    predicted: float | None = None
    missing: str = ""

    def to_json(self) -> dict[str, object]:
        """Return a JSON object with every attribute."""
        figures = {
            "before": self.before,
            "after": self.after,
            "ratio": self.ratio,
            "outcome": self.outcome,
        }
        return {
            "model": self.model,
            **{key: None if made is None else made.to_json() for key, made in figures.items()},
            "predicted": self.predicted,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One technique.

    Attributes:
        label: what it is called.
        without: the figure where this technique alone is left out.
    """

    label: str
    without: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """What each technique brought to one figure, measured by leaving it out.

    Techniques help or hinder one another, so their shares do not add up to the whole: what is left
    over is `rest`, of either sign.

    Attributes:
        measurement: what `before`, `after` and every part measure.
        before: without any of them.
        after: with all of them.
        parts: the techniques.
        missing: label -> why a technique could not be left out.
    """

    measurement: str
    before: Measurement
    after: Measurement
    parts: tuple[Part, ...]
    missing: Mapping[str, str]

    def brought(self) -> tuple[float, ...]:
        """Return by how much each technique alone changes the figure, in its unit."""
        return tuple(self.after.value - part.without.value for part in self.parts)

    def rest(self) -> float:
        """Return what the techniques change together beyond the sum of their shares."""
        return self.after.value - self.before.value - math.fsum(self.brought())

    def to_json(self) -> dict[str, object]:
        """Return a JSON object with every attribute, and the shares that follow from them."""
        shares = zip(self.parts, self.brought(), strict=True)
        return {
            "measurement": self.measurement,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "parts": [
                {"label": part.label, "without": part.without.to_json(), "brought": share}
                for part, share in shares
            ],
            "rest": self.rest(),
            "missing": dict(self.missing),
        }


def predict(model: EvaluationName, before: float, after: float) -> float:
    """Return what the textbook's rule says: see the module.

    Args:
        model: which of the four.
        before: N1, T1 or L1; above 0.
        after: N2, T2 or L2.

    Returns:
        Accuracy kept, efficiency, energy or response, as a share of what it was before.

    Raises:
        InputError: if `before` is not above 0.
    """
    if not before > 0:
        raise InputError(f"{model}: state 1 is {before}, must be above 0")
    saved = (before - after) / before
    return 1 - saved if model in {"compression", "hardware"} else 1 + saved


def evaluate(
    model: EvaluationName,
    before: Measurement,
    after: Measurement,
    *,
    outcome: Measurement | None,
    missing: str = "",
) -> Evaluation:
    """Put a measured change beside the rule.

    Args:
        model: which of the four.
        before: state 1, above 0.
        after: state 2, above 0.
        outcome: what the rule speaks of, measured; None where it was not.
        missing: why it was not; "" where it was.

    Returns:
        The evaluation.

    Raises:
        InputError: if a state is not above 0.
    """
    top, bottom = (before, after) if model == "compression" else (after, before)
    return Evaluation(
        model=model,
        before=before,
        after=after,
        ratio=quotient(_RATIOS[model], top, bottom),
        outcome=outcome,
        predicted=predict(model, before.value, after.value),
        missing=missing,
    )


def not_evaluated(model: EvaluationName, missing: str) -> Evaluation:
    """Say why one of the four was not measured."""
    return Evaluation(model=model, missing=missing)


def quotient(name: str, top: Measurement, bottom: Measurement) -> Measurement:
    """Divide one measurement by another; relative spreads add as independent errors do.

    Args:
        name: of the quotient.
        top: the dividend; not below 0.
        bottom: the divisor, above 0.

    Returns:
        The quotient, a plain number; estimated where one of the two is.

    Raises:
        InputError: if one of them is out of range.
    """
    if not (bottom.value > 0 and top.value >= 0):
        raise InputError(
            f"{name}: {top.name} is {top.value} and {bottom.name} {bottom.value}, must be above 0"
        )
    value = top.value / bottom.value
    spread = math.hypot(top.spread / bottom.value, value * (bottom.spread / bottom.value))
    hows: Sequence[str] = list(dict.fromkeys((top.how, bottom.how)))
    return Measurement(
        name=name,
        value=value,
        unit="one",
        samples=min(top.samples, bottom.samples),
        spread=spread,
        how=f"{top.name} / {bottom.name}  # {' and '.join(hows)}",
        estimated=top.estimated or bottom.estimated,
    )


def inverse(name: str, rate: Measurement) -> Measurement:
    """Turn a rate into the time of one.

    Args:
        name: of the time.
        rate: in 1/s, above 0.

    Returns:
        The time, in seconds.

    Raises:
        InputError: if the rate is not above 0.
    """
    if not rate.value > 0:
        raise InputError(f"{name}: {rate.name} is {rate.value}, must be above 0")
    return Measurement(
        name=name,
        value=1 / rate.value,
        unit="s",
        samples=rate.samples,
        spread=rate.spread / rate.value / rate.value,
        how=rate.how,
        estimated=rate.estimated,
    )


def kept_probability(increase: Measurement) -> Measurement:
    """Turn an increase of perplexity into the share of accuracy that is kept.

    Perplexity is the inverse of the geometric mean of what a model gives to the right next token:
    1 / (1 + increase) is that mean, of the compressed model over the original's.

    Args:
        increase: perplexity / original perplexity - 1, above -1.

    Returns:
        "accuracy_kept", with the interval where the increase has one.

    Raises:
        InputError: if the increase is not above -1.
    """
    if not increase.value > -1:
        raise InputError(f"{increase.name} is {increase.value}, must be above -1")
    low, high = increase.interval or (increase.value, increase.value)
    interval = (1 / (1 + high), 1 / (1 + low)) if increase.interval and low > -1 else None
    return Measurement(
        name="accuracy_kept",
        value=1 / (1 + increase.value),
        unit="fraction",
        samples=increase.samples,
        spread=0.0,
        how=increase.how,
        estimated=increase.estimated,
        interval=interval,
    )
