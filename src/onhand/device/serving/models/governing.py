"""A bundle on this device as a governor sees it: threads, limits and a ceiling that change."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from onhand.core.errors import ResourceError
from onhand.device.batching import Batcher
from onhand.device.engines.base import Loaded, ThreadsLoaded
from onhand.device.serving.governor.governed import Extent
from onhand.device.serving.governor.setting import Setting
from onhand.device.step_log import BatchLoad

__all__ = ["GovernedBatcher"]


class GovernedBatcher:
    """See `Governable`. May be shared between threads.

    Attributes:
        name: what requests call the model.
        extent: how it computes when nothing presses.
        ceiling: most tokens of a new answer and its prompt; 0 for as many as the context holds.
    """

    def __init__(
        self,
        name: str,
        loaded: Loaded,
        batcher: Batcher,
        *,
        context: int,
        speculates: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is set now for the usual.

        Args:
            name: what requests call the model.
            loaded: its weights.
            batcher: what computes its answers.
            context: most tokens of prompt and answer together.
            speculates: whether an answer that runs alone is drafted from its own text.
            clock: what deadlines are on: that of event loops.
        """
        self.name = name
        self.ceiling = 0
        self._loaded = loaded
        self._batcher = batcher
        self._usual = batcher.limits
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines_s: list[float] = []
        self.extent = Extent(
            threads=loaded.most_threads if isinstance(loaded, ThreadsLoaded) else 1,
            max_active=self._usual.max_active,
            max_stall=self._usual.max_stall,
            context=context,
            speculates=speculates and batcher.stepper.can_draft,
        )
        if self.extent.speculates:
            batcher.stepper.draft_alone()

    def nearest_deadline_s(self) -> float | None:
        """See `Governable`."""
        with self._lock:
            nearest = min(self._deadlines_s, default=None)
        return None if nearest is None else nearest - self._clock()

    @contextmanager
    def expecting(self, deadline_s: float | None) -> Iterator[None]:
        """Know of an answer's deadline as long as the block runs.

        Args:
            deadline_s: on the clock of event loops; None for none.
        """
        if deadline_s is None:
            yield
            return
        with self._lock:
            self._deadlines_s.append(deadline_s)
        try:
            yield
        finally:
            with self._lock:
                self._deadlines_s.remove(deadline_s)

    def work(self) -> BatchLoad:
        """See `Governable`."""
        return self._batcher.load()

    def govern(self, setting: Setting) -> None:
        """See `Governable`.

        Raises:
            OnhandError: if the weights are closed, or the system gives no more threads.
        """
        self.ceiling = 0 if setting.context >= self.extent.context else setting.context
        limits = replace(
            self._usual,
            max_active=min(setting.max_active, self._usual.max_active),
            # What no longer runs at once may wait instead: as many requests are let in as before.
            max_waiting=self._usual.max_waiting
            + max(self._usual.max_active - setting.max_active, 0),
            max_stall=min(setting.max_stall, self._usual.max_stall),
        )
        if limits != self._batcher.limits:
            self._batcher.use_limits(limits)
        if setting.speculation and self.extent.speculates:
            self._batcher.stepper.draft_alone()
        else:
            self._batcher.stepper.draft_no_more()
        loaded = self._loaded
        if isinstance(loaded, ThreadsLoaded):
            threads = min(setting.threads, loaded.most_threads)
            if threads != loaded.threads:
                loaded.use_threads(threads)

    def max_tokens(self, n_prompt: int, wanted: int | None) -> int | None:
        """Return how many tokens an answer may have under the ceiling.

        Args:
            n_prompt: tokens of its prompt.
            wanted: as many as the request asks for; None for as many as there is room for.

        Returns:
            `wanted`, or what the ceiling leaves where nothing was asked for.

        Raises:
            ResourceError: if it asks for more than the device has room for at the moment.
        """
        ceiling = self.ceiling
        if not ceiling:
            return wanted
        if n_prompt + (wanted or 1) > ceiling:
            raise ResourceError(
                f"the device is short of memory, and takes {ceiling} tokens of prompt and answer "
                f"at the moment; {n_prompt} and {wanted or 1} are asked for: ask again later, or "
                f"for less"
            )
        return ceiling - n_prompt if wanted is None else wanted
