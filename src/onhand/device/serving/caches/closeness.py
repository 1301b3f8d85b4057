"""How near two questions have to be before they are taken for the same."""

from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = ["Closeness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """How near two questions have to be, as cosines of their vectors.

    Attributes:
        same: where each word of one is found in the other.
        reworded: where some are said in other words.
        apart: how much nearer than a second one that asks the same, with another answer.
    """

    same: float = 0.85
    reworded: float = 0.85
    apart: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.same <= self.reworded <= 1:
            raise InputError(
                f"semantic_similarity {self.same} and semantic_reworded {self.reworded} must be "
                f"above 0 and at most 1, the second at least the first"
            )
        if not 0 <= self.apart <= 1:
            raise InputError(f"semantic_apart is {self.apart}, must be from 0 to 1")
