"""The evaluations of a language model: ways are tried, short, in processes of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.evaluation import (
    Evaluation,
    evaluate,
    kept_probability,
    not_evaluated,
    quotient,
)
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.engines.named import named_engine
from onhand.device.opening import able_engines
from onhand.device.trials import LENGTHS, Trial, try_way
from onhand.host.pack import ORIGINAL
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

__all__ = ["DecoderWays", "compression", "evaluate_decoder", "try_decoder", "try_original"]

_LABELS = {
    "compression": "compression of the weights",
    "both": "compression, and the engine that needs it",
    "engine": "engine",
    "threads": "threads",
    "memory": "memory of the prompt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWays:
    """What the ways of running one bundle gave.

    Attributes:
        names: the ways.
        tried: what each gave.
        chosen: the whole trial of the chosen one; None where it failed.
        here: the device that they were tried on.
    """

    names: WayNames
    tried: Mapping[Way, Tried]
    chosen: Trial | None
    here: DeviceProfile


def try_decoder(
    bundle: Bundle,
    *,
    variant: str,
    engine: str,
    threads: int,
    here: DeviceProfile,
    progress: Progress,
) -> DecoderWays:
    """Try the ways in which this machine can run a bundle.

    Args:
        bundle: the bundle.
        variant: a key of its variants.
        engine: the chosen one.
        threads: the chosen number.
        here: this machine.
        progress: told how far it is.

    Returns:
        What each gave.
    """
    able, _ = able_engines(bundle, here, variant=variant, wanted=None)
    names = plan_ways(able, engine=engine, threads=threads)

    def trial(way: Way) -> Trial:
        return try_way(
            bundle.root,
            variant=variant,
            engine=way.engine,
            threads=way.threads,
            profile=here,
            lengths=LENGTHS if way == names.chosen else (),
        )

    tried, chosen = try_all(names, trial, progress=progress)
    return DecoderWays(names=names, tried=tried, chosen=chosen, here=here)


def try_original(root: Path, ways: DecoderWays, *, progress: Progress) -> Originals:
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
        found = try_way(
            root, variant=ORIGINAL, engine=way.engine, threads=way.threads, profile=ways.here
        ).figures
        progress.advance(1)
        return found

    progress.start("trying the original", 2)
    return try_originals(ways.names, why_not, run)


def evaluate_decoder(
    ways: DecoderWays | None,
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
        Keys of `report.json`: "evaluation", and "ways", "contexts", "memory" and "waterfalls"
        where they are known.
    """
    kept = figures.get("perplexity_increase")
    found = [compression(figures, original, None if kept is None else kept_probability(kept))]
    if ways is None:
        why = "the ways of running it were not tried"
        found += [not_evaluated(name, why) for name in ("optimisation", "hardware", "interaction")]
        return {"evaluation": [one.to_json() for one in found]}
    names, tried = ways.names, ways.tried
    found += [
        optimisation(
            originals,
            tried,
            time="cold_answer_s",
            missing=missing or "the original was not tried",
        ),
        hardware(names, tried, time="cold_answer_s", energy="answer_energy_j"),
        _interaction(tried[names.chosen]),
    ]
    falls = time_waterfall(
        names,
        tried,
        originals,
        measurement="answer_s",
        cold="cold_answer_s",
        warm="warm_answer_s",
        labels=_LABELS,
    )
    trial = ways.chosen
    return {
        "evaluation": [one.to_json() for one in found],
        "ways": [
            *ways_to_json("compressed", list(tried.values())),
            *ways_to_json("original", () if originals is None else originals.all()),
        ],
        "contexts": [] if trial is None else [speed.to_json() for speed in trial.contexts],
        "memory": None if trial is None else trial.memory.to_json(),
        "waterfalls": [] if falls is None else [falls.to_json()],
    }


def compression(
    figures: Mapping[str, Measurement],
    original: Mapping[str, Measurement],
    kept: Measurement | None,
) -> Evaluation:
    """Judge the size against what was kept of the accuracy.

    Args:
        figures: of the compressed model.
        original: of the original.
        kept: the accuracy kept, as a share; None where nobody measured it.

    Returns:
        The evaluation.
    """
    missing = "" if kept else "no examples were given, so that what was lost is not known"
    try:
        return evaluate(
            "compression",
            original["size_bytes"],
            figures["size_bytes"],
            outcome=kept,
            missing=missing,
        )
    except (InputError, KeyError) as error:
        return not_evaluated("compression", f"the sizes cannot be compared: {error}")


def _interaction(chosen: Tried) -> Evaluation:
    if chosen.missing:
        return not_evaluated("interaction", chosen.missing)
    cold, warm = (chosen.figures[f"{state}_first_token_s"] for state in ("cold", "warm"))
    try:
        return evaluate("interaction", cold, warm, outcome=quotient("response", cold, warm))
    except InputError as error:
        return not_evaluated("interaction", str(error))
