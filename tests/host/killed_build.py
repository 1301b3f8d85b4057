"""Build a bundle and kill this process in the middle: no handler runs, nothing is tidied up.

Usage: python -m tests.host.killed_build SOURCE TEXT OUT HOME STAGE COUNT
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from tests.host.stub_bench import VALUES, stub_bench

from onhand.host import build, prove
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize


class Killing:
    """Kills the process at the n-th step of a stage. See `Progress`."""

    def __init__(self, stage: str, count: int) -> None:
        self._stage, self._count, self._now = stage, count, ""

    def start(self, what: str, total: float) -> None:
        """Remember the stage."""
        self._now = what

    def advance(self, amount: float) -> None:
        """Count, and kill."""
        if self._stage in self._now:
            self._count -= 1
            if self._count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text: str) -> None:
        """Nothing."""


def transforms() -> dict[str, Quantize]:
    """Two variants, one of them by all pairs of inputs."""
    return {"int4": Quantize(method="gptq"), "int8": Quantize(bits=8, method="rtn")}


def main() -> None:
    """Build as told on the command line."""
    source, text, out, home, stage, count = sys.argv[1:]
    prove.bench = partial(stub_bench, VALUES)  # type: ignore[attr-defined]
    options = BuildOptions(
        transforms=transforms(),
        calibrate=Path(text),
        threads=1,
        measure_original=False,
        try_ways=False,
    )
    build.build_bundle(
        source, Path(out), options, home=Path(home), progress=Killing(stage, int(count))
    )


if __name__ == "__main__":
    main()
