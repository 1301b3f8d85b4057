"""Gradients kept within bounds, so that one strange example moves a model only so far."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Values

__all__ = ["Clipping", "clip_by_norm", "clip_by_value", "global_norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping:
    """How large gradients may be; None for no bound.

    Attributes:
        norm: most of their global norm; all are made smaller by one factor.
        value: most of each number.
    """

    norm: float | None = 1.0
    value: float | None = None

    def __post_init__(self) -> None:
        for name, bound in (("norm", self.norm), ("value", self.value)):
            if bound is not None and not 0 < bound < math.inf:
                raise InputError(f"clipping: {name} is {bound}, must be above 0")

    def clip(self, gradients: Values) -> dict[str, FloatArray]:
        """Return gradients within the bounds, each value first, then the norm."""
        clipped = dict(gradients)
        if self.value is not None:
            clipped = clip_by_value(clipped, self.value)
        return clipped if self.norm is None else clip_by_norm(clipped, self.norm)


def global_norm(arrays: Iterable[FloatArray]) -> float:
    """Return the root of the sum of all squares, in double precision; infinite where one is."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Not a dot product: its threads cost more than a small gradient's sum.
        return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))


def clip_by_norm(gradients: Values, most: float) -> dict[str, FloatArray]:
    """Make gradients smaller by one factor where their global norm is over `most`.

    Args:
        gradients: finite.
        most: above 0.

    Returns:
        The same arrays where the norm is within it.

    Source:
        Pascanu and others, arXiv:1211.5063; as `torch.nn.utils.clip_grad_norm_`.
    """
    norm = global_norm(gradients.values())
    if norm <= most:
        return dict(gradients)
    factor = np.float32(most / (norm + 1e-6))
    return {name: gradient * factor for name, gradient in gradients.items()}


def clip_by_value(gradients: Values, most: float) -> dict[str, FloatArray]:
    """Cut every number of gradients to +-`most`."""
    bound = np.float32(most)
    return {name: np.clip(gradient, -bound, bound) for name, gradient in gradients.items()}
