"""A process of its own that tries what else may compute: a driver that crashes ends only it."""

import functools
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.profile_parts import Provider
from onhand.core.tables import filled
from onhand.device.hardware.providers import find_providers
from onhand.device.measured import print_event, serve_job

__all__ = ["main", "parse_providers", "providers_here"]

LIMIT_S: Final = 30.0
_MODULE: Final = "onhand.device.hardware.provider_child"


@functools.cache
def providers_here() -> tuple[Provider, ...]:
    """Return what else may compute on this device; asked once in a process.

    Returns:
        As `find_providers`; where trying them ends badly, one that is called so and not usable.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a module of ours
            [sys.executable, "-P", "-m", _MODULE],
            input=b"",
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (_broken(f"trying it took more than {LIMIT_S:g} s"),)
    if done.returncode != 0:
        return (_broken(f"trying it ended with code {done.returncode}"),)
    return parse_providers(done.stdout.decode(errors="replace"))


def parse_providers(text: str) -> tuple[Provider, ...]:
    """Read what the process printed.

    Args:
        text: one JSON object with a list of providers.

    Returns:
        The providers.

    Raises:
        InputError: if it is not that.
    """
    try:
        listed = json.loads(text)["providers"]
        return tuple(
            filled(
                Provider, {**one, "falls_back": tuple(one["falls_back"])}, where="what was tried"
            )
            for one in listed
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"what trying accelerators printed cannot be read: {error}") from error


def main() -> int:
    """Try everything and print it as one line; returns the exit code."""
    return serve_job(
        lambda _, out: print_event(
            out,
            {"event": "tried", "providers": [asdict(one) for one in find_providers(Path("/"))]},
        )
    )


def _broken(why: str) -> Provider:
    return Provider(name="unknown", package="onnxruntime", note=why)


if __name__ == "__main__":
    sys.exit(main())
