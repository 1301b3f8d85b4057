"""Short trials of the ways in which a device can run a bundle: engines, threads, memory of prompts.

Each trial is a process of its own that answers the same question several times: cold, and with
the beginning that many questions share in memory. The trial of the chosen way also says how speed
falls with the length of the context, and what memory the process held over time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement, Unit, summarize
from onhand.core.profile import DeviceProfile, render_profile
from onhand.device.bench import random_prompt
from onhand.device.context_speed import ContextSpeed
from onhand.device.measured import Events, job_text, run_measured
from onhand.device.memory_series import MemorySeries, MemoryWatch, thin
from onhand.device.trial_child import TrialJob

__all__ = ["LENGTHS", "Trial", "try_way"]

RUNS: Final = 5
SHARED_TOKENS: Final = 192
QUESTION_TOKENS: Final = 16
GENERATED_TOKENS: Final = 16
LENGTHS: Final = (16, 64, 256, 1024, 4096, 16384)
_MOST_S = 1.5
_LENGTHS_MOST_S = 2.5
_UNITS: Mapping[str, Unit] = {
    "cold_first_token_s": "s",
    "warm_first_token_s": "s",
    "cold_answer_s": "s",
    "warm_answer_s": "s",
    "answer_energy_j": "joule",
}
_PHASES = {
    "opening": "opening",
    "opened": "first answer",
    "asking": "answering",
    "length": "longer prompts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one way of running a bundle gave.

    Attributes:
        engine: its name.
        threads: of one step.
        figures: `cold_first_token_s`, `warm_first_token_s`, `cold_answer_s`, `warm_answer_s` and
            `answer_energy_j` (of a cold answer).
        contexts: speed by the length of the context; empty where it was not asked for.
        memory: of the process over time.
    """

    engine: str
    threads: int
    figures: Mapping[str, Measurement]
    contexts: tuple[ContextSpeed, ...]
    memory: MemorySeries

    def to_json(self) -> dict[str, object]:
        """Return what a report says of it: the way, and its figures."""
        return {
            "engine": self.engine,
            "threads": self.threads,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
        }


def try_way(
    root: Path,
    *,
    variant: str,
    engine: str,
    threads: int,
    profile: DeviceProfile,
    lengths: Sequence[int] = (),
) -> Trial:
    """Try one way of running a bundle.

    Args:
        root: the bundle's folder.
        variant: a key of its variants.
        engine: name of a registered engine that can run it.
        threads: threads of one step.
        profile: this device's, for its watts.
        lengths: of prompts to measure speed at, as far as they fit the context; the context itself
            is added where one of them does not.

    Returns:
        The trial.

    Raises:
        InputError: if there is no such bundle or variant, or its context is too small to ask in.
        BundleCorrupt: if a file is missing or changed.
        EngineError: if the process fails; the message is its last line.
    """
    bundle = read_bundle(root)
    context = bundle.manifest.decoder.context
    generated = max(2, min(GENERATED_TOKENS, context // 8))
    question = max(1, min(QUESTION_TOKENS, context // 8))
    shared = max(1, min(SHARED_TOKENS, context - question - generated))
    prompt = random_prompt(bundle, shared + question).tolist()
    fitting = [length for length in lengths if length + generated <= context]
    if len(fitting) < len(lengths) and context - generated not in fitting:
        fitting.append(context - generated)
    job = TrialJob(
        root=str(root.absolute()),
        variant=variant,
        engine=engine,
        threads=threads,
        shared=tuple(prompt[:shared]),
        question=tuple(prompt[shared:]),
        generated_tokens=generated,
        runs=RUNS,
        most_s=_MOST_S,
        lengths=tuple(sorted(fitting)),
        lengths_most_s=_LENGTHS_MOST_S,
        profile=render_profile(profile),
    )
    return _run(job, bundle.manifest.name)


def _run(job: TrialJob, name: str) -> Trial:
    watch = MemoryWatch()
    events = run_measured(
        "onhand.device.trial_child",
        job_text(job),
        what=f"trying {name} in {job.engine}",
        first="asking",
        watching=watch.watching,
    )
    return _trial(job, name, events, watch)


def _trial(job: TrialJob, name: str, events: Events, watch: MemoryWatch) -> Trial:
    way = f"--engine {job.engine} --threads {job.threads}"
    how = (
        f"onhand bench {name} --variant {job.variant} {way} --prompt-tokens "
        f"{len(job.shared) + len(job.question)} --generated-tokens {job.generated_tokens}"
        f"  # {len(job.shared)} tokens of the prompt are in memory where it is warm"
    )
    figures = {
        key: summarize(key, events.figures("run", key), unit=unit, how=how)
        for key, unit in _UNITS.items()
    }
    end = events.last("trial")
    figures["answer_energy_j"] = replace(
        figures["answer_energy_j"],
        how=f"{how}; {end['energy_how']}",
        estimated=end["energy_estimated"] is True,
    )
    return Trial(
        engine=job.engine,
        threads=job.threads,
        figures=figures,
        contexts=_contexts(job, name, events),
        memory=MemorySeries(
            points=thin(watch.points),
            phases=_phases(events),
            how=f"onhand bench {name} --variant {job.variant} {way}  # resident memory",
        ),
    )


def _contexts(job: TrialJob, name: str, events: Events) -> tuple[ContextSpeed, ...]:
    runs: dict[int, list[tuple[float, float]]] = {}
    for event in events.all:
        if event["event"] == "length":
            tokens, first, rate = (
                event[key] for key in ("tokens", "time_to_first_token_s", "decode_tokens_per_s")
            )
            runs.setdefault(int(str(tokens)), []).append((float(str(first)), float(str(rate))))
    made: list[ContextSpeed] = []
    for tokens, samples in runs.items():
        how = (
            f"onhand bench {name} --variant {job.variant} --engine {job.engine} --threads "
            f"{job.threads} --prompt-tokens {tokens} --generated-tokens {job.generated_tokens}"
        )
        first_s, rates = zip(*samples, strict=True)
        made.append(
            ContextSpeed(
                tokens=tokens,
                time_to_first_token_s=summarize(
                    "time_to_first_token_s", first_s, unit="s", how=how
                ),
                decode_tokens_per_s=summarize("decode_tokens_per_s", rates, unit="1/s", how=how),
            )
        )
    return tuple(made)


def _phases(events: Events) -> tuple[tuple[str, float], ...]:
    began: dict[str, float] = {"starting Python": 0.0}
    previous = 0.0
    for event, at in zip(events.all, events.times_s, strict=True):
        phase = _PHASES.get(str(event["event"]))
        if phase is not None and phase not in began:
            # A run is told when it has ended: it began with the event before it.
            began[phase] = previous if event["event"] == "length" else at
        previous = at
    return tuple(began.items())
