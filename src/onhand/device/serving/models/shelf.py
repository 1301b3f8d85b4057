"""Models that share one budget of memory: opened when they are asked, closed when others are."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onhand.core.errors import EngineUnavailable, InputError, OnhandError
from onhand.device.free_memory import free_memory
from onhand.device.resident import resident_bytes
from onhand.device.serving.models.changing import changed_in_place
from onhand.device.serving.models.desk import Desk, Lease
from onhand.device.serving.models.opener import Opener, OpenServed
from onhand.device.serving.models.opening import open_served
from onhand.device.serving.models.place import Place, Ticket
from onhand.device.serving.models.room import budget_bytes
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.swapping import Swaps
from onhand.device.serving.models.versions import Entry, found_stamp, read_version, stamp_with
from onhand.device.serving.settings import ModelSettings

__all__ = ["Shelf"]

_LOG = logging.getLogger("onhand.serving")
# How soon a signal is seen where bundles are not watched: its handler cannot wake a thread.
_IDLE_S = 0.5


class Shelf:
    """All models of a server. May be shared between threads.

    One thread opens and closes models, one after the other, and looks whether bundles were
    replaced; whoever asks for a model that is open never waits for it.
    """

    def __init__(
        self,
        settings: ShelfSettings,
        *,
        memory_bytes: int = 0,
        home: Path | None = None,
        open_model: OpenServed = open_served,
        free_bytes: Callable[[], int] = lambda: free_memory().n_bytes,
        resident: Callable[[], int] = resident_bytes,
        clock: Callable[[], float] = time.monotonic,
        has_thread: bool = True,
    ) -> None:
        """Start without models.

        Args:
            settings: how models share the memory.
            memory_bytes: what all may take; 0 for what is free, less a margin.
            home: the state folder; None for the user's own.
            open_model: opens a bundle.
            free_bytes: what this process may still take.
            resident: what it has in use.
            clock: seconds that only grow; of what models remember as well.
            has_thread: False where somebody else calls `work`.
        """
        self._settings = settings
        self._home = home
        self._is_computed = memory_bytes == 0
        self._free_bytes = free_bytes
        self._desk = Desk(memory_bytes, most_wait_s=settings.most_wait_s, clock=clock)
        self._places = self._desk.places
        self._opener = Opener(
            self._desk, settings, home=home, open_model=open_model, resident=resident
        )
        self._swaps = Swaps(self._places, most_wait_s=settings.most_wait_s)
        self._entries: list[Entry] = []
        self._worker: threading.Thread | None = None
        self._has_thread = has_thread
        self._look_due = False
        self._looked_s = clock()
        self._refresh_budget()

    @property
    def total_bytes(self) -> int:
        """What all models may take."""
        return self._places.total_bytes

    @property
    def entries(self) -> Sequence[Entry]:
        """All that was added, in this order."""
        return tuple(self._entries)

    def taken_bytes(self) -> Mapping[str, int]:
        """Return what is taken, by what for: weights, sessions, remembered, caches."""
        with self._desk.lock:
            holders = [place.holder() for place in self._places if place.is_there]
            return {
                "weights": sum(one.weights_bytes for one in holders),
                "sessions": sum(one.sessions_bytes for one in holders),
                "remembered": sum(one.remembered_bytes for one in holders),
                "caches": self._places.set_aside_bytes,
            }

    def loaded_bytes(self, entry: Entry) -> int:
        """Return what the open models of an entry take."""
        with self._desk.lock:
            there = [place for place in entry.all_places() if place.is_there]
            return sum(place.holder().n_bytes for place in there)

    def counts(self) -> Mapping[str, float]:
        """Return how often models were opened and went to make room, and seconds of opening."""
        places = self._places
        return {
            "openings": places.n_opened,
            "evictions": places.n_evicted,
            "opening_seconds": places.opening_s,
        }

    def set_aside(self, n_bytes: int) -> None:
        """Keep a part of the budget for something else, such as a cache in memory.

        Raises:
            InputError: if nothing would be left for models.
        """
        with self._desk.lock:
            self._places.set_aside_bytes += n_bytes
        if (left := self._room_bytes()) <= 0:
            raise InputError(
                f"caches in memory leave {left} bytes for models: lower exact_bytes, warm_bytes or "
                f"semantic_bytes in [cache], or raise memory_bytes in [server]"
            )

    def add(self, settings: ModelSettings) -> Entry:
        """Read what is known of a bundle, without opening it.

        Args:
            settings: which, and how.

        Returns:
            What the models of `onhand.device.serving.models.shelved` are made of.

        Raises:
            InputError: if there is no such bundle.
            OnhandError: as in `read_version`.
        """
        version = read_version(settings, total_bytes=self._room_bytes(), home=self._home)
        entry = Entry(
            settings, version, found_stamp(settings, version, self._home), version.default
        )
        with self._desk.lock:
            self._entries.append(entry)
            if self._worker is None and self._has_thread and not self._desk.is_closed:
                self._worker = threading.Thread(target=self._run, name="onhand-shelf", daemon=True)
                self._worker.start()
        return entry

    def open_now(self, entry: Entry) -> None:
        """Open a model and wait until it is open; nobody has to ask it.

        Raises:
            OnhandError: why it could not be opened.
        """
        done = threading.Event()
        ticket = self._ask(entry, None, lambda _: done.set())
        try:
            done.wait()
        finally:
            self._withdraw(ticket)
        if ticket.error is not None:
            raise ticket.error

    def fits_beside(self, entry: Entry) -> bool:
        """Say whether a model can be opened without another one's going."""
        with self._desk.lock:
            return self._places.least_bytes(entry.place()) <= self._places.free_bytes

    def fits_alone(self, entry: Entry) -> bool:
        """Say whether a model can be opened at all."""
        return self._places.least_bytes(entry.place()) <= self._room_bytes()

    async def lease(self, entry: Entry, variant: str | None = None) -> Lease:
        """Return a model when it is open.

        Args:
            entry: which.
            variant: of its variants; None for the one that requests get.

        Returns:
            The model; release it.

        Raises:
            EngineUnavailable: if it is closed by now.
            OnhandError: why it could not be opened, or that there was no room in time.
        """
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(_: Ticket) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it who waited
                loop.call_soon_threadsafe(done.set)

        ticket = self._ask(entry, variant, tell)
        try:
            if not ticket.is_granted:
                await done.wait()
        except BaseException:
            self._withdraw(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        place = ticket.place
        if place is None or place.model is None:
            raise EngineUnavailable("the model was closed")
        return Lease(place.model, place, self._desk)

    def prefer_variant(self, entry: Entry, variant: str) -> None:
        """Let requests that name no variant get another one, as soon as it is open.

        Answers that run end on theirs. Where there is no room for both, new ones wait meanwhile.

        Args:
            entry: whose.
            variant: which.

        Raises:
            InputError: if there is no such variant that can be run here.
        """
        with self._desk.lock:
            if variant not in entry.version.places:
                known = ", ".join(sorted(entry.version.places))
                raise InputError(f"{entry.name}: no variant {variant!r} here; there are {known}")
            self._swaps.prefer(entry, variant, self._desk.clock())
            self._desk.tell_all()

    def look(self, entry: Entry, *, again: bool = False) -> bool:
        """See whether a bundle was replaced; if so, the new version is opened beside the old one.

        Args:
            entry: whose.
            again: whether one that could not be used is tried again.

        Returns:
            Whether there is another version, which answers as soon as it is open.
        """
        return self._look(entry, again=again, is_failing=False)

    def _look(self, entry: Entry, *, again: bool, is_failing: bool) -> bool:
        stamp, room = stamp_with(entry.settings, entry.version, self._home), self._room_bytes()
        with self._desk.lock:
            if again:
                entry.refused = None
            if stamp is None or stamp in {entry.stamp, entry.refused}:
                return False
            if entry.coming is not None and stamp == entry.coming.stamp:
                return True
        try:
            version = read_version(entry.settings, total_bytes=room, home=self._home)
            if changed_in_place(entry, version, self._desk, self._home):
                entry.stamp = stamp
                return True
        except OnhandError as error:
            entry.refused = stamp
            _LOG.warning("model %s: the new version cannot be used: %s", entry.name, error)
            return False
        with self._desk.lock:
            found = self._swaps.replace(
                entry, version, stamp, self._desk.clock(), is_failing=is_failing
            )
            self._desk.tell_all()
        return found

    def look_soon(self) -> None:
        """Have all bundles looked at by the worker; may be called by a signal's handler."""
        self._look_due = True  # no lock: the handler may have interrupted who holds it

    def break_off(self, entry: Entry) -> None:
        """End all answers of a model, and refuse those that wait for it."""
        with self._desk.lock:
            places = entry.all_places()
            for place in places:
                place.is_ended = True
                self._places.retire(place, None)
            models = [place.model for place in places if place.model is not None]
            self._desk.tell_all()
        for model in models:
            model.break_off()

    def close_entry(self, entry: Entry) -> None:
        """Break the answers of a model off and close it; safe to call twice."""
        self.break_off(entry)
        with self._desk.lock:
            if entry in self._entries:
                self._entries.remove(entry)
            closing = [one for one in entry.all_places() if one.stage == "leaving"]
            for place in closing:
                place.stage = "closing"
        for place in closing:
            self._opener.close(place)

    def close(self) -> None:
        """Close all models, and end the thread; safe to call twice."""
        with self._desk.lock:
            self._desk.is_closed = True
            worker, self._worker = self._worker, None
            self._desk.tell_all()
        if worker is not None:
            worker.join()
        for entry in self.entries:
            self.close_entry(entry)
        for place in self._places:
            if place.model is not None:
                self._opener.close(place)

    def work(self) -> bool:
        """Do one thing that is to be done; called by the worker.

        Returns:
            Whether there was one.
        """
        if self._is_look_due():
            self._look_at_all()
        with self._desk.lock:
            now_s = self._desk.clock()
            self._swaps.settle(self._entries, now_s)
            job = self._places.next_job(now_s)
            # What can never fit has failed by now.
            self._swaps.settle(self._entries, now_s)
        if job is None:
            return False
        if job.kind == "close":
            self._opener.close(job.place)
        else:
            self._open(job.place)
        return True

    def _open(self, place: Place) -> None:
        error = self._opener.open(place)
        if error is None:
            return
        # Where it was replaced a moment ago, those who wait go on to what lies there now.
        for entry in self.entries:
            if place in entry.version.places.values():
                self._look(entry, again=True, is_failing=True)
        with self._desk.lock:
            self._places.failed(place, error, self._desk.clock())
            self._desk.tell_all()

    def _ask(self, entry: Entry, variant: str | None, on_end: Callable[[Ticket], None]) -> Ticket:
        ticket = Ticket(self._desk.clock(), on_end)
        with self._desk.lock:
            self._desk.check_open()
            self._places.ask(entry.place(variant), ticket)
            if not ticket.is_granted:
                self._desk.tell_all()
        return ticket

    def _withdraw(self, ticket: Ticket) -> None:
        with self._desk.lock:
            self._places.withdraw(ticket, self._desk.clock())
            self._desk.tell_all()

    def _run(self) -> None:
        while not self._desk.is_closed:
            if not self.work():
                self._desk.await_news(self._patience_s())

    def _patience_s(self) -> float:
        now_s = self._desk.clock()
        times = [now_s + min(_IDLE_S, self._settings.watch_s or _IDLE_S)]
        if (due_s := self._places.due_s(now_s)) is not None:
            times.append(due_s)
        return max(0.005, min(times) - now_s)

    def _is_look_due(self) -> bool:
        watch_s = self._settings.watch_s
        return self._look_due or bool(watch_s and self._desk.clock() >= self._looked_s + watch_s)

    def _look_at_all(self) -> None:
        again, self._look_due = self._look_due, False
        self._looked_s = self._desk.clock()
        self._refresh_budget()
        for entry in self.entries:
            self.look(entry, again=again)

    def _refresh_budget(self) -> None:
        if not self._is_computed:
            return
        free = self._free_bytes()
        with self._desk.lock:
            places = self._places
            # What answers may take counts as taken, and so is not free, taken yet or not.
            held = sum(place.sessions_bytes for place in places) + places.set_aside_bytes
            places.total_bytes = budget_bytes(
                max(0, free - held),
                taken_bytes=places.taken_bytes,
                margin=self._settings.margin,
                margin_bytes=self._settings.margin_bytes,
            )
            places.shrink(self._desk.clock())

    def _room_bytes(self) -> int:
        return self._places.total_bytes - self._places.set_aside_bytes
