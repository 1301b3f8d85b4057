"""What else may compute here: found and tried in processes of their own, or named as absent."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onhand.core.profile_parts import Provider
from onhand.core.tables import filled
from onhand.device.hardware.known_providers import absent_providers
from onhand.device.hardware.reach import sources

__all__ = ["Ended", "find_providers", "run_child", "try_apart"]

_LIMIT_S: Final = 25.0
_MOST_RESTARTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process that tried providers ended.

    Attributes:
        lines: what it printed, each line as JSON.
        code: its exit code, negative for a signal; None if it was stopped at its limit.
    """

    lines: tuple[str, ...]
    code: int | None


Start = Callable[[str, Sequence[str], float], Ended]
"""Runs the process for a source, names to skip and seconds that it may take."""


def find_providers(
    root: Path,
    *,
    system: str,
    machine: str,
    limit_s: float = _LIMIT_S,
    start: Start | None = None,
    found: Sequence[str] | None = None,
) -> tuple[Provider, ...]:
    """Return every provider beside the processor's own: tried, or absent and what installs it.

    Args:
        root: folder that holds `sys`.
        system: as `DeviceProfile.system`.
        machine: as `DeviceProfile.machine`.
        limit_s: seconds that all of them may take together.
        start: tries a source; None for `run_child`.
        found: sources; None for `reach.sources`.

    Returns:
        Those that are there, usable or not, then those that are not.
    """
    given = sources() if found is None else tuple(found)
    tried: list[Provider] = []
    end_s = time.monotonic() + limit_s
    for n_left, source in zip(range(len(given), 0, -1), given, strict=True):
        # What one does not need is left for the others.
        share_s = max(end_s - time.monotonic(), 0.0) / n_left
        tried += try_apart(source, limit_s=share_s, start=start or run_child)
    installed = {word for source in given for word in (source.split(" ")[-1].replace("_", "-"),)}
    if importlib.util.find_spec("openvino") is not None:
        installed.add("openvino")
    absent = absent_providers(
        root,
        system=system,
        machine=machine,
        present=frozenset(one.name.split(".")[0] for one in tried),
        installed=frozenset(installed),
    )
    return (*tried, *absent)


def try_apart(source: str, *, limit_s: float, start: Start) -> Iterator[Provider]:
    """Yield the providers of one source, tried in a process that may break or hang.

    Args:
        source: one of `reach.sources`.
        limit_s: seconds until it is stopped.
        start: runs the process.

    Yields:
        Those that were tried; one that broke the process says at what, and the others are tried
        without it.
    """
    done: list[str] = []
    end_s = time.monotonic() + limit_s
    for _ in range(_MOST_RESTARTS):
        ended = start(source, tuple(done), max(end_s - time.monotonic(), 0.0))
        name, doing, is_broken = "", "starting", False
        for event in _events(ended.lines):
            if "trying" in event:
                name, doing = event["trying"]
            elif "broken" in event:
                is_broken = True
                yield _unusable(source, "", str(event["broken"]))
            elif "provider" in event:
                provider = filled(Provider, event["provider"], where=source)
                done.append(provider.name)
                yield provider
        if ended.code == 0 or is_broken:
            return
        yield _unusable(source, name, _why(ended.code, doing, limit_s))
        if not name or ended.code is None:
            return
        done.append(name)


def _events(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        # A library may have printed before the process could turn its output away.
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def run_child(source: str, skip: Sequence[str], limit_s: float) -> Ended:
    """Run `provider_child` for a source.

    Args:
        source: one of `reach.sources`.
        skip: names of providers to leave out.
        limit_s: seconds after which it is stopped.

    Returns:
        What it printed until then.
    """
    # -P: a folder called onhand in the current one must not be imported instead.
    command = [sys.executable, "-P", "-m", "onhand.device.hardware.provider_child"]
    process = subprocess.Popen(  # noqa: S603 - our own module; the job is no shell's
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    code: int | None = None
    job = json.dumps({"source": source, "skip": list(skip), "limit_s": limit_s})
    try:
        printed, _ = process.communicate(job, timeout=limit_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    finally:
        process.kill()
        process.wait()
    # A last line without its end was cut as it was written.
    whole = printed[: printed.rfind("\n") + 1]
    return Ended(lines=tuple(whole.splitlines()), code=code)


def _unusable(source: str, name: str, note: str) -> Provider:
    kind, _, rest = source.partition(" ")
    package = {"built-in": "onnxruntime", "plug-in": rest.replace("_", "-")}.get(kind, kind)
    return Provider(name=name or rest or kind, package=package, note=note)


def _why(code: int | None, doing: str, limit_s: float) -> str:
    if code is None:
        return f"gave no answer within {limit_s:.0f} s: {doing}"
    ended = f"signal {-code}" if code < 0 else f"code {code}"
    return f"broke its process ({ended}): {doing}"
