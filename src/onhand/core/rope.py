"""Rotary positions: how fast each pair of a head turns, and the tables of an engine."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.outside import count, object_of, positive, word

__all__ = ["LEAST_CONTEXT", "SCALINGS", "Rope", "rope_from_json"]

SCALINGS = ("default", "linear", "llama3", "yarn", "longrope")
# Of the context before stretching: "longrope" divides by its logarithm.
LEAST_CONTEXT = {"llama3": 1, "yarn": 1, "longrope": 2}
_MOST_CONTEXT = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position embedding.

    Attributes:
        theta: base of the geometric series of wavelengths.
        scaling: "default", "linear", "llama3", "yarn" or "longrope".
        factor: how many times the context was stretched (all but "default").
        original_context: context before stretching ("llama3", "yarn", "longrope").
        low_freq_factor: "llama3": wavelengths above original_context / this are stretched fully.
        high_freq_factor: "llama3": wavelengths below original_context / this stay.
        beta_fast: "yarn": rotations above which a dimension stays.
        beta_slow: "yarn": rotations below which a dimension is stretched fully.
        attention_factor: "yarn", "longrope": factor on cosines and sines; None computes it.
        short_factors: "longrope": divides each pair's angle while a conversation is no longer
            than `original_context`; one number for each pair.
        long_factors: "longrope": the same for longer conversations.
        share: part of a head that is rotated, its first numbers; above 0, at most 1.

    Source:
        RoPE: arXiv:2104.09864. YaRN: arXiv:2309.00071. LongRoPE: arXiv:2402.13753. "llama3":
        Llama 3.1's published code. Details as in transformers `modeling_rope_utils.py`.
    """

    theta: float = 10000.0
    scaling: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    share: float = 1.0

    def rotated(self, head_dim: int) -> int:
        """Return how many numbers of a head are rotated."""
        return int(head_dim * self.share)

    def is_long(self, length: int) -> bool:
        """Say whether a conversation of so many tokens needs the tables for long ones."""
        return self.scaling == "longrope" and length > self.original_context

    def inverse_frequencies(self, head_dim: int, *, long: bool = False) -> FloatArray:
        """Return the angle per position of each rotated pair: (rotated // 2,) float32."""
        rotated = self.rotated(head_dim)
        exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
        plain: FloatArray = (1.0 / np.float32(self.theta) ** exponents).astype(np.float32)
        if self.scaling == "longrope":
            factors = self.long_factors if long else self.short_factors
            return (plain / np.array(factors, dtype=np.float32)).astype(np.float32)
        if self.scaling == "linear":
            return (plain / np.float32(self.factor)).astype(np.float32)
        if self.scaling == "llama3":
            return self._llama3(plain)
        if self.scaling == "yarn":
            return self._yarn(plain, rotated)
        return plain

    def tables(
        self, head_dim: int, context: int, *, long: bool = False, start: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """Return cosines and sines by position, each (context - start, rotated // 2).

        Args:
            head_dim: numbers of a head.
            context: positions.
            long: what `is_long` says of the conversation.
            start: the first position.
        """
        angles = np.outer(
            np.arange(start, context, dtype=np.float32),
            self.inverse_frequencies(head_dim, long=long),
        )  # (context - start, rotated // 2)
        scale = np.float32(self._scale())
        return np.cos(angles) * scale, np.sin(angles) * scale

    def _scale(self) -> float:
        if self.scaling not in {"yarn", "longrope"}:
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.scaling == "longrope":
            if self.factor <= 1:
                return 1.0
            return math.sqrt(1 + math.log(self.factor) / math.log(self.original_context))
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def _llama3(self, plain: FloatArray) -> FloatArray:
        wavelength = 2 * np.pi / plain
        low = self.original_context / self.low_freq_factor
        high = self.original_context / self.high_freq_factor
        smooth = (self.original_context / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        # Only what lies between 0 and 1 is used; beyond, float32 may overflow.
        smooth = np.clip(smooth, 0, 1)
        between = (1 - smooth) * plain / self.factor + smooth * plain
        stretched = np.where(wavelength > low, plain / self.factor, plain)
        middle = (wavelength <= low) & (wavelength >= high)
        result: FloatArray = np.where(middle, between, stretched).astype(np.float32)
        return result

    def _yarn(self, plain: FloatArray, rotated: int) -> FloatArray:
        def dimension(rotations: float) -> float:
            length = self.original_context / (rotations * 2 * math.pi)
            return rotated * math.log(length) / (2 * math.log(self.theta))

        low = max(math.floor(dimension(self.beta_fast)), 0)
        high = min(math.ceil(dimension(self.beta_slow)), rotated - 1)
        steps = np.arange(rotated // 2, dtype=np.float32)
        # Both ends cut off: equal, or in the other order, which turns the ramp round.
        ramp = np.clip((steps - low) / ((high - low) or 0.001), 0, 1)
        keep = 1 - ramp
        mixed: FloatArray = (plain / self.factor * (1 - keep) + plain * keep).astype(np.float32)
        return mixed


def rope_from_json(value: object, where: str) -> Rope:
    """Read and validate rotary positions that may come from outside.

    Args:
        value: a parsed JSON value.
        where: what it is part of, for messages.

    Returns:
        The description.

    Raises:
        InputError: if a key is unknown, or a number is outside its bounds.
    """
    table = object_of(value, where, {f.name for f in fields(Rope)})
    given: dict[str, Any] = {
        key: positive(number, f"{where}: {key}")
        for key, number in table.items()
        if key not in {"scaling", "original_context", "short_factors", "long_factors"}
        and not (key == "attention_factor" and number is None)
    }
    if "original_context" in table:
        given["original_context"] = count(
            table, "original_context", where, least=0, most=_MOST_CONTEXT
        )
    for key in ("short_factors", "long_factors"):
        numbers = table.get(key, ())
        if not isinstance(numbers, list | tuple):
            raise InputError(f"{where}: {key} must be a list of numbers")
        given[key] = tuple(positive(number, f"{where}: {key}") for number in numbers)
    rope = Rope(scaling=word(table, "scaling", where, SCALINGS), **given)
    if rope.theta <= 1:
        raise InputError(f"{where}: theta is {rope.theta}, must be above 1")
    if rope.original_context < LEAST_CONTEXT.get(rope.scaling, 0):
        raise InputError(
            f"{where}: original_context is {rope.original_context}, {rope.scaling} needs at least "
            f"{LEAST_CONTEXT[rope.scaling]}"
        )
    if rope.low_freq_factor >= rope.high_freq_factor or rope.beta_slow >= rope.beta_fast:
        raise InputError(f"{where}: low_freq_factor and beta_slow must be the smaller ones")
    if rope.share > 1:
        raise InputError(f"{where}: share is {rope.share}, must be at most 1")
    return rope
