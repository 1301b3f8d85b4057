"""A converter in a process of its own, so that what it loads and changes ends with it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onhand.core.errors import SourceError

__all__ = ["convert_in_child"]


def convert_in_child(
    module: str, source: Path, target: Path, *, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run `python -m MODULE SOURCE TARGET`.

    Args:
        module: one of ours; it writes TARGET, prints a JSON object as its last line, and ends
            with 0.
        source: what it reads.
        target: what it writes.
        environment: variables beside our own.

    Returns:
        The object.

    Raises:
        SourceError: with its last words, if it ends otherwise.
    """
    command: Sequence[str] = [sys.executable, "-m", module, str(source), str(target)]
    done = subprocess.run(  # noqa: S603 - our own module; the paths are arguments, not a shell's
        command,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        text=True,
    )
    if done.returncode or not target.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else f"{module} ended with {done.returncode}"
        raise SourceError(said[:500])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
