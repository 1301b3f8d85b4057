"""Work for executors: functions that other processes can import."""

import os
import signal
import time
from pathlib import Path

from onhand.core.errors import InputError


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


def refuse(number: int) -> int:
    """Fail as a caller's error does."""
    raise InputError(f"{number} is refused")


def break_down(number: int) -> int:
    """Fail as a mistake of ours does."""
    raise ZeroDivisionError(f"{number} broke it")


def die_once(place: str) -> int:
    """Be killed at the first call, as by a lack of memory; answer at the next."""
    mark = Path(place)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(mark.name)


def die(_: str) -> int:
    """Be killed each time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def die_if_named(place: str) -> str:
    """Be killed where the item is called so."""
    if place == "deadly":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return place


def wait_for(place: str) -> str:
    """Say on which node of a cluster it began, and wait until it may end."""
    import ray

    folder, _, name = place.rpartition("/")
    node = ray.get_runtime_context().get_node_id()
    (Path(folder) / f"begun-{name}-{node}").touch()
    until = time.monotonic() + 60
    while not (Path(folder) / "go").exists() and time.monotonic() < until:
        time.sleep(0.02)
    return name
