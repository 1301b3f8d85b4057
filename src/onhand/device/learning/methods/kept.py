"""What a method keeps from one step to the next, as arrays and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Kept", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """Arrays that change together.

    Attributes:
        revision: grows whenever they change: a part whose revision is on the disk already need
            not be written again.
        arrays: name -> array of a type that safetensors knows.
    """

    revision: int
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The whole state of a method: with it another process goes on as if nothing had happened.

    Attributes:
        facts: a JSON object; small.
        parts: name -> arrays.
    """

    facts: Mapping[str, object]
    parts: Mapping[str, Part] = field(default_factory=dict)
