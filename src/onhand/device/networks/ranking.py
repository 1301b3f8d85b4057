"""How quick variants and engines are beside each other, timed in turns."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError
from onhand.core.measurement import Measurement, summarize
from onhand.device.networks.choosing import open_and_run
from onhand.device.networks.opening import able_engines, threads_of_run
from onhand.device.networks.timing import BUDGET_S, random_feeds, time_interleaved
from onhand.device.probe import current_profile

__all__ = ["RankedVariant", "rank_networks", "rank_variants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedVariant:
    """How quick a variant is in an engine.

    Attributes:
        variant: a key of the bundle's variants, or the name that `rank_networks` was given.
        engine: an engine that can run it.
        latency_s: of one run on random inputs.
    """

    variant: str
    engine: str
    latency_s: Measurement


def rank_variants(
    bundle: Bundle,
    *,
    variants: Sequence[str] | None = None,
    engine: str | None = None,
    threads: int | None = None,
    budget_s: float = BUDGET_S,
) -> tuple[list[RankedVariant], dict[tuple[str, str], str]]:
    """Time variants of one bundle: see `rank_networks`.

    Args:
        bundle: a verified bundle of a network.
        variants: some of its variants; None for all.
        engine: as there.
        threads: as there.
        budget_s: as there.

    Returns:
        As there.

    Raises:
        InputError: if there is no such variant or engine, or `threads` is below 1.
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineUnavailable: if no engine can run one of the variants here.
    """
    names = variants or sorted(bundle.manifest.variants)
    candidates = {name: (bundle, name) for name in names}
    return rank_networks(candidates, engine=engine, threads=threads, budget_s=budget_s)


def rank_networks(
    candidates: Mapping[str, tuple[Bundle, str]],
    *,
    engine: str | None = None,
    threads: int | None = None,
    budget_s: float = BUDGET_S,
) -> tuple[list[RankedVariant], dict[tuple[str, str], str]]:
    """Time networks in every engine that can run them, all in turn on the same random inputs.

    Fewer bits are not always quicker: int8 needs kernels for every operator between. All pairs are
    in memory at once.

    Args:
        candidates: name -> a verified bundle and one of its variants; all take the same inputs.
        engine: name of the only engine; None for all but "reference", unless no other can.
        threads: threads of one run; None for what this process may use.
        budget_s: seconds of timing for each pair.

    Returns:
        The pairs, the quickest first; and (name, engine) -> why it was not timed.

    Raises:
        InputError: if there is no such variant or engine, or `threads` is below 1.
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineUnavailable: if no engine can run one of them here.
    """
    profile = current_profile()
    n_threads = threads_of_run(threads, profile)
    failed: dict[tuple[str, str], str] = {}
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    with ExitStack() as opened:
        for name, (bundle, variant) in candidates.items():
            feeds = random_feeds(bundle.manifest.network)
            able, reasons = able_engines(bundle, profile, variant=variant, wanted=engine)
            for place, candidate in able.items():
                try:
                    loaded = open_and_run(candidate, bundle, variant, feeds, threads=n_threads)
                except EngineError as error:
                    reasons[place] = str(error)
                else:
                    opened.callback(loaded.close)
                    runs[name, place] = partial(loaded.run, feeds)
            failed |= {(name, place): reason for place, reason in reasons.items()}
        times = time_interleaved(runs, budget_s=budget_s * len(runs))
    ranked: list[RankedVariant] = []
    for (name, place), taken in times.items():
        bundle, variant = candidates[name]
        how = (
            f"onhand bench {bundle.manifest.name} --variant {variant} --engine {place} "
            f"--threads {n_threads}"
        )
        latency_s = summarize("latency_s", taken, unit="s", how=how)
        ranked.append(RankedVariant(variant=name, engine=place, latency_s=latency_s))
    return sorted(ranked, key=lambda pair: pair.latency_s.value), failed
