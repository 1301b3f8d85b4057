"""The process in which providers are tried: a driver that breaks ends it, and not the probe.

It is given a source (see `onhand.device.hardware.reach`) and names to leave out, and prints one
JSON object on each line: what it is about to try, and each provider when it is done.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Final, TextIO

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.profile_parts import Provider
from onhand.device.hardware.reach import (
    LeftToProcessor,
    Reached,
    compute_on_processor,
    reached_by,
)
from onhand.device.hardware.trials import Trial, trials

__all__ = ["Run", "main", "try_provider", "try_source"]

Run = Callable[[Trial], FloatArray]
"""Computes a trial on a provider alone; raises `LeftToProcessor`, or anything, where it cannot."""

# Half-precision arithmetic is allowed: what it computes is near, and wrong numbers are far.
_TOLERANCE: Final = 0.05
_MOST_SAID: Final = 200
# Of the time after which this process is stopped: the rest is for the trial that is under way.
_SHARE: Final = 0.6
_WHERE: Final = re.compile(r"\[ONNXRuntimeError\] : [0-9]+ : [A-Z_]+ : | was false\. ")


def try_provider(
    provider: Provider,
    run: Run,
    *,
    tried: Sequence[Trial] | None = None,
    told: Callable[[str], None] = lambda _: None,
    is_late: Callable[[], bool] = lambda: False,
) -> Provider:
    """Try a provider with each operator, and compare what it computes with the processor.

    Args:
        provider: its name, its package, and the device's own name as its note.
        run: computes on it alone.
        tried: what to try; None for `trials`.
        told: the operator that is tried next.
        is_late: whether no more may be tried: some compile a graph for seconds.

    Returns:
        It is usable if it computes at least one operator, and all that it computes rightly; the
        note names those that were not tried.
    """
    given = trials() if tried is None else tuple(tried)
    falls_back: list[str] = []
    n_computed, last = 0, "leaves everything that was tried to the processor"
    late: list[str] = []
    for trial in given:
        if is_late():
            late.append(trial.operator)
            continue
        told(trial.operator)
        try:
            answer = run(trial)
        except LeftToProcessor as left:
            falls_back += left.operators
            continue
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; it is told below)
            falls_back.append(trial.operator)
            last = _first_line(error)
            continue
        if not _is_near(answer, compute_on_processor(trial)):
            return replace(provider, note=f"computes {trial.operator} wrongly")
        n_computed += 1
    if len(late) == len(given):
        return replace(provider, note="no operator could be tried in time")
    if n_computed == 0:
        return replace(provider, note=last)
    note = f"{provider.note}; not tried in time: {', '.join(late)}" if late else provider.note
    return replace(provider, is_usable=True, note=note, falls_back=tuple(dict.fromkeys(falls_back)))


def try_source(
    source: str,
    *,
    skip: Sequence[str] = (),
    limit_s: float = math.inf,
    output: TextIO,
    reach: Callable[[str], Sequence[Reached]] = lambda source: list(reached_by(source)),
) -> None:
    """Try every provider that a source has, and print what happens.

    Args:
        source: one of `sources`.
        skip: names that are left out.
        limit_s: seconds after which no more operators are tried; each device has its share.
        output: told each step as a line of JSON.
        reach: finds its providers.
    """

    def tell(**event: object) -> None:
        output.write(json.dumps(event) + "\n")
        output.flush()

    tell(trying=["", "finding its devices"])
    try:
        found = reach(source)
    except Exception as error:  # noqa: BLE001 (a driver may raise anything; it is told)
        tell(broken=_first_line(error))
        return
    todo = [one for one in found if one.name not in skip]
    end_s = time.monotonic() + limit_s
    for n_left, one in zip(range(len(todo), 0, -1), todo, strict=True):
        _try_one(one, tell, time.monotonic() + (end_s - time.monotonic()) / n_left)


def _try_one(reached: Reached, tell: Callable[..., None], end_s: float) -> None:
    given = Provider(name=reached.name, package=reached.package, note=reached.note)
    tell(trying=[reached.name, "opening it"])
    done = try_provider(
        given,
        reached.run,
        told=lambda operator: tell(trying=[reached.name, operator]),
        is_late=lambda: time.monotonic() > end_s,
    )
    tell(provider=asdict(done))


def main() -> int:
    """Read what to try from the standard input, and try it.

    Returns:
        The exit code, 0.
    """
    job = json.loads(sys.stdin.read())
    # Libraries print to the standard output as well: the events get a descriptor of their own.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        limit_s = float(job["limit_s"]) * _SHARE
        try_source(job["source"], skip=job["skip"], limit_s=limit_s, output=output)
        output.flush()
        # A driver may hang or break when it is unloaded, which is nobody's loss.
        os._exit(0)


def _first_line(error: Exception) -> str:
    """Return what an error says, without where in ONNX Runtime's source it was raised."""
    lines = str(error).strip().splitlines()
    said = _WHERE.split(lines[0])[-1].strip() if lines else ""
    return said[:_MOST_SAID] or type(error).__name__


def _is_near(answer: FloatArray, right: FloatArray) -> bool:
    if answer.shape != right.shape or not np.isfinite(answer).all():
        return False
    return bool(np.abs(answer - right).max() <= _TOLERANCE * np.abs(right).max())


if __name__ == "__main__":
    sys.exit(main())
