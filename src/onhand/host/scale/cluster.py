"""Work on a cluster that Ray runs. It schedules and restarts; we write no scheduler."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import importlib.util
import io
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from onhand.core.errors import EngineError, InputError, OnhandError, ResourceError
from onhand.host.scale.executor import RETRIES, Lost, in_slot

__all__ = ["RESOURCE", "RayExecutor", "RayWords", "task_needs"]

RESOURCE: Final = "onhand"
"""A cluster whose nodes have this says where, and how many at once, what is timed may run."""
_ANSWER_S: Final = 10.0
_RETRY: Final = re.compile(r"will be retried\. Error: ([^.]+)")
_T = TypeVar("_T")
_R = TypeVar("_R")


def task_needs(nodes: Sequence[Mapping[str, Any]], at_once: int) -> dict[str, object]:
    """Say what one piece of work takes of a node, so that no more run there than may.

    Args:
        nodes: as Ray lists them.
        at_once: pieces that may run on a machine at once.

    Returns:
        Options of a task: a share of the resource `onhand` where nodes have it, else processors:
        a share of the smallest node's.

    Raises:
        ResourceError: if no node that lives has processors.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(RESOURCE in resources for resources in alive):
        return {"num_cpus": 0, "resources": {RESOURCE: 1 / at_once}}
    cpus = [resources["CPU"] for resources in alive if resources.get("CPU", 0) > 0]
    if not cpus:
        raise ResourceError("the cluster has no node with processors: start one with ray start")
    share = min(cpus) / at_once
    return {"num_cpus": int(share) if share >= 1 else share}


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """Works on a cluster. See `Executor`.

    The workers have the same onhand installed; paths in the items are theirs.

    Attributes:
        address: of the cluster: "auto", "HOST:PORT", "ray://HOST:PORT", or "local" for one of this
            machine alone.
        at_once: pieces on a machine at once.
        retries: how often a piece is begun anew whose worker died.
        tell: told, in a sentence, of what is begun anew and why.
    """

    address: str
    at_once: int = 1
    retries: int = RETRIES
    tell: Callable[[str], None] | None = None

    def map(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        *,
        on_done: Callable[[int, _R | Lost], None] | None = None,
    ) -> list[_R | Lost]:
        """See `Executor`."""
        with redirect_stdout(RayWords(self.tell)), _connected(self.address) as ray:
            needs = task_needs(ray.nodes(), self.at_once)
            task = ray.remote(max_retries=self.retries, **needs)(in_slot)
            begun = {
                task.remote(work, item, self.at_once): number for number, item in enumerate(items)
            }
            found: dict[int, _R | Lost] = {}
            while begun:
                ready, _ = ray.wait(list(begun), num_returns=1)
                for reference in ready:
                    number = begun.pop(reference)
                    found[number] = cast("_R | Lost", _result(ray, reference, self.retries))
                    if on_done is not None:
                        on_done(number, found[number])
        return [found[number] for number in range(len(items))]


class RayWords(io.TextIOBase):
    """What Ray prints to the standard output, where only results belong: retries are told.

    Args:
        tell: told of each; None for no one.
    """

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell

    def write(self, text: str) -> int:
        """Tell of what is begun anew, and drop dumps of Ray's state."""
        for line in text.splitlines():
            found = _RETRY.search(line)
            if found is not None and self._tell is not None:
                self._tell(f"a worker died, its trial begins anew: {found[1]}")
        return len(text)


def _result(ray: Any, reference: object, retries: int) -> object:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OnhandError):
            raise error.cause from error
        said = str(error.cause or error).strip().splitlines()
        raise EngineError(f"on a worker of the cluster: {said[-1] if said else error}") from error
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()
        why = said[0] if said else type(error).__name__
        return Lost(f"its worker died {retries + 1} times: {why}")


def _check_listens(address: str) -> None:
    # Ray itself would try a wrong address for minutes.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise ResourceError(f"--ray {address}: no cluster can be reached: {told}") from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    if importlib.util.find_spec("ray") is None:
        raise InputError('--ray needs ray, which is not installed: pip install "onhand[ray]"')
    _check_listens(address)
    import ray

    own = {"include_dashboard": False} if address == "local" else {}
    if own:
        # A cluster of ours tells no one of its use.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()
        why = said[0] if said else type(error).__name__
        raise ResourceError(f"--ray {address}: no cluster can be reached: {why}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
