"""The process that `bench` measures: it opens a bundle, generates, and prints what it saw.

A process of its own, so that its peak memory is that of one generation, and its start a start.
It reads one `Job` as JSON and prints events: see `onhand.device.measured`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from onhand.core.bundle import Bundle, verifying_bundle
from onhand.core.profile import parse_profile
from onhand.device.energy import EnergyMeter, choose_meter
from onhand.device.engines.base import KvKind, Loaded
from onhand.device.engines.choosing import HeadUse, PrefillUse, opener_of, use_head, use_prefill
from onhand.device.engines.named import named_engine
from onhand.device.freed_memory import give_back_memory
from onhand.device.generate import generate_tokens
from onhand.device.learning.in_use import LearnedVersion, adapter_for
from onhand.device.measured import peak_memory_bytes, print_event, serve_job
from onhand.device.probe import default_buffer_bytes, sample_read_bandwidth

if TYPE_CHECKING:
    from onhand.device.text import Tokenizer

__all__ = ["TOKENIZER", "Job", "job_text", "main", "run_job"]

TOKENIZER = "tokenizer.json"
WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process is to do.

    Attributes:
        work: "start" (open, first token, end), "speed" (generate `runs` times) or "bandwidth".
        root: the bundle's folder.
        variant: a key of its variants.
        engine: name of a registered engine.
        threads: threads of one step.
        prompt: token ids.
        generated_tokens: tokens of the answer, the first included; at least 2.
        runs: times to generate, or passes over memory.
        profile: of the device, as TOML.
        head: how tokens are scored, "full" or "two-stage".
        kv: what keys and values are kept as; None for the engine's own way.
        prefill: how prompts are read, "exact" or "bf16".
        version: learned on this device; 0 for the bundle as it was built.
        home: the state folder where it is; "" for none.
    """

    work: str
    root: str
    variant: str
    engine: str
    threads: int
    prompt: tuple[int, ...]
    generated_tokens: int
    runs: int
    profile: str
    head: HeadUse = "full"
    kv: KvKind | None = None
    prefill: PrefillUse = "exact"
    version: int = 0
    home: str = ""


def job_text(job: Job) -> str:
    """Write a job as JSON."""
    return json.dumps(asdict(job))


def run_job(job: Job, out: TextIO) -> None:
    """Do a job and print its events.

    Args:
        job: what to do.
        out: where the events go, one JSON object in a line.

    Raises:
        InputError: if there is no such bundle, variant or engine.
        BundleError: if the bundle is not valid.
        EngineUnavailable: if it cannot keep keys and values, score tokens or read prompts so.
        EngineError: if the engine fails.
        ResourceError: if there is no memory, or an energy counter cannot be read.
    """
    if job.work == "bandwidth":
        samples = sample_read_bandwidth(
            job.threads, buffer_bytes=default_buffer_bytes(), runs=job.runs
        )
        print_event(out, {"event": "bandwidth", "samples": samples})
    elif job.work == "start":
        _start(job, out)
    else:
        _speed(job, out)


def _start(job: Job, out: TextIO) -> None:
    begun = time.perf_counter()
    tokenizer, loaded = _open(job)
    load_s = time.perf_counter() - begun
    prompt = np.asarray(job.prompt, dtype=np.int64)
    for token in generate_tokens(loaded, loaded.session(), prompt, max_tokens=1):
        _reader(tokenizer)(token)
    print_event(out, {"event": "first-token"})
    print_event(out, {"event": "start", "load_s": load_s})


def _speed(job: Job, out: TextIO) -> None:
    tokenizer, loaded = _open(job)
    session = loaded.session()
    prompt = np.asarray(job.prompt, dtype=np.int64)
    meter = choose_meter(parse_profile(job.profile))

    def answer(n_tokens: int) -> Mapping[str, float]:
        session.rewind(0)
        tokens = generate_tokens(loaded, session, prompt, max_tokens=n_tokens)
        return _run(tokens, _reader(tokenizer), prompt.size, n_tokens, meter)

    answer(min(WARM_UP_TOKENS, job.generated_tokens))
    print_event(out, {"event": "warm"})
    for _ in range(job.runs):
        figures = answer(job.generated_tokens)
        print_event(out, {"event": "run", **figures})
    print_event(
        out,
        {
            "event": "speed",
            "peak_memory_bytes": peak_memory_bytes(),
            "energy_estimated": meter.estimated,
            "energy_how": meter.how,
        },
    )


def _run(
    tokens: Iterator[int],
    read: Callable[[int], object],
    n_prompt: int,
    generated_tokens: int,
    meter: EnergyMeter,
) -> Mapping[str, float]:
    """Answer the prompt greedily, never stopping early, token by token to text."""
    begun = time.perf_counter()
    token = next(tokens)
    prefilled = time.perf_counter()
    read(token)
    first = time.perf_counter()
    joules = meter.read_j()
    decoding = time.perf_counter()
    # The first token came with the prompt: what is timed are the steps of one token each.
    for token in tokens:
        read(token)
    decoded = time.perf_counter()
    steps = generated_tokens - 1
    return {
        "time_to_first_token_s": first - begun,
        "prefill_tokens_per_s": n_prompt / (prefilled - begun),
        "decode_tokens_per_s": steps / (decoded - decoding),
        "energy_j_per_token": (meter.read_j() - joules) / steps,
    }


def _reader(tokenizer: "Tokenizer | None") -> Callable[[int], object]:
    # What turns the tokens of an answer into text as they come; nothing where there is no text.
    return (lambda _: None) if tokenizer is None else tokenizer.stream().push


def _open(job: Job) -> tuple["Tokenizer | None", Loaded]:
    with verifying_bundle(Path(job.root)) as bundle:  # in the order of `open_bundle`
        tokenizer = _tokenizer(bundle)
        engine = named_engine(job.engine)
        adapter = None
        if job.version:
            adapter = adapter_for(bundle, LearnedVersion(job.version, Path(job.home)))
        opened = opener_of(engine, job.kv)
        loaded = opened(bundle, variant=job.variant, threads=job.threads, adapter=adapter)
        use_head(loaded, job.head, engine_name=job.engine)
        use_prefill(loaded, job.prefill, engine_name=job.engine)
    return tokenizer, loaded


def _tokenizer(bundle: Bundle) -> "Tokenizer | None":
    if TOKENIZER not in bundle.manifest.files:
        return None
    from onhand.device.text import open_tokenizer

    tokenizer = open_tokenizer(bundle.path(TOKENIZER).read_bytes())
    give_back_memory()
    return tokenizer


def main() -> int:
    """Read a job from the standard input and do it.

    Returns:
        The exit code: 0, or 1 with the reason as the last line of the standard error.
    """
    return serve_job(lambda text, out: run_job(_job(text), out))


def _job(text: str) -> Job:
    table = json.loads(text)
    return Job(**{**table, "prompt": tuple(table["prompt"])})


if __name__ == "__main__":
    sys.exit(main())
