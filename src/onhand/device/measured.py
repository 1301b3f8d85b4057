"""A process of its own that is measured: started, listened to, and what it says of itself.

It reads its job from the standard input and prints one JSON object in a line for each event;
whatever libraries print goes to the standard error, whose last line says why it failed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO, cast

from onhand.core.errors import EngineError, OnhandError
from onhand.core.unsealing import handed_on, take_over

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Event",
    "Events",
    "job_text",
    "peak_memory_bytes",
    "print_event",
    "run_measured",
    "serve_job",
]

Event = Mapping[str, object]
# Those that a user is shown as progress.
_STEPS = frozenset({"warm", "run"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What a process printed.

    Attributes:
        all: every event, in order; at least one.
        first_s: seconds from its start to the event that was asked for, 0 where it did not come.
        times_s: of each event, seconds from its start.
    """

    all: tuple[Event, ...]
    first_s: float
    times_s: tuple[float, ...] = ()

    def figures(self, event: str, key: str) -> list[float]:
        """Return one number of every event of a kind."""
        return [float(cast(float, found[key])) for found in self.all if found["event"] == event]

    def last(self, event: str) -> Event:
        """Return the last event of a kind."""
        return [found for found in self.all if found["event"] == event][-1]


def run_measured(
    module: str,
    job: str,
    *,
    what: str,
    first: str,
    on_event: Callable[[Event], None] | None = None,
    watching: Callable[[int], AbstractContextManager[object]] | None = None,
) -> Events:
    """Run one measuring process to its end.

    Args:
        module: what it runs, a module that calls `serve_job`.
        job: what it is given.
        what: what it is called in errors.
        first: the kind of event whose time is taken.
        on_event: told of each step, as it comes.
        watching: given its number; held while it runs, as `MemoryWatch.watching` is.

    Returns:
        What it printed.

    Raises:
        EngineError: if it fails.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as complaints,
        handed_on() as (arguments, fds),
    ):
        given.write(job.encode())
        given.seek(0)
        begun = time.perf_counter()
        # -P: a folder called onhand in the current one must not be imported instead.
        process = subprocess.Popen(  # noqa: S603 - a module of ours, given by a caller of ours
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=fds,
        )
        watch = nullcontext() if watching is None else watching(process.pid)
        try:
            with watch:
                events, times = _listen(cast(IO[bytes], process.stdout), on_event)
                code = process.wait()
        finally:
            process.kill()
            process.wait()
            cast(IO[bytes], process.stdout).close()
        if code != 0 or not events:
            raise EngineError(f"{what} {_why(code, complaints)}")
    came = [at - begun for event, at in zip(events, times, strict=True) if event["event"] == first]
    return Events(
        all=tuple(events),
        first_s=came[-1] if came else 0.0,
        times_s=tuple(at - begun for at in times),
    )


def _listen(
    lines: IO[bytes], on_event: Callable[[Event], None] | None
) -> tuple[list[Event], list[float]]:
    events: list[Event] = []
    times: list[float] = []
    for line in lines:
        now = time.perf_counter()
        if not line.endswith(b"\n"):
            break  # it died while writing
        event = json.loads(line)
        events.append(event)
        times.append(now)
        if on_event is not None and event["event"] in _STEPS:
            on_event(event)
    return events, times


def _why(code: int, complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read().decode(errors="replace").splitlines()]
    said = next((line for line in reversed(lines) if line), "")
    if code < 0:
        ended = f"was killed by signal {-code}"
        return f"{ended}: {said or 'was there enough memory?'}"
    return f"ended with code {code}: {said or 'it gave no reason'}"


def job_text(job: "DataclassInstance") -> str:
    """Write what a process is to do as JSON, which it reads from its standard input.

    Args:
        job: a dataclass of plain values.
    """
    return json.dumps(asdict(job))


def serve_job(run: Callable[[str, TextIO], None]) -> int:
    """Read a job from the standard input and do it.

    Args:
        run: does it, given the job's text and where its events go.

    Returns:
        The exit code: 0, or 1 with the reason as the last line of the standard error.
    """
    # Events keep the pipe to themselves; what anything else prints goes to the standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    take_over(sys.argv[1:])
    try:
        run(sys.stdin.read(), out)
    except OnhandError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def print_event(out: TextIO, event: Event) -> None:
    """Print one event at once.

    Args:
        out: where to.
        event: its kind as "event", and its figures.
    """
    out.write(json.dumps(event) + "\n")
    out.flush()


def peak_memory_bytes(root: Path = Path("/")) -> int:
    """Return the highest resident memory that this process has had.

    Args:
        root: folder that holds `proc`.

    Returns:
        Bytes: the kernel's high-water mark on Linux, else what the system's accounting says.
    """
    try:
        status = (root / "proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s*([0-9]+) kB$", status, re.MULTILINE):
        return int(found[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
