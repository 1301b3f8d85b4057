"""What a governor may change, within which bounds, and what it aims at."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from onhand.core.errors import InputError

__all__ = ["KINDS", "Bounds", "GovernorSettings", "Kind", "Setting"]

Kind = Literal["threads", "prompts", "batch", "context", "variant", "speculation", "cloud"]
"""What is changed: a field of `Setting` each, in its order."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the server computes. Answers that have begun keep their model and their context.

    Attributes:
        threads: of one step.
        max_stall: as in `Limits`: how much longer a step may take that carries parts of prompts.
        max_active: answers computed at once.
        context: most tokens of a new answer and its prompt; 0 for the model's own.
        variant_step: how many variants down from the usual one new answers are given by.
        speculation: whether an answer that runs alone is drafted.
        cloud_share: share of new answers to be given elsewhere, where there is an elsewhere.
    """

    threads: int
    max_stall: float = 3.0
    max_active: int = 8
    context: int = 0
    variant_step: int = 0
    speculation: bool = False
    cloud_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far settings may go.

    Attributes:
        usual: what the server does when nothing presses; no number goes beyond it but the cloud's
            share and the variant, which go down from there.
        processors: of the machine, hyper-threads that share a core counted once.
        context: most tokens that any of the models holds.
        most_variant_step: variants below the usual one that there are.
        has_cloud: whether answers can be given elsewhere.
    """

    usual: Setting
    processors: int
    context: int = 0
    most_variant_step: int = 0
    has_cloud: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorSettings:
    """`[governor]`: what the device is to keep to, and how far the server may be adjusted for it.

    Attributes:
        enabled: whether anything is adjusted.
        interval_s: seconds between two readings.
        token_s: target: 95 of 100 tokens of an answer follow their last within so many seconds;
            0 for no target.
        calm: share of the target below which what was given up comes back.
        dwell_s: least seconds from a change to the next, and of calm before anything comes back.
        urgent_s: least seconds from a change to the next where memory runs out, a deadline is
            near, or the target is missed by half of it.
        hottest_c: degrees Celsius above which less is computed.
        most_drift: how many times as long as at best steps may take before heat is suspected.
        lowest_battery: charge, 0 to 1, below which power is saved while it is not plugged in.
        least_memory_bytes: of memory that is to stay available.
        most_memory_pressure: share of time that work may wait for memory.
        least_threads: fewest threads of a step.
        least_active: fewest answers computed at once.
        least_stall: lowest `max_stall`: how many times as long steps beside prompts may take.
        least_context: lowest ceiling of the context of new answers.
        most_cloud_share: largest share of new answers to be given elsewhere.
        variants: names of a bundle's variants that new answers are given by where the usual one
            is too slow or too large, one after the other; bundles without one keep their own.
        history: changes and readings that are kept for those who look.
    """

    enabled: bool = True
    interval_s: float = 1.0
    token_s: float = 0.0
    calm: float = 0.6
    dwell_s: float = 30.0
    urgent_s: float = 5.0
    hottest_c: float = 85.0
    most_drift: float = 1.5
    lowest_battery: float = 0.2
    least_memory_bytes: int = 128 * 2**20
    most_memory_pressure: float = 0.2
    least_threads: int = 1
    least_active: int = 1
    least_stall: float = 1.25
    least_context: int = 1024
    most_cloud_share: float = 0.5
    variants: tuple[str, ...] = field(default_factory=tuple)
    history: int = 300

    def __post_init__(self) -> None:
        for name, low, high in (
            ("interval_s", 0.1, 60.0),
            ("token_s", 0.0, 3600.0),
            ("calm", 0.05, 0.95),
            ("dwell_s", 0.0, 3600.0),
            ("urgent_s", 0.0, 3600.0),
            ("hottest_c", 30.0, 150.0),
            ("most_drift", 1.05, 100.0),
            ("lowest_battery", 0.0, 1.0),
            ("least_memory_bytes", 0, 2**50),
            ("most_memory_pressure", 0.0, 1.0),
            ("least_threads", 1, 1024),
            ("least_active", 1, 4096),
            ("least_stall", 1.0, 1000.0),
            ("least_context", 16, 2**40),
            ("most_cloud_share", 0.0, 1.0),
            ("history", 1, 100_000),
        ):
            value: float = getattr(self, name)
            if not low <= value <= high:  # so that NaN is refused as well
                raise InputError(f"{name} is {value}, must be from {low} to {high}")
        if self.urgent_s > self.dwell_s:
            raise InputError(
                f"urgent_s is {self.urgent_s}, must be at most dwell_s, which is {self.dwell_s}"
            )
        if any(type(name) is not str or not name for name in self.variants):
            raise InputError(f"variants is {list(self.variants)}, must be names of variants")
