"""The end of a process that trains for a benchmark: it does one job after the other."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.worker import peak_memory_bytes

__all__ = ["answer_jobs"]


def answer_jobs(step_of: Callable[[Mapping[str, Any]], Callable[[], float]]) -> None:
    """Read jobs, one JSON object in a line, do so many steps of each, and print what they took.

    The last one says "end": what the process took as a whole is the answer.

    Args:
        step_of: a job -> what does one step of it and returns the loss.
    """
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, object]
        if job.get("end"):
            answer = {
                "peak_memory_bytes": peak_memory_bytes(),
                "torch_imported": "torch" in sys.modules,
            }
        else:
            step = step_of(job)
            seconds: list[float] = []
            losses: list[float] = []
            for _ in range(job["steps"]):
                start = time.perf_counter()
                losses.append(step())
                seconds.append(time.perf_counter() - start)
            answer = {"seconds": seconds, "losses": losses}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if job.get("end"):
            return
