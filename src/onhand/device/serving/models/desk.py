"""What the threads of a shelf share: its places, one lock around them, and who waits for what."""

import threading
from collections.abc import Callable

from onhand.core.errors import EngineUnavailable
from onhand.device.serving.models.memory import Hold
from onhand.device.serving.models.places import OpenModel, Place, Places, no_turn
from onhand.device.serving.refusals import RefusedRequest

__all__ = ["Account", "Desk", "Lease"]

_POLL_S = 0.1  # how soon a thread that waits for memory sees that its client has left


class Desk:
    """The places of a shelf behind a lock. May be shared between threads.

    Attributes:
        places: only to be touched with the lock.
        lock: of all of it.
        work: who waits for something to do.
        room: answers that wait for memory.
        clock: seconds that only grow.
        most_wait_s: seconds that a request waits for memory.
        is_closed: whether all of it is about to end.
    """

    def __init__(self, total_bytes: int, *, most_wait_s: float, clock: Callable[[], float]) -> None:
        """Start without places.

        Args:
            total_bytes: what all may take.
            most_wait_s: seconds that a request waits for memory.
            clock: seconds that only grow.
        """
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.places = Places(total_bytes, most_wait_s=most_wait_s)
        self.most_wait_s = most_wait_s
        self.clock = clock
        self.is_closed = False
        self._has_news = True

    def tell_all(self) -> None:
        """Say that something has changed; with the lock."""
        self.call_worker()
        self.room.notify_all()

    def call_worker(self) -> None:
        """Say that there may be something to do; with the lock."""
        self._has_news = True
        self.work.notify_all()

    def await_news(self, most_s: float) -> None:
        """Wait until there may be something to do, which may have been so already."""
        with self.lock:
            if not self._has_news and not self.is_closed:
                self.work.wait(most_s)
            self._has_news = False

    def check_open(self) -> None:
        """Refuse requests at the end.

        Raises:
            EngineUnavailable: if all of it is about to end.
        """
        if self.is_closed:
            raise EngineUnavailable("the models are closed")

    def release(self, place: Place) -> None:
        """Note that an answer ended."""
        with self.lock:
            self.places.release(place, self.clock())
            self.tell_all()

    def count(self, place: Place, n_bytes: int) -> None:
        """Note that answers of a model take more, or below 0, less."""
        with self.lock:
            self.places.count(place, n_bytes)
            self.tell_all()


class Lease:
    """A model that one answer uses. It is not closed before it is released.

    Attributes:
        model: it.
        fingerprint: of the model, as in `onhand.device.serving.asks.TextModel`.
    """

    def __init__(self, model: OpenModel, place: Place, desk: Desk) -> None:
        """Take over what was granted."""
        self.model = model
        self.fingerprint = place.facts.fingerprint
        self._place = place
        self._desk: Desk | None = desk

    def release(self) -> None:
        """Note that the answer ended; safe to call twice."""
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.release(self._place)


class Account:
    """See `SessionMemory`: of one place."""

    def __init__(self, desk: Desk, place: Place) -> None:
        """Ask for one model's answers."""
        self._desk = desk
        self._place = place

    def hold(self, *, known: int, most: int, is_wanted: Callable[[], bool]) -> Hold:
        """See `SessionMemory`.

        Raises:
            EngineUnavailable: if nobody waits for the answer any more.
            RefusedRequest: if there is no room in time, or never will be.
        """
        size = self._place.facts.footprint.session_bytes
        known_bytes, most_bytes = size(known), size(max(known, most))
        desk, places, place = self._desk, self._desk.places, self._place
        with desk.lock:
            places.check_hold(place, most_bytes)
            # It is there already, and counts from now on whether or not the rest is found.
            places.count(place, known_bytes)
            begun_s = desk.clock()
            try:
                while not places.hold(place, most_bytes - known_bytes, desk.clock()):
                    if not is_wanted() or desk.is_closed or place.is_ended:
                        raise EngineUnavailable("nobody waits for the answer any more")
                    if desk.clock() >= begun_s + desk.most_wait_s:
                        raise RefusedRequest(no_turn())
                    desk.call_worker()  # a model may have to be closed
                    desk.room.wait(_POLL_S)
            except BaseException:
                places.count(place, -known_bytes)
                raise
        return _Held(desk, place, most_bytes)


class _Held:
    """See `Hold`."""

    def __init__(self, desk: Desk, place: Place, n_bytes: int) -> None:
        self._desk: Desk | None = desk
        self._place = place
        self._n_bytes = n_bytes

    def release(self) -> None:
        """See `Hold`."""
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.count(self._place, -self._n_bytes)
