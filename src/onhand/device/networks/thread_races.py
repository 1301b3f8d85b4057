"""How many threads run a network quickest: fewer may be, and leave the rest to others."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from onhand.core.bundle import Bundle
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.device.adapting.choosing import LAST_RESORT, thread_counts
from onhand.device.adapting.fingerprints import fingerprint
from onhand.device.adapting.races import Race, keep_race, recall_race
from onhand.device.networks.base import NetworkEngine, NetworkLoaded
from onhand.device.networks.choosing import open_and_run
from onhand.device.networks.timing import random_feeds, time_interleaved

__all__ = ["ThreadRaces"]

_BUDGET_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRaces:
    """Finds the number of threads of a variant once, and remembers it.

    Attributes:
        bundle: of a network.
        variant: one of its variants.
        profile: what this device has.
        most: threads that a run may have.
        home: the state folder; None to use the most.
        progress: told of what cannot be kept.
    """

    bundle: Bundle
    variant: str
    profile: DeviceProfile
    most: int
    home: Path | None
    progress: Progress | None = None

    def known(self, name: str) -> int:
        """Return the threads of an engine, as far as is remembered.

        Args:
            name: of the engine.
        """
        done = self.recalled(name)
        return self.most if done is None else int(done.winner())

    def recalled(self, name: str) -> Race | None:
        """Return what an engine took with each number of threads, None where nobody timed it.

        Args:
            name: of the engine.
        """
        if self.home is None:
            return None
        done = recall_race(self.home, self.bundle, self._name(name))
        return done if done is not None and done.latency_s else None

    def settle(
        self, name: str, engine: NetworkEngine, loaded: NetworkLoaded
    ) -> tuple[NetworkLoaded, int]:
        """Time an open network with fewer threads, where nobody has.

        Args:
            name: of the engine.
            engine: the same.
            loaded: opened with `known` threads; closed if another takes its place.

        Returns:
            The network as it is quickest, and its threads.

        Raises:
            EngineError: if it cannot be opened again.
        """
        # An accelerator, and numpy, do not take the threads that they are given.
        if self.home is None or self.most == 1 or name == LAST_RESORT or ":" in name:
            return loaded, self.most
        if self.recalled(name) is not None:
            return loaded, self.known(name)
        kept, done = self._race(engine, loaded)
        what = "the choice of threads"
        shown = self.progress or Quiet()
        keep_race(self.home, self.bundle, self._name(name), done, what=what, progress=shown)
        return kept, int(done.winner())

    def _race(self, engine: NetworkEngine, loaded: NetworkLoaded) -> tuple[NetworkLoaded, Race]:
        feeds = random_feeds(self.bundle.manifest.network)
        opened = {self.most: loaded}
        with ExitStack() as closing:
            closing.callback(loaded.close)
            for n in thread_counts(self.most)[1:]:
                opened[n] = open_and_run(engine, self.bundle, self.variant, feeds, threads=n)
                closing.callback(opened[n].close)
            runs: dict[str, Callable[[], object]] = {
                str(n): partial(one.run, feeds) for n, one in sorted(opened.items())
            }
            times = time_interleaved(runs, budget_s=_BUDGET_S)
            closing.pop_all()
        done = Race(latency_s={n: median(taken) for n, taken in times.items()}, failed={})
        best = opened.pop(int(done.winner()))
        for one in opened.values():
            one.close()
        return best, done

    def _name(self, engine: str) -> str:
        facts = {"engine": engine, "variant": self.variant}
        return fingerprint("network-threads", facts, self.profile, threads=self.most)
