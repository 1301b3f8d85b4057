"""What a governor asks of models, and what it tells them, whatever kind they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from onhand.device.serving.governor.setting import Setting
from onhand.device.step_log import BatchLoad

__all__ = ["Extent", "Governable", "HoldsGovernable", "PrefersVariant", "SharesOut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How a model computes when nothing is given up for anything.

    Attributes:
        threads: of one step.
        max_active: answers computed at once.
        max_stall: how much longer a step may take that carries parts of prompts.
        context: most tokens of prompt and answer together.
        speculates: whether an answer that runs alone is drafted.
    """

    threads: int
    max_active: int
    max_stall: float
    context: int
    speculates: bool = False


class Governable(Protocol):
    """What computes answers, and may do so otherwise from one step to the next.

    Its methods are called by the governor's thread.
    """

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    @property
    def extent(self) -> Extent:
        """How it computes when nothing presses."""
        ...

    def nearest_deadline_s(self) -> float | None:
        """Return the seconds that its answer with the nearest deadline has left; None: no such."""
        ...

    def work(self) -> BatchLoad:
        """Say what it has to do, and how fast it was since the last call."""
        ...

    def govern(self, setting: Setting) -> None:
        """Compute so from now on, as far as it can; what it cannot change stays as it is.

        Answers that run keep their model and their context, and none of them is held up. Called
        at every reading, mostly with what is set already.
        """
        ...


@runtime_checkable
class HoldsGovernable(Protocol):
    """A model, or what holds several, such as a shelf."""

    def governables(self) -> Sequence[Governable]:
        """Return what computes its answers at the moment."""
        ...


@runtime_checkable
class PrefersVariant(Protocol):
    """What can give new answers by another variant of its bundle."""

    def govern_variant(self, name: str | None) -> None:
        """Give new answers by this variant, or the usual one: for None, and where it has no such.

        Called where the wish has changed.
        """
        ...


@runtime_checkable
class SharesOut(Protocol):
    """What can give a part of new answers to others, as a router does."""

    def use_cloud_share(self, share: float) -> None:
        """Give so many of new answers elsewhere, 0 to 1, where their policy lets them."""
        ...
