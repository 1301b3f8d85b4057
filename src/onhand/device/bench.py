"""Size, speed, memory and energy of a bundle on this device, each measured in its own process.

Fresh processes give `cold_start_s` (start of the process to its first token) and `load_s`
(checking the files, opening engine and tokenizer); the files are in the system's cache. One more
process gives the rest: after a warm-up it answers the same random prompt `runs` times, one
conversation, greedily. Values are medians, spreads interquartile ranges. The memory bandwidth is
measured before and after, because it changes by the minute on shared machines.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypedDict, Unpack, cast

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement, Unit, summarize
from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.progress import Progress, Quiet
from onhand.device.bench_child import TOKENIZER, Job, job_text
from onhand.device.engine_opening import able_engines, choose_engine
from onhand.device.engines.choosing import EngineWays
from onhand.device.hardware.bandwidth import RUNS as BANDWIDTH_RUNS
from onhand.device.learning.in_use import LearnedVersion, adapter_for
from onhand.device.measured import Event, Events, run_measured
from onhand.device.probe import current_profile

__all__ = ["GENERATED_TOKENS", "NAMES", "PROMPT_TOKENS", "bench", "random_prompt"]

PROMPT_TOKENS: Final = 512
GENERATED_TOKENS: Final = 128
MIN_STARTS: Final = 3
SEED: Final = 20240607
NAMES: Final = (
    "size_bytes",
    "load_s",
    "cold_start_s",
    "time_to_first_token_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "peak_memory_bytes",
    "energy_j_per_token",
    "read_bandwidth",
)


def bench(
    root: Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    generated_tokens: int = GENERATED_TOKENS,
    runs: int = 5,
    profile: DeviceProfile | None = None,
    home: Path | None = None,
    version: LearnedVersion | None = None,
    progress: Progress | None = None,
    **ways: Unpack[EngineWays],
) -> dict[str, Measurement]:
    """Measure a bundle on this device; the module says how.

    Args:
        root: the bundle's folder.
        variant: which of its variants; None for its default.
        engine: as in `onhand.device.opening.open`.
        threads: likewise.
        prompt_tokens: tokens of the prompt; the default shrinks to the context, as `how` tells.
        generated_tokens: tokens of the answer, at least 2; the default shrinks likewise.
        runs: how often the prompt is answered, and how many starts there are (at least 3).
        profile: this device's, for its watts; None looks anew.
        home: the state folder, which keeps what is quickest; None for no trial.
        version: learned on this device; None for the bundle as it was built.
        progress: told how far it is.
        **ways: `head`, `kv` and `prefill`, as in `onhand.device.opening.open`.

    Returns:
        The measurements named in `NAMES`.

    Raises:
        InputError: if there is no such bundle, variant or engine, or a number does not fit.
        BundleError: if a file is missing or changed, or the bundle's format is a later one.
        EngineUnavailable: if no engine can run it here.
        EngineError: if a measuring process fails; the message is its last line.
    """
    bundle = _checked(root, runs, threads, version)
    chosen, _ = bundle.variant(variant)
    prompt, generated = _lengths(prompt_tokens, generated_tokens, bundle.manifest.decoder.context)
    profile = profile or current_profile()
    engine, threads = _quickest(bundle, chosen, engine, threads, home, progress, ways)
    able, _ = able_engines(bundle, profile, variant=chosen, wanted=engine, kv=ways.get("kv"))
    job = Job(
        work="speed",
        variant=chosen,
        engine=next(iter(able)),
        threads=threads or profile.usable_threads,
        prompt=tuple(random_prompt(bundle, prompt).tolist()),
        generated_tokens=generated,
        runs=runs,
        profile=render_profile(profile),
        **_place(root, version),
        **ways,
    )
    shrank = (prompt, generated) != (prompt_tokens, generated_tokens)
    return _measure(bundle, job, _how(bundle, job, shrank=shrank), progress or Quiet())


class _Place(TypedDict):
    root: str
    version: int
    home: str


def _place(root: Path, version: LearnedVersion | None) -> _Place:
    number, home = (0, "") if version is None else (version.number, str(version.home.absolute()))
    return {"root": str(root.absolute()), "version": number, "home": home}


def _quickest(
    bundle: Bundle,
    variant: str,
    engine: str | None,
    threads: int | None,
    home: Path | None,
    progress: Progress | None,
    ways: EngineWays,
) -> tuple[str | None, int | None]:
    """Return what was asked for; the engine and threads that are quickest where none was."""
    if engine is not None or home is None:
        return engine, threads
    way = choose_engine(bundle, variant, home=home, threads=threads, progress=progress, **ways)
    return way.engine, way.threads


def _measure(bundle: Bundle, job: Job, how: str, shown: Progress) -> dict[str, Measurement]:
    starts: list[Events] = []
    shown.start("starting", max(MIN_STARTS, job.runs))
    for _ in range(max(MIN_STARTS, job.runs)):
        starts.append(_run_child(replace(job, work="start"), bundle))
        shown.advance(1)
    before = _bandwidth(job, bundle, shown)
    shown.start("generating", job.runs + 1)
    speed = _run_child(job, bundle, on_event=lambda _: shown.advance(1))
    after = _bandwidth(job, bundle, shown)
    return _measurements(bundle, job, starts, speed, [*before, *after], how)


def _measurements(
    bundle: Bundle,
    job: Job,
    starts: Sequence[Events],
    speed: Events,
    bandwidth: Sequence[float],
    how: str,
) -> dict[str, Measurement]:
    end = speed.last("speed")
    loads = [load for events in starts for load in events.figures("start", "load_s")]
    found: dict[str, tuple[Unit, Sequence[float]]] = {
        "size_bytes": ("byte", [float(bundle.size_bytes(job.variant))]),
        "load_s": ("s", loads),
        "cold_start_s": ("s", [events.first_s for events in starts]),
        "time_to_first_token_s": ("s", speed.figures("run", "time_to_first_token_s")),
        "prefill_tokens_per_s": ("1/s", speed.figures("run", "prefill_tokens_per_s")),
        "decode_tokens_per_s": ("1/s", speed.figures("run", "decode_tokens_per_s")),
        "peak_memory_bytes": ("byte", [float(cast(int, end["peak_memory_bytes"]))]),
        "energy_j_per_token": ("joule", speed.figures("run", "energy_j_per_token")),
        "read_bandwidth": ("byte/s", bandwidth),
    }
    made = {
        name: summarize(name, samples, unit=unit, how=how)
        for name, (unit, samples) in found.items()
    }
    joined = "; " if "#" in how else "  # "
    made["energy_j_per_token"] = replace(
        made["energy_j_per_token"],
        how=f"{how}{joined}{end['energy_how']}",
        estimated=end["energy_estimated"] is True,
    )
    return made


def _checked(root: Path, runs: int, threads: int | None, version: LearnedVersion | None) -> Bundle:
    """Return the bundle, before anything is measured.

    Raises:
        InputError: if a number does not fit, or there is no such version.
    """
    if runs < 1 or (threads is not None and threads < 1):
        raise InputError(f"bench: runs {runs} and threads {threads} must be at least 1")
    bundle = read_bundle(root)
    adapter_for(bundle, version)
    return bundle


def _lengths(prompt_tokens: int, generated_tokens: int, context: int) -> tuple[int, int]:
    """Return lengths of prompt and answer that fit; only defaults are changed.

    Raises:
        InputError: if they are too small, or do not fit.
    """
    if prompt_tokens < 1 or generated_tokens < 2:
        raise InputError(
            f"bench: {prompt_tokens} prompt tokens and {generated_tokens} generated ones: needs at "
            f"least 1 and 2"
        )
    prompt, generated = prompt_tokens, generated_tokens
    if prompt + generated > context and prompt_tokens == PROMPT_TOKENS:
        if generated_tokens == GENERATED_TOKENS:
            generated = min(generated, max(2, context // 4))
        prompt = max(1, context - generated)
    elif prompt + generated > context and generated_tokens == GENERATED_TOKENS:
        generated = max(2, context - prompt)
    if prompt + generated > context:
        raise InputError(
            f"bench: {prompt} prompt tokens and {generated} generated ones are more than the "
            f"model's context of {context}; ask for fewer"
        )
    return prompt, generated


def random_prompt(bundle: Bundle, length: int) -> TokenArray:
    """Return random ids of ordinary tokens, the same for every bundle with this tokenizer.

    Args:
        bundle: a verified bundle.
        length: how many.

    Raises:
        InputError: if there is none.
    """
    ids = np.arange(bundle.manifest.decoder.vocab_size, dtype=np.int64)
    if TOKENIZER in bundle.manifest.files:
        from onhand.device.text import open_tokenizer

        content = bundle.path(TOKENIZER).read_bytes()
        missing = open_tokenizer(content, where=f"{bundle.root}: {TOKENIZER}").missing(ids.size)
        if missing is not None:
            ids = ids[~missing]
        # Added tokens are the special ones and their like.
        added = [entry["id"] for entry in json.loads(content).get("added_tokens", [])]
        ids = ids[~np.isin(ids, added)]
    if not ids.size:
        raise InputError(f"{bundle.root}: its tokenizer has no ordinary token for a prompt")
    return np.random.default_rng(SEED).choice(ids, size=length)


def _how(bundle: Bundle, job: Job, *, shrank: bool) -> str:
    """Return the command that measures this again; what else matters follows as its comment."""
    command = (
        f"onhand bench {bundle.manifest.name} --variant {job.variant} --engine {job.engine} "
        f"--threads {job.threads} --prompt-tokens {len(job.prompt)} "
        f"--generated-tokens {job.generated_tokens} --runs {job.runs}"
        f"{'' if job.head == 'full' else f' --head {job.head}'}"
        f"{'' if job.kv is None else f' --kv {job.kv}'}"
        f"{'' if job.prefill == 'exact' else f' --prefill {job.prefill}'}"
        f"{'' if job.version == 0 else f' --version {job.version}'}"
    )
    context = bundle.manifest.decoder.context
    note = f"  # default lengths cut to the context of {context} tokens" if shrank else ""
    return command + note


def _bandwidth(job: Job, bundle: Bundle, shown: Progress) -> list[float]:
    shown.start("measuring memory bandwidth", 1)
    done = _run_child(replace(job, work="bandwidth", runs=BANDWIDTH_RUNS), bundle)
    shown.advance(1)
    return [float(sample) for sample in cast(list[float], done.last("bandwidth")["samples"])]


def _run_child(job: Job, bundle: Bundle, on_event: Callable[[Event], None] | None = None) -> Events:
    return run_measured(
        "onhand.device.bench_child",
        job_text(job),
        what=f"bench {bundle.manifest.name}: the measuring process ({job.work})",
        first="first-token",
        on_event=on_event,
    )
