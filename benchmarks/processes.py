"""Engines that take turns, each in a process of its own, and processes that disturb them.

See `benchmarks.worker`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onhand.device.threads import usable_threads

__all__ = ["Worker", "busy", "half_busy"]

_SCRIPT = Path(__file__).with_name("worker.py")


class Worker:
    """One engine that holds one model; it does one job at a time."""

    def __init__(
        self,
        engine: str,
        folder: Path,
        threads: int,
        *,
        python: Path | str = sys.executable,
        script: Path = _SCRIPT,
    ) -> None:
        """Start it.

        Args:
            engine: as `benchmarks.worker` names them.
            folder: the model, a folder or a file.
            threads: of one step.
            python: the interpreter of the environment that holds the engine.
            script: what it runs.
        """
        self._process = subprocess.Popen(
            [str(python), str(script), engine, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **job: object) -> dict[str, Any]:
        """Do a job and return what it found.

        Raises:
            RuntimeError: if the process ends instead; what it said is above.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a worker has pipes")
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> dict[str, Any]:
        """End the process; return its peak memory in bytes and the seconds that opening took."""
        found = self.ask(end=True)
        self._process.wait()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # by what a process that ended never read
                    pipe.close()


@contextmanager
def half_busy() -> Iterator[None]:
    """Keep half of the usable cores busy, at least one, with processes that do nothing else."""
    with busy(max(usable_threads() // 2, 1)):
        yield


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Run some processes that do nothing but compute, as long as the block runs."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
