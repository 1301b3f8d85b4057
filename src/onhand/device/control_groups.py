"""The control groups of Linux that this process is in: files that say what it may use.

Everything is read under a `root`, so that a test can show any machine. A file that is missing or
cannot be understood says nothing.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["groups", "read_text", "whole_number"]

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    """A mounted hierarchy of control groups: the part below `shows` appears at `place`."""

    kind: str
    shows: str
    place: Path
    options: frozenset[str]


def groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the process's group of a controller and every group around it, v1 and v2.

    Args:
        controller: as v1 names it, such as "memory".
        root: folder that holds `proc` and `sys`.

    Yields:
        Folders with the group's files, the innermost first in each hierarchy.
    """
    mounts = list(_mounts(root))
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _upwards(path, mounts, lambda mount: mount.kind == "cgroup2")
        elif controller in controllers.split(","):
            yield from _upwards(
                path,
                mounts,
                lambda mount: mount.kind == "cgroup" and controller in mount.options,
            )


def _upwards(path: str, mounts: list[_Mount], wanted: Callable[[_Mount], bool]) -> Iterator[Path]:
    for mount in filter(wanted, mounts):
        # A container may see its own group as the mount's top ("shows"), under another name, or
        # not at all: then the top of the mount is all that can be read.
        shown = mount.shows.rstrip("/")
        inside = path.removeprefix(shown) if f"{path}/".startswith(f"{shown}/") else ""
        parts = [part for part in inside.split("/") if part]
        if ".." in parts:
            parts = []
        for depth in range(len(parts), -1, -1):
            yield mount.place.joinpath(*parts[:depth])


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) > 4 and len(right) > 2 and right[0] in {"cgroup", "cgroup2"}:
            yield _Mount(
                kind=right[0],
                shows=_unescape(left[3]),
                place=root / _unescape(left[4]).lstrip("/"),
                options=frozenset(right[2].split(",")),
            )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def whole_number(text: str) -> int | None:
    """Return a whole number that a text is, spaces around it aside; None for any other text."""
    stripped = text.strip()
    return int(stripped) if re.fullmatch(r"-?[0-9]{1,20}", stripped) else None


def read_text(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
