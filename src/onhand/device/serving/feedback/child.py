"""The process that learns for a server: started, told to end, and heard."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from onhand.core.errors import InputError
from onhand.core.outside import parse_json
from onhand.device.learning.idle_child import Job
from onhand.device.vault.handing import handed_key

__all__ = ["LearningProcess", "StartLearning", "start_learning"]

_LOG = logging.getLogger("onhand.serving.learning")
_MOST_LINE_BYTES = 2**20
_TAIL_BYTES = 2000
_PATIENCE_S = 60.0


class LearningProcess(Protocol):
    """A training that runs elsewhere."""

    @property
    def process(self) -> int:
        """Number of the process."""
        ...

    async def ended(self) -> Mapping[str, object]:
        """Wait for its end, and return what it said."""
        ...

    def tell_to_end(self) -> None:
        """Let it end after the step that it is in."""
        ...

    async def end(self) -> None:
        """Let it end, and see to it that it does."""
        ...


class StartLearning(Protocol):
    """Starts a training, as `start_learning` does."""

    async def __call__(self, job: Job) -> LearningProcess:
        """Return it, running."""
        ...


class _Child:
    """See `LearningProcess`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def process(self) -> int:
        """See `LearningProcess`."""
        return self._process.pid

    async def ended(self) -> Mapping[str, object]:
        """See `LearningProcess`."""
        out, err = self._process.stdout, self._process.stderr
        if out is None or err is None:
            return _failed("it has no output")
        said, complaints = await asyncio.gather(out.read(_MOST_LINE_BYTES), err.read())
        code = await self._process.wait()
        tail = complaints[-_TAIL_BYTES:].decode(errors="replace").strip()
        if tail:
            _LOG.warning("learning: %s", tail)
        try:
            value = parse_json(said.strip().rpartition(b"\n")[2])
        except InputError:
            return _failed(f"the process ended with {code}: {tail.rpartition(chr(10))[2]}")
        return dict(value) if isinstance(value, dict) else _failed("it said no object")

    def tell_to_end(self) -> None:
        """See `LearningProcess`."""
        # It may have ended by itself just now.
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def end(self) -> None:
        """See `LearningProcess`."""
        self.tell_to_end()
        try:
            await asyncio.wait_for(self._process.wait(), _PATIENCE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def start_learning(job: Job) -> LearningProcess:
    """Start a process that learns.

    Args:
        job: what.

    Returns:
        It; its stdin stays open as long as this process lives.

    Raises:
        OSError: if the system starts no process.
        VaultError: if there is a vault, and it is locked or damaged.
    """
    key = await asyncio.to_thread(handed_key, Path(job.home))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "onhand.device.learning.idle_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if process.stdin is not None:
        # By the pipe: other programs may read what a process is started with.
        process.stdin.write(job.rendered(key))
        await process.stdin.drain()
    return _Child(process)


def _failed(why: str) -> Mapping[str, object]:
    return {"ended": "failed", "why": why}
