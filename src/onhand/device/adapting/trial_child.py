"""The process that tries ways to run a language model: a way that crashes ends no other program.

It reads a `Job` from the standard input and prints one line for each event: what it begins, so
that whoever listens knows what a crash happened in, and what it found.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import EngineError
from onhand.device.engines.base import KvKind, Loaded, ThreadsLoaded
from onhand.device.engines.choosing import HeadUse, PrefillUse, opener_of, use_head, use_prefill
from onhand.device.engines.named import named_engine
from onhand.device.measured import print_event, serve_job

__all__ = ["Job", "main", "run_job"]

MOST_ROUNDS = 8
MOST_REOPENING_S = 0.3
DECODE_STEPS = 6
"""Steps of one token in a round: the first finds the caches cold and is not counted."""
SEED = 20240607


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is tried.

    Attributes:
        root: the bundle's folder, absolute.
        variant: a key of its variants.
        ways: names of engines, see `named_engine`; preferred ones first.
        threads: numbers of threads that each is tried with, the most first.
        prompt_tokens: of the short prompt; cut to what the context holds.
        budget_s: seconds of timing for all of them; each is timed at least once.
        together: whether all may be in memory at once, and take turns.
        head: as in `onhand.device.opening.open`.
        kv: as there.
        prefill: as there.
    """

    root: str
    variant: str
    ways: tuple[str, ...]
    threads: tuple[int, ...]
    prompt_tokens: int = 64
    budget_s: float = 1.5
    together: bool = True
    head: HeadUse = "full"
    kv: KvKind | None = None
    prefill: PrefillUse = "exact"


def run_job(job: Job, out: TextIO) -> None:
    """Open each way, time them in turn, and print what they took.

    Args:
        job: what is tried.
        out: where events go.

    Raises:
        OnhandError: if the bundle cannot be used at all; what a way alone fails of is an event.
    """
    bundle = read_bundle(Path(job.root))
    groups = [job.ways] if job.together else [(way,) for way in job.ways]
    for group in groups:
        with ExitStack() as closing:
            runs: list[_Run] = []
            for way in group:
                runs += _opened(job, bundle, way, out, closing)
            runs.sort(key=lambda run: -run.threads)  # the most first; ways in their order
            _time(job, bundle, runs, out, budget_s=job.budget_s * len(group) / len(job.ways))


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A way that is open, and with how many threads it is timed."""

    way: str
    threads: int
    loaded: Loaded


def _opened(job: Job, bundle: Bundle, way: str, out: TextIO, closing: ExitStack) -> Iterator[_Run]:
    """Open a way, once more for fewer threads where it must be and is quickly done.

    Yields:
        What is to be timed; none where it cannot be opened.
    """
    most = job.threads[0]
    print_event(out, {"event": "open", "way": way})
    begun = time.perf_counter()
    try:
        loaded = _open(job, bundle, way, most)
    except EngineError as error:
        print_event(out, {"event": "failed", "way": way, "reason": str(error)})
        return
    closing.callback(loaded.close)
    opening_s = time.perf_counter() - begun
    print_event(out, {"event": "opened", "way": way, "opening_s": opening_s})
    yield _Run(way, most, loaded)
    for threads in job.threads[1:]:
        if isinstance(loaded, ThreadsLoaded):
            yield _Run(way, threads, loaded)
        elif ":" not in way and opening_s < MOST_REOPENING_S and job.together:
            again = _open(job, bundle, way, threads)
            closing.callback(again.close)
            yield _Run(way, threads, again)


def _open(job: Job, bundle: Bundle, way: str, threads: int) -> Loaded:
    loaded = opener_of(named_engine(way), job.kv)(bundle, variant=job.variant, threads=threads)
    use_head(loaded, job.head, engine_name=way)
    use_prefill(loaded, job.prefill, engine_name=way)
    return loaded


def _time(job: Job, bundle: Bundle, runs: Sequence[_Run], out: TextIO, *, budget_s: float) -> None:
    """Let opened ways take turns, so that what disturbs the machine disturbs all alike."""
    rng = np.random.default_rng(SEED)
    decoder = bundle.manifest.decoder
    n = max(1, min(job.prompt_tokens, decoder.context - DECODE_STEPS))
    prompt = rng.integers(0, decoder.vocab_size, n)
    steps = min(DECODE_STEPS, decoder.context - n)
    broken: set[str] = set()
    begun = time.perf_counter()
    for number in range(-1, MOST_ROUNDS):  # the first warms up
        if number > 0 and time.perf_counter() - begun > budget_s:
            break
        for run in runs:
            if run.way in broken:
                continue
            if isinstance(run.loaded, ThreadsLoaded) and run.loaded.threads != run.threads:
                run.loaded.use_threads(run.threads)
            about = {"way": run.way, "threads": run.threads}
            print_event(out, {"event": "run", **about})
            try:
                prefill_s, decode_s = _answer(run.loaded, prompt, steps)
            except EngineError as error:
                broken.add(run.way)
                print_event(out, {"event": "failed", "way": run.way, "reason": str(error)})
                continue
            if number >= 0:
                figures = {"prefill_s_per_token": prefill_s / n, "decode_s": decode_s}
                print_event(out, {"event": "timed", **about, **figures})


def _answer(loaded: Loaded, prompt: np.ndarray, steps: int) -> tuple[float, float]:
    """Return the seconds of a prompt, and the median seconds of a step of one token behind it."""
    session = loaded.session(context=prompt.size + steps)
    try:
        step = partial(_timed_step, loaded, session)
        prefill_s = step(prompt)
        taken = [step(prompt[:1]) for _ in range(steps)]
    finally:
        session.close()
    counted = taken[1:] or taken or [prefill_s]
    return prefill_s, float(np.median(counted))


def _timed_step(loaded: Loaded, session: object, tokens: np.ndarray) -> float:
    begun = time.perf_counter()
    loaded.step([(session, tokens)])  # type: ignore[list-item] # its own session
    return time.perf_counter() - begun


def main() -> int:
    """Read a job from the standard input and do it.

    Returns:
        The exit code: 0, or 1 with the reason as the last line of the standard error.
    """
    return serve_job(lambda text, out: run_job(_job(text), out))


def _job(text: str) -> Job:
    table = json.loads(text)
    lists = {"ways": tuple(table["ways"]), "threads": tuple(table["threads"])}
    return Job(**{**table, **lists})


if __name__ == "__main__":
    sys.exit(main())
