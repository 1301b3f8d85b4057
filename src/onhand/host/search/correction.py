"""From predicted to measured: monotone curves through the few points that were measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Observation", "correction", "isotonic", "largest_below"]

# What a real build measured counts as much as this many simulated points.
_REAL_WEIGHT = 4.0
_LEAST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One whole model that was predicted, and then run.

    Attributes:
        damage: the sum of what its matrices are predicted to lose, in nats.
        divergence: the KL divergence measured, in nats.
        loss_increase: the increase of the negative log likelihood measured, in nats.
        is_real: True for a built bundle in its engine on held-out text; False for the rounded
            weights in the reference on the calibration text.
    """

    damage: float
    divergence: float
    loss_increase: float
    is_real: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """A monotone curve from the predicted damage to what is expected to be measured.

    Attributes:
        damage: rising, each above 0.
        divergence: of each, never falling.
        loss_increase: of each, never falling.
    """

    damage: tuple[float, ...] = ()
    divergence: tuple[float, ...] = ()
    loss_increase: tuple[float, ...] = ()

    def expected_divergence(self, damage: float) -> float:
        """Return the divergence expected, in nats; beyond the ends it goes on in proportion.

        Args:
            damage: predicted, in nats.
        """
        if not self.damage:
            return damage
        x = np.log(max(damage, _LEAST))
        at, value = np.log(self.damage), np.log(np.maximum(self.divergence, _LEAST))
        if x <= at[0]:
            return float(np.exp(value[0] + x - at[0]))
        if x >= at[-1]:
            return float(np.exp(value[-1] + x - at[-1]))
        return float(np.exp(np.interp(x, at, value)))

    def expected_loss_increase(self, damage: float) -> float:
        """Return the increase of the loss expected, in nats.

        Where nothing was measured, as much as the divergence: for a model that is as good as its
        text allows they are equal.

        Args:
            damage: predicted, in nats.
        """
        divergence = self.expected_divergence(damage)
        if not self.damage:
            return divergence
        at = np.concatenate([[0.0], np.maximum(self.divergence, _LEAST)])
        value = np.concatenate([[min(0.0, self.loss_increase[0])], self.loss_increase])
        if divergence > at[-1]:
            share = max(value[-1] / at[-1], 0.0)
            return float(value[-1] + share * (divergence - at[-1]))
        return float(np.interp(divergence, at, value))

    def expected_perplexity_increase(self, damage: float) -> float:
        """Return the increase of perplexity expected, as a fraction.

        Args:
            damage: predicted, in nats.
        """
        return float(np.expm1(min(self.expected_loss_increase(damage), 50.0)))


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the nearest sequence that never falls, in weighted squares.

    Args:
        values: in the order of what they depend on.
        weights: above 0.

    Returns:
        As many values, by pooling adjacent violators.

    Source:
        Ayer et al. 1955, doi:10.1214/aoms/1177728423.
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (first, v, n), (second, w, m) = blocks[-2], blocks[-1]
            blocks[-2:] = [((first * v + second * w) / (v + w), v + w, n + m)]
    return [mean for mean, _, length in blocks for _ in range(length)]


def correction(observations: Sequence[Observation]) -> Curve:
    """Fit a monotone curve.

    Simulated points give its shape. Real ones draw it to what is measured: each simulated point
    is moved by the ratio between real and simulated that the nearest real ones show.

    Args:
        observations: what was measured so far; those of no damage or divergence are left out.

    Returns:
        The curve; without observations the damage itself.
    """
    usable = [
        one
        for one in observations
        if one.damage > 0 and 0 < one.divergence < np.inf and np.isfinite(one.loss_increase)
    ]
    simulated = [one for one in usable if not one.is_real]
    real = sorted((one for one in usable if one.is_real), key=lambda one: one.damage)
    if not usable:
        return Curve()
    moved = _moved(simulated, real)
    points = sorted([*moved, *real], key=lambda one: (one.damage, one.divergence))
    weights = [_REAL_WEIGHT if one.is_real else 1.0 for one in points]
    divergence = np.exp(isotonic([float(np.log(one.divergence)) for one in points], weights))
    increase = isotonic([one.loss_increase for one in points], weights)
    return Curve(
        damage=tuple(one.damage for one in points),
        divergence=tuple(float(value) for value in divergence),
        loss_increase=tuple(increase),
    )


def _moved(simulated: Sequence[Observation], real: Sequence[Observation]) -> list[Observation]:
    """Scale simulated points by what the real ones say about simulation."""
    if not simulated or not real:
        return list(simulated)
    shape = correction(simulated)
    at = np.log([one.damage for one in real])
    ratio = np.log([one.divergence / shape.expected_divergence(one.damage) for one in real])
    # The two texts differ in how much a nat of divergence costs: a difference that has a sign.
    added = np.array([
        one.loss_increase - shape.expected_loss_increase(one.damage) for one in real
    ]) / np.array([one.divergence for one in real])

    def at_damage(values: NDArray[np.float64], damage: float) -> float:
        return float(np.interp(np.log(damage), at, values))

    moved: list[Observation] = []
    for one in simulated:
        divergence = one.divergence * float(np.exp(at_damage(ratio, one.damage)))
        moved.append(
            Observation(
                damage=one.damage,
                divergence=divergence,
                loss_increase=one.loss_increase + divergence * at_damage(added, one.damage),
                is_real=False,
            )
        )
    return moved


def largest_below(figure: Callable[[float], float], limit: float, *, most: float) -> float | None:
    """Return the largest damage whose figure is within a limit, by halving.

    Args:
        figure: never falls with the damage.
        limit: at most.
        most: largest damage to look at, in nats.

    Returns:
        The damage; None if not even next to none is within the limit.
    """
    low, high = _LEAST, most
    if figure(low) > limit:
        return None
    if figure(high) <= limit:
        return high
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if figure(middle) <= limit else (low, middle)
    return low
