"""The evaluations of a network: ways are tried, short, in processes of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.evaluation import Evaluation, evaluate, not_evaluated, quotient
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.memory_series import MemorySeries
from onhand.device.networks.opening import able_engines, named_engine
from onhand.device.networks.trials import NetworkTrial, try_network_way
from onhand.host.evaluating import compression
from onhand.host.networks.standing import ORIGINAL
from onhand.host.ways import (
    Originals,
    Tried,
    Way,
    WayNames,
    hardware,
    optimisation,
    plan_ways,
    time_waterfall,
    try_all,
    try_originals,
    ways_to_json,
)

__all__ = ["NetworkWays", "evaluate_network", "try_network", "try_original_network"]

_LABELS = {
    "compression": "compression",
    "both": "compression, and the engine that needs it",
    "engine": "engine",
    "threads": "threads",
}
_ACCURACIES = ("accuracy", "map_50")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWays:
    """What the ways of running one bundle gave.

    Attributes:
        names: the ways.
        tried: what each gave.
        memory: of the process of the chosen one; None where it failed.
        here: the device that they were tried on.
        home: the state folder of engines that keep what they compile.
    """

    names: WayNames
    tried: Mapping[Way, Tried]
    memory: MemorySeries | None
    here: DeviceProfile
    home: Path


def try_network(
    bundle: Bundle,
    *,
    variant: str,
    engine: str,
    threads: int,
    here: DeviceProfile,
    home: Path,
    progress: Progress,
) -> NetworkWays:
    """Try the ways in which this machine can run a network.

    Args:
        bundle: the bundle.
        variant: a key of its variants.
        engine: the chosen one.
        threads: the chosen number.
        here: this machine.
        home: the state folder of engines that keep what they compile.
        progress: told how far it is.

    Returns:
        What each gave.
    """
    able, _ = able_engines(bundle, here, variant=variant, wanted=None)
    names = plan_ways(able, engine=engine, threads=threads)

    def trial(way: Way) -> NetworkTrial:
        return try_network_way(
            bundle.root,
            variant=variant,
            engine=way.engine,
            threads=way.threads,
            profile=here,
            home=home,
        )

    tried, chosen = try_all(names, trial, progress=progress)
    memory = None if chosen is None else chosen.memory
    return NetworkWays(names=names, tried=tried, memory=memory, here=here, home=home)


def try_original_network(root: Path, ways: NetworkWays, *, progress: Progress) -> Originals:
    """Try the original on the plain way, and on one that the compressed model was tried on too.

    Args:
        root: a bundle of the original, of one variant.
        ways: those of the compressed bundle.
        progress: told how far it is.

    Returns:
        What it gave.
    """
    bundle = read_bundle(root)

    def why_not(engine: str) -> str | None:
        return named_engine(engine).why_not(bundle, ways.here, variant=ORIGINAL)

    def run(way: Way) -> Mapping[str, Measurement]:
        found = try_network_way(
            root, variant=ORIGINAL, engine=way.engine, threads=way.threads, profile=ways.here
        ).figures
        progress.advance(1)
        return found

    progress.start("trying the original", 2)
    return try_originals(ways.names, why_not, run)


def evaluate_network(
    ways: NetworkWays | None,
    originals: Originals | None,
    *,
    figures: Mapping[str, Measurement],
    original: Mapping[str, Measurement],
    missing: str | None,
) -> dict[str, object]:
    """Return what a report says of the four evaluations, and all that they rest on.

    Args:
        ways: what the ways of running it gave; None where they were not tried.
        originals: what the original gave; None where it was not tried.
        figures: of the compressed bundle.
        original: of the original.
        missing: why the original's speed was not measured; None where it was.

    Returns:
        Keys of `report.json`: "evaluation", and "ways", "memory" and "waterfalls" where they are
        known.
    """
    first = compression(figures, original, _kept(figures))
    last = _interaction(figures)
    if ways is None:
        why = "the ways of running it were not tried"
        middle = [not_evaluated("optimisation", why), not_evaluated("hardware", why)]
        return {"evaluation": [one.to_json() for one in (first, *middle, last)]}
    names, tried = ways.names, ways.tried
    middle = [
        optimisation(
            originals,
            tried,
            time="latency_s",
            missing=missing or "the original was not tried",
        ),
        hardware(names, tried, time="latency_s", energy="energy_j_per_run"),
    ]
    falls = time_waterfall(
        names,
        tried,
        originals,
        measurement="latency_s",
        cold="latency_s",
        warm="latency_s",
        labels=_LABELS,
    )
    return {
        "evaluation": [one.to_json() for one in (first, *middle, last)],
        "ways": [
            *ways_to_json("compressed", list(tried.values())),
            *ways_to_json("original", () if originals is None else originals.all()),
        ],
        "memory": None if ways.memory is None else ways.memory.to_json(),
        "waterfalls": [] if falls is None else [falls.to_json()],
    }


def _kept(figures: Mapping[str, Measurement]) -> Measurement | None:
    """Return the share of the original's accuracy that is kept: the best known kind of it."""
    for name in _ACCURACIES:
        ours, theirs = figures.get(name), figures.get(f"original_{name}")
        if ours is not None and theirs is not None and theirs.value > 0:
            return quotient("accuracy_kept", ours, theirs)
    lost = figures.get("quality_loss")
    if lost is None:
        return None
    return Measurement(
        name="accuracy_kept",
        value=1 - lost.value,
        unit="fraction",
        samples=lost.samples,
        spread=lost.spread,
        how=lost.how,
        estimated=lost.estimated,
    )


def _interaction(figures: Mapping[str, Measurement]) -> Evaluation:
    """Judge the wait for an answer: a process started for it, and one that stays open."""
    cold, warm = figures.get("cold_start_s"), figures.get("latency_s")
    if cold is None or warm is None:
        return not_evaluated("interaction", "cold start and latency were not measured")
    try:
        return evaluate("interaction", cold, warm, outcome=quotient("response", cold, warm))
    except InputError as error:
        return not_evaluated("interaction", str(error))
