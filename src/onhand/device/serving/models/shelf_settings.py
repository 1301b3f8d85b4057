"""What a server is told of how models share its memory."""

from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = ["ShelfSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfSettings:
    """`[shelf]`: how models share the memory.

    Attributes:
        margin: share of the free memory that is left to others where `memory_bytes` is computed.
        margin_bytes: what is left to others at least.
        stay_factor: a model that was opened stays for this many times as long as opening it took,
            so that at most 1 / (1 + `stay_factor`) of the time goes into opening.
        least_stay_s: seconds that it stays at least.
        most_wait_s: seconds that a request waits for memory; then it is told to ask again.
        watch_s: seconds between two looks at whether a bundle was replaced; 0 for no looks.
    """

    margin: float = 0.1
    margin_bytes: int = 128 * 2**20
    stay_factor: float = 4.0
    least_stay_s: float = 1.0
    most_wait_s: float = 60.0
    watch_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InputError(f"margin is {self.margin}, must be from 0 to below 1")
        if not self.most_wait_s > 0:  # so that NaN is refused as well
            raise InputError(f"most_wait_s is {self.most_wait_s}, must be above 0")
        for name in ("margin_bytes", "stay_factor", "least_stay_s", "watch_s"):
            if not (value := float(getattr(self, name))) >= 0:
                raise InputError(f"{name} is {value}, must be 0 or more")

    def stay_s(self, opening_s: float) -> float:
        """Return how long a model stays that took so long to open."""
        return max(self.least_stay_s, self.stay_factor * opening_s)
