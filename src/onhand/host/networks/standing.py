"""Which variant, in which engine, is the quickest on this machine, and whether it pays at all."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from onhand.core.bundle import Bundle
from onhand.core.units import format_seconds
from onhand.device.networks.choosing import TIE
from onhand.device.networks.ranking import RankedVariant, rank_networks

__all__ = ["ORIGINAL", "Standing", "stand"]

ORIGINAL: Final = "original"
_BY_BITS: Final = ("int8", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What variants, and the original where it was timed with them, took beside each other.

    Attributes:
        ranked: the quickest pair first.
        threads: of one run.
    """

    ranked: tuple[RankedVariant, ...]
    threads: int

    def to_json(self) -> list[dict[str, object]]:
        """Return the pairs for a report, the quickest first."""
        return [
            {"engine": one.engine, "latency_s": one.latency_s.to_json(), "variant": one.variant}
            for one in self.ranked
        ]

    def notes(self) -> list[str]:
        """Say what is the quickest where, and which variants are no quicker than the original."""
        if len({one.variant for one in self.ranked}) < 2:
            return []
        best = self.ranked[0]
        engines = dict.fromkeys(one.engine for one in self.ranked)
        said = "; ".join(
            f"in {engine}: {_listed(one for one in self.ranked if one.engine == engine)}"
            for engine in engines
        )
        first = (
            f"timed in turn on this machine, {self.threads} threads: {said}; the quickest is "
            f"{best.variant} in {best.engine}"
        )
        return [first, *self.warnings()]

    def warnings(self) -> list[str]:
        """Say which variants are no quicker than the original, where that was timed."""
        theirs = self._of(ORIGINAL)
        names = dict.fromkeys(one.variant for one in self.ranked if one.variant != ORIGINAL)
        return [said for name in names if theirs and (said := _lags(self._of(name), theirs))]

    def _of(self, variant: str) -> dict[str, RankedVariant]:
        """Return engine -> what a variant took in it, the quickest first."""
        return {one.engine: one for one in self.ranked if one.variant == variant}


def stand(bundle: Bundle, original: Bundle | None, *, engine: str | None, threads: int) -> Standing:
    """Time a bundle's variants, and the original, in every engine, all in turn.

    Args:
        bundle: a verified bundle.
        original: the source in a bundle of its own, as its variant `ORIGINAL`; None without it.
        engine: the only engine; None for all.
        threads: of one run.

    Returns:
        What they took.

    Raises:
        EngineError: if no engine can run one of them here.
    """
    candidates = {name: (bundle, name) for name in bundle.manifest.variants}
    if original is not None:
        candidates[ORIGINAL] = (original, ORIGINAL)
    ranked, _ = rank_networks(candidates, engine=engine, threads=threads)
    return Standing(ranked=tuple(ranked), threads=threads)


def _listed(ranked: Iterable[RankedVariant]) -> str:
    return ", ".join(f"{one.variant} {format_seconds(one.latency_s.value)}" for one in ranked)


def _lags(ours: Mapping[str, RankedVariant], theirs: Mapping[str, RankedVariant]) -> str | None:
    """Return a sentence where a variant is not quicker than the original by more than noise."""
    best, other = next(iter(ours.values())), next(iter(theirs.values()))
    if best.latency_s.value * TIE < other.latency_s.value:
        return None
    everywhere = all(
        ours[engine].latency_s.value > one.latency_s.value
        for engine, one in theirs.items()
        if engine in ours
    )
    how = (
        "slower than the original in every engine" if everywhere else "no faster than the original"
    )
    advice = (
        f"; with --variants {best.variant},fp32 the bundle holds both, and opening takes the "
        "quicker one"
    )
    return (
        f"{best.variant} is {how} on this machine: at best {format_seconds(best.latency_s.value)} "
        f"in {best.engine}, the original {format_seconds(other.latency_s.value)} in {other.engine}"
        f"{advice if best.variant in _BY_BITS else ''}"
    )
