"""Memory over time: what a process holds while it opens a model, reads prompts and answers."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from onhand.core.errors import InputError

__all__ = ["MOST_POINTS", "MemorySeries", "MemoryWatch", "resident_of", "thin"]

MOST_POINTS: Final = 240
_EVERY_S = 0.02

Point = tuple[float, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySeries:
    """What a process held, from its start on.

    Attributes:
        points: seconds since its start, resident bytes; in order of time.
        phases: what began when: name, seconds since its start; in order of time.
        how: a command line that shows it again.
    """

    points: tuple[Point, ...]
    phases: tuple[tuple[str, float], ...]
    how: str

    def to_json(self) -> dict[str, object]:
        """Return a JSON object with every attribute."""
        return {
            "points": [list(point) for point in self.points],
            "phases": [list(phase) for phase in self.phases],
            "how": self.how,
        }


class MemoryWatch:
    """Looks at a process's memory again and again. One process, one thread of its own.

    Attributes:
        points: what was seen: seconds since watching began, resident bytes.
    """

    def __init__(
        self,
        *,
        look: Callable[[int], int | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        every_s: float = _EVERY_S,
    ) -> None:
        """Prepare.

        Args:
            look: process number -> its resident bytes, None once it has ended; None for
                `resident_of`.
            clock: seconds.
            every_s: seconds between two looks.
        """
        self.points: list[Point] = []
        self._look = look or resident_of
        self._clock = clock
        self._every_s = every_s

    @contextmanager
    def watching(self, process: int) -> Generator[None]:
        """Watch a process until the block or the process ends.

        Args:
            process: its number.
        """
        end = threading.Event()
        begun = self._clock()

        def look() -> None:
            while (found := self._look(process)) is not None:
                self.points.append((self._clock() - begun, found))
                if end.wait(self._every_s):
                    return

        thread = threading.Thread(target=look, name="memory-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


def resident_of(process: int) -> int | None:
    """Return the resident memory of a process.

    Args:
        process: its number.

    Returns:
        Bytes; None if it has ended.
    """
    import psutil

    try:
        found = int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return None
    # One that has ended and was not waited for yet holds nothing.
    return found or None


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Keep at most so many points, and of every stretch the highest.

    Args:
        points: in order of time.
        most: how many to keep, at least 1.

    Returns:
        Points of the series, the highest of all among them.

    Raises:
        InputError: if `most` is below 1.
    """
    if most < 1:
        raise InputError(f"{most} points: must be 1 or more")
    if len(points) <= most:
        return tuple(points)
    edges = [len(points) * i // most for i in range(most + 1)]
    stretches = (points[a:b] for a, b in pairwise(edges))
    return tuple(max(stretch, key=lambda point: point[1]) for stretch in stretches)
