"""Tries ways to run a language model on this device: a short prompt, a few tokens, each in turn.

Ways of the processor share one process, so that they can take turns; every accelerator has one of
its own. A process that crashes or hangs is ended and blamed on what it was at; those that it had
not come to are tried again without it.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Final, cast

from onhand.core.unsealing import handed_on
from onhand.device.adapting.races import Race
from onhand.device.adapting.trial_child import Job
from onhand.device.measured import job_text

__all__ = [
    "ANSWER_TOKENS",
    "LIMIT_S",
    "PROMPT_TOKENS",
    "Outcome",
    "Start",
    "parse_way",
    "run_trial",
    "way_name",
]

PROMPT_TOKENS: Final = 128
ANSWER_TOKENS: Final = 64
"""Ways are compared by the time of a prompt and an answer of these lengths."""
LIMIT_S: Final = 12.0
"""Seconds after which a process is ended: a model that takes longer to open is not worth trying."""
_MODULE: Final = "onhand.device.adapting.trial_child"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a process that tried ways has left.

    Attributes:
        events: what it printed, in order.
        ended: how it ended, in words; "" for well.
        is_late: whether it was ended because its time was over.
    """

    events: tuple[Mapping[str, object], ...]
    ended: str = ""
    is_late: bool = False


Start = Callable[[Job], Outcome]
"""Runs a job in a process of its own."""


def way_name(way: str, threads: int) -> str:
    """Return what a way with a number of threads is called in a `Race`.

    Args:
        way: the name of an engine.
        threads: of a step.
    """
    return f"{way} with {threads} thread{'s' * (threads != 1)}"


def parse_way(name: str) -> tuple[str, int]:
    """Undo `way_name`.

    Args:
        name: as it was made; of something else, the threads are 1.
    """
    way, _, rest = name.rpartition(" with ")
    number = rest.partition(" ")[0]
    return (way, int(number)) if way and number.isdecimal() else (name, 1)


def run_trial(job: Job, start: Start | None = None) -> Race:
    """Try ways, those of the processor beside each other, accelerators each alone.

    Args:
        job: what is tried; ways with ":" in their name, or registered by others, are tried alone.
        start: runs a job; None for a process of its own.

    Returns:
        By `way_name` what an answer takes, with `prefill_s_per_token` and `decode_s` of each; by
        engine why it has failed. Where the first way was not open in time, it is the only one,
        without figures: what takes so long is not judged by halves.
    """
    run = start or start_process
    own = tuple(way for way in job.ways if way in {"native", "onnx"})
    alone = [(way,) for way in job.ways if way not in own]
    failed: dict[str, str] = {}
    samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for group in ([own] if own else []) + alone:
        left = group
        while left:
            outcome = run(replace(job, ways=left, budget_s=job.budget_s / (1 + len(alone))))
            _gather(outcome, samples, failed)
            timed = {way for way, _ in samples}
            blamed = _blamed(outcome, left)
            if blamed is None or (outcome.is_late and blamed in timed):
                break
            if outcome.is_late and blamed == job.ways[0]:
                return _untimed(job)
            failed[blamed] = outcome.ended
            samples = {key: taken for key, taken in samples.items() if key[0] != blamed}
            # One that hung has used up the time; after a crash, the others have theirs.
            rest = [way for way in left if way not in failed and way not in timed]
            left = () if outcome.is_late else tuple(rest)
        for way in group:
            if way not in failed and all(key[0] != way for key in samples):
                failed[way] = "not timed: the time was over before its turn"
    return _race(job, samples, failed)


def _gather(
    outcome: Outcome,
    samples: dict[tuple[str, int], list[tuple[float, float]]],
    failed: dict[str, str],
) -> None:
    for event in outcome.events:
        way = str(event.get("way", ""))
        if event["event"] == "failed":
            failed[way] = str(event["reason"])
        elif event["event"] == "timed":
            key = (way, int(cast(int, event["threads"])))
            figures = (event["prefill_s_per_token"], event["decode_s"])
            samples.setdefault(key, []).append(cast(tuple[float, float], figures))
    for key in [key for key in samples if key[0] in failed]:
        del samples[key]


def _blamed(outcome: Outcome, ways: Sequence[str]) -> str | None:
    """Return what a process was at when it ended badly, None where it ended well."""
    if not outcome.ended:
        return None
    begun = [str(one["way"]) for one in outcome.events if one["event"] in {"open", "run"}]
    return begun[-1] if begun else ways[0]


def _untimed(job: Job) -> Race:
    first, *others = job.ways
    why = f"not timed: {first} takes more than {LIMIT_S:g} s to open and run here"
    # A lower bound is all that is known; it is kept, or the same would be waited for each time.
    return Race(
        latency_s={way_name(first, job.threads[0]): LIMIT_S}, failed=dict.fromkeys(others, why)
    )


def _race(
    job: Job,
    samples: Mapping[tuple[str, int], Sequence[tuple[float, float]]],
    failed: Mapping[str, str],
) -> Race:
    latency_s: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    # Fewer threads leave more to others: where they are as quick, they come first.
    for way in job.ways:
        for threads in sorted(job.threads):
            if not (taken := samples.get((way, threads))):
                continue
            name = way_name(way, threads)
            # The least, for what else the machine does only adds to it: a choice that is kept
            # must not be that of a busy minute.
            prefill_s, decode_s = (min(one) for one in zip(*taken, strict=True))
            figures[name] = {"decode_s": decode_s, "prefill_s_per_token": prefill_s}
            latency_s[name] = PROMPT_TOKENS * prefill_s + ANSWER_TOKENS * decode_s
    return Race(latency_s=latency_s, failed=failed, figures=figures)


def start_process(job: Job) -> Outcome:
    """Run a job in a process of its own, for `LIMIT_S` at most.

    Args:
        job: what is tried.

    Returns:
        What it printed, and how it ended.
    """
    is_late = threading.Event()
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as complaints,
        handed_on() as (arguments, fds),
    ):
        given.write(job_text(job).encode())
        given.seek(0)
        # -P: a folder called onhand in the current one must not be imported instead.
        process = subprocess.Popen(  # noqa: S603 - a module of ours
            [sys.executable, "-P", "-m", _MODULE, *arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=fds,
        )

        def end() -> None:
            is_late.set()
            process.kill()

        watch = threading.Timer(LIMIT_S, end)
        watch.daemon = True
        watch.start()
        try:
            events = _listen(cast(IO[bytes], process.stdout))
            code = process.wait()
        finally:
            watch.cancel()
            process.kill()
            process.wait()
            cast(IO[bytes], process.stdout).close()
        if code == 0:
            return Outcome(events=events)
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").splitlines()
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if is_late.is_set():
        return Outcome(events=events, ended=f"took more than {LIMIT_S:g} s", is_late=True)
    how = f"crashed with signal {-code}" if code < 0 else f"ended with code {code}"
    return Outcome(events=events, ended=f"{how}{f': {said}' * bool(said)}")


def _listen(lines: IO[bytes]) -> tuple[Mapping[str, object], ...]:
    events: list[Mapping[str, object]] = []
    for line in lines:
        if not line.endswith(b"\n"):
            break  # it died while writing
        events.append(json.loads(line))
    return tuple(events)
