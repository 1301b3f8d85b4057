"""The process of a trial: one way of running a bundle answers a question cold and warm.

Cold, nothing is remembered; warm, the beginning that many questions share is in memory. It reads a
`TrialJob` as JSON and prints events: see `onhand.device.measured`.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.bundle import verifying_bundle
from onhand.core.profile import parse_profile
from onhand.device.energy import EnergyMeter, choose_meter
from onhand.device.engines.base import Loaded, Session
from onhand.device.engines.named import named_engine
from onhand.device.generate import generate_tokens
from onhand.device.measured import peak_memory_bytes, print_event, serve_job

__all__ = ["TrialJob", "main", "run_job"]

_WARM_UP_TOKENS: Final = 4
_CONTEXT_RUNS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """What one process is to do.

    Attributes:
        root: the bundle's folder.
        variant: a key of its variants.
        engine: name of a registered engine.
        threads: threads of one step.
        shared: tokens that all questions begin with.
        question: tokens of one question behind them.
        generated_tokens: tokens of an answer, at least 2.
        runs: most questions; at least one is asked.
        most_s: no further question once asking took so long.
        lengths: of prompts that speed is measured at beside, ascending; none for not at all.
        lengths_most_s: no longer prompt that would take longer than this together with those
            before it.
        profile: of the device, as TOML.
    """

    root: str
    variant: str
    engine: str
    threads: int
    shared: tuple[int, ...]
    question: tuple[int, ...]
    generated_tokens: int
    runs: int
    most_s: float
    lengths: tuple[int, ...]
    lengths_most_s: float
    profile: str


def run_job(job: TrialJob, out: TextIO) -> None:
    """Do a job and print its events.

    Args:
        job: what to do.
        out: where the events go, one JSON object in a line.

    Raises:
        InputError: if there is no such bundle, variant or engine.
        BundleError: if the bundle is not valid.
        EngineError: if the engine fails.
        ResourceError: if there is no memory, or an energy counter cannot be read.
    """
    print_event(out, {"event": "opening"})
    engine = named_engine(job.engine)
    with verifying_bundle(Path(job.root)) as bundle:
        loaded = engine.open(bundle, variant=job.variant, threads=job.threads)
    session = loaded.session()
    shared = np.asarray(job.shared, dtype=np.int64)
    question = np.asarray(job.question, dtype=np.int64)
    meter = choose_meter(parse_profile(job.profile))
    whole = np.concatenate([shared, question])
    print_event(out, {"event": "opened"})
    _answer(loaded, session, whole, min(_WARM_UP_TOKENS, job.generated_tokens))
    print_event(out, {"event": "asking"})
    begun, n_runs = time.perf_counter(), 0
    while n_runs < job.runs and (n_runs == 0 or time.perf_counter() - begun < job.most_s):
        print_event(out, {"event": "run", **_run(loaded, session, whole, shared.size, job, meter)})
        n_runs += 1
    _lengths(loaded, session, job, out)
    end = {
        "event": "trial",
        "peak_memory_bytes": peak_memory_bytes(),
        "energy_estimated": meter.estimated,
        "energy_how": meter.how,
    }
    print_event(out, end)


def _run(
    loaded: Loaded,
    session: Session,
    whole: TokenArray,
    n_shared: int,
    job: TrialJob,
    meter: EnergyMeter,
) -> Mapping[str, float]:
    session.rewind(0)
    joules = meter.read_j()
    cold_s, cold_answer_s = _answer(loaded, session, whole, job.generated_tokens)
    joules = meter.read_j() - joules
    # Not quite the same question again: its tokens in another order.
    session.rewind(n_shared)
    other = whole[n_shared:][::-1]
    warm_s, warm_answer_s = _answer(loaded, session, other, job.generated_tokens)
    return {
        "cold_first_token_s": cold_s,
        "warm_first_token_s": warm_s,
        "cold_answer_s": cold_answer_s,
        "warm_answer_s": warm_answer_s,
        "answer_energy_j": joules,
    }


def _answer(
    loaded: Loaded, session: Session, prompt: TokenArray, n_tokens: int
) -> tuple[float, float]:
    """Answer greedily; return the seconds to the first token and to the last."""
    begun = time.perf_counter()
    tokens = generate_tokens(loaded, session, prompt, max_tokens=n_tokens)
    next(tokens)
    first = time.perf_counter()
    for _ in tokens:
        pass
    return first - begun, time.perf_counter() - begun


def _lengths(loaded: Loaded, session: Session, job: TrialJob, out: TextIO) -> None:
    ids = np.asarray(job.shared + job.question, dtype=np.int64)
    begun, token_s = time.perf_counter(), 0.0
    for length in job.lengths:
        if time.perf_counter() - begun + token_s * length > job.lengths_most_s:
            return
        prompt = np.resize(ids, length)
        for run in range(_CONTEXT_RUNS):
            if run and time.perf_counter() - begun > job.lengths_most_s:
                break
            session.rewind(0)
            first_s, answer_s = _answer(loaded, session, prompt, job.generated_tokens)
            figures = {
                "time_to_first_token_s": first_s,
                "decode_tokens_per_s": (job.generated_tokens - 1) / (answer_s - first_s),
            }
            token_s = first_s / length
            print_event(out, {"event": "length", "tokens": length, **figures})


def main() -> int:
    """Read a job from the standard input and do it.

    Returns:
        The exit code: 0, or 1 with the reason as the last line of the standard error.
    """
    return serve_job(lambda text, out: run_job(_job(text), out))


def _job(text: str) -> TrialJob:
    table = json.loads(text)
    lists = {key: tuple(table[key]) for key in ("shared", "question", "lengths")}
    return TrialJob(**{**table, **lists})


if __name__ == "__main__":
    sys.exit(main())
