"""Models that share a budget of memory: who is open, who waits, who goes. No threads, no clock."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, Protocol

from onhand.core.errors import EngineBusy, EngineUnavailable, OnhandError
from onhand.device.serving.models.facts import Facts
from onhand.device.serving.models.room import Holder, RoomPlan, plan_room
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = ["Job", "OpenModel", "Place", "Places", "Ticket", "no_turn", "too_large"]

Stage = Literal["closed", "wanted", "opening", "open", "leaving", "closing"]
# One that failed is not tried again for each request.
_PAUSE_S = 5.0


class OpenModel(Protocol):
    """What was opened."""

    @property
    def engine_name(self) -> str:
        """The engine that runs it."""
        ...

    @property
    def bundle_sha256(self) -> str:
        """Hash of the bundle's manifest: which version it is."""
        ...

    def remembered(self) -> Sequence[tuple[float, int]]:
        """Return when each conversation that is remembered was used last, and its bytes.

        The longest unused comes first.
        """
        ...

    def forget(self, n: int) -> None:
        """Forget as many of the longest unused conversations."""
        ...

    def break_off(self) -> None:
        """End all answers that run, and take no more."""
        ...

    def close(self) -> None:
        """Release what it holds; safe to call twice."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that waits for its model.

    Attributes:
        asked_s: since when.
        on_end: told once, when it was granted or refused.
        place: where it waits, or waited.
        number: of all that came, which this is.
        error: why it was refused.
        is_granted: whether the model answers it.
    """

    asked_s: float
    on_end: Callable[["Ticket"], None]
    place: "Place | None" = None
    number: int = 0
    error: OnhandError | None = None
    is_granted: bool = False


@dataclass(slots=True, eq=False)
class Place:
    """One variant of one version of a bundle.

    Attributes:
        facts: what is known of it.
        stage: "closed"; "wanted" by requests; "opening"; "open"; "leaving", which is open still
            and takes no more requests; "closing".
        model: it, while it is open or leaving.
        weights_bytes: what it takes when nobody asks it anything.
        measured_bytes: the same as it was found after opening; 0 where that was not possible.
        sessions_bytes: key/value memory of answers that run.
        n_leases: answers that run.
        used_s: when it was last asked, or an answer of it ended.
        opening_s: seconds that opening it took.
        stays_until_s: it goes no sooner.
        tickets: requests that wait for it, the first first.
        replaces: the version that it is opened beside, to take its place.
        is_retired: whether another version took its place.
        is_ended: whether its answers are broken off.
        failure: why it could not be opened, and until when that is told again.
    """

    facts: Facts
    stage: Stage = "closed"
    model: OpenModel | None = None
    weights_bytes: int = 0
    measured_bytes: int = 0
    sessions_bytes: int = 0
    n_leases: int = 0
    used_s: float = 0.0
    opening_s: float = 0.0
    stays_until_s: float = 0.0
    tickets: list[Ticket] = field(default_factory=list)
    replaces: "Place | None" = None
    is_retired: bool = False
    is_ended: bool = False
    failure: tuple[OnhandError, float] | None = None

    @property
    def is_there(self) -> bool:
        """Whether it takes memory."""
        return self.stage not in {"closed", "wanted"}

    @property
    def key(self) -> str:
        """Tells it from all others."""
        return f"{self.facts.name}:{self.facts.variant}@{self.facts.bundle_sha256}"

    def holder(self) -> Holder:
        """Return what it takes."""
        model = self.model
        return Holder(
            key=self.key,
            weights_bytes=self.weights_bytes,
            sessions_bytes=self.sessions_bytes,
            remembered=() if model is None else tuple(model.remembered()),
            used_s=self.used_s,
            n_leases=self.n_leases,
            stays_until_s=self.stays_until_s,
            is_open=self.stage == "open",
            is_leaving=self.stage in {"leaving", "closing"},
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done about a place, and takes a while.

    Attributes:
        kind: "open" or "close".
        place: which.
    """

    kind: Literal["open", "close"]
    place: Place


class Places:
    """All places, and what they may take together. One thread at a time.

    Attributes:
        total_bytes: what all may take; it may change at any time.
        set_aside_bytes: those of it that are for something else.
        n_evicted: models that went to make room.
        n_opened: models that were opened.
        opening_s: seconds that this took.
    """

    def __init__(self, total_bytes: int, *, most_wait_s: float) -> None:
        """Start with none.

        Args:
            total_bytes: what all may take.
            most_wait_s: seconds that a request waits for memory.
        """
        self.total_bytes = total_bytes
        self.set_aside_bytes = 0
        self.n_evicted = self.n_opened = 0
        self.opening_s = 0.0
        self._most_wait_s = most_wait_s
        self._places: list[Place] = []
        self._numbers = count(1)

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._places))

    @property
    def taken_bytes(self) -> int:
        """What all take."""
        return self.set_aside_bytes + sum(one.n_bytes for one in self._holders())

    @property
    def free_bytes(self) -> int:
        """What may still be taken; below 0 where the budget shrank."""
        return self.total_bytes - self.taken_bytes

    def ask(self, place: Place, ticket: Ticket) -> None:
        """Let a request have a model, now or when it is open.

        Raises:
            EngineBusy: if as many requests wait for it as may.
            OnhandError: why it could not be opened a moment ago.
        """
        now_s = ticket.asked_s
        ticket.place = place
        ticket.number = ticket.number or next(self._numbers)
        if place.stage == "open":
            self._grant(place, ticket, now_s)
            return
        if place.failure is not None and place.stage == "closed":
            error, until_s = place.failure
            if now_s < until_s:
                known: OnhandError = _again(error)
                raise known
        most = place.facts.settings.max_waiting
        if len(place.tickets) > most:
            raise EngineBusy(f"{len(place.tickets)} requests wait for the model, at most {most}")
        if place not in self._places:
            self._places.append(place)
        place.tickets.append(ticket)
        if place.stage == "closed":
            place.stage = "wanted"

    def want_beside(self, place: Place, replaces: Place) -> None:
        """Let a version be opened beside another as soon as there is room, without a request."""
        self._places.append(place)
        place.replaces = replaces
        place.stage = "wanted"

    def release(self, place: Place, now_s: float) -> None:
        """Note that an answer ended."""
        place.n_leases -= 1
        place.used_s = now_s

    def withdraw(self, ticket: Ticket, now_s: float) -> None:
        """Note that nobody waits for a request any more, whether or not it was granted."""
        place = ticket.place
        if place is None:
            return
        if ticket.is_granted:
            self.release(place, now_s)
        elif ticket in place.tickets:
            place.tickets.remove(ticket)
            self.drop_unwanted(place)

    def check_hold(self, place: Place, n_bytes: int) -> None:
        """Refuse an answer for whose memory there never will be room.

        Args:
            place: its model.
            n_bytes: all that it may come to take.

        Raises:
            RefusedRequest: with both numbers.
        """
        room = self.total_bytes - self.set_aside_bytes - place.weights_bytes
        if n_bytes > room:
            raise RefusedRequest(_no_room(n_bytes, room))

    def hold(self, place: Place, n_bytes: int, now_s: float) -> bool:
        """Take memory for an answer if there is room, and make some where there is not.

        Args:
            place: its model, which it has leased.
            n_bytes: how much.
            now_s: the time.

        Returns:
            Whether it was taken; if not, there may be room when something has changed.
        """
        if n_bytes > self.free_bytes:
            self._carry_out(replace(self._plan(n_bytes, now_s), drain=()))
        if n_bytes > self.free_bytes:
            return False
        self.count(place, n_bytes)
        return True

    def count(self, place: Place, n_bytes: int) -> None:
        """Note that answers of a model take more, or below 0, less."""
        place.sessions_bytes += n_bytes

    def shrink(self, now_s: float) -> None:
        """Let go what can go, where less may be taken than was."""
        if self.free_bytes < 0:
            self._carry_out(replace(self._plan(0, now_s), drain=()))

    def retire(self, place: Place, successor: Place | None) -> None:
        """Let a place end with its last answer; those who wait go to another one.

        Args:
            place: which.
            successor: who takes its requests; None where the server ends.
        """
        place.is_retired = True
        waiting, place.tickets = place.tickets, []
        for ticket in waiting:
            if successor is None:
                _refuse(ticket, EngineUnavailable("the model is being closed"))
            else:
                try:
                    self.ask(successor, ticket)
                except OnhandError as error:
                    _refuse(ticket, error)
        if place.stage == "open":
            place.stage = "leaving"
        elif place.stage in {"closed", "wanted"}:
            place.stage = "closed"
            self._forget(place)

    def drop_unwanted(self, place: Place) -> None:
        """Note that a model may be wanted by nobody any more."""
        if place.stage == "wanted" and not place.tickets and place.replaces is None:
            place.stage = "closed"
            self._forget(place)

    def next_job(self, now_s: float) -> Job | None:
        """Return what is to be done now; None for nothing.

        Args:
            now_s: the time.

        Returns:
            The job. `opened`, `failed` or `closed` is to be called when it was done.
        """
        self._expire(now_s)
        self._take_back()
        for place in self._places:
            if place.stage == "open" and self._is_over(place, now_s):
                place.stage = "leaving"
        # Each marks what it returns as begun; the last is what the second has sent away.
        return self._closing() or self._opening(now_s) or self._closing()

    def due_s(self, now_s: float) -> float | None:
        """Return when `next_job` may have something to do though nothing has changed."""
        times: list[float] = []
        for place in self._places:
            if place.stage != "opening":
                times += [ticket.asked_s + self._most_wait_s for ticket in place.tickets[:1]]
            keep_s = place.facts.settings.keep_s
            if place.stage == "open" and place.n_leases == 0 and keep_s:
                times.append(max(place.used_s + keep_s, place.stays_until_s))
        if any(place.stage == "wanted" for place in self._places):
            times += [p.stays_until_s for p in self._places if p.stays_until_s > now_s]
        return min(times, default=None)

    def opened(
        self,
        place: Place,
        model: OpenModel,
        *,
        weights_bytes: int,
        opening_s: float,
        now_s: float,
        stay_s: float,
    ) -> None:
        """Note that a model was opened, and give it to those who wait.

        Args:
            place: whose.
            model: it.
            weights_bytes: what it took; 0 where that is not known.
            opening_s: seconds that it took.
            now_s: the time.
            stay_s: seconds that it stays at least.
        """
        self.n_opened += 1
        self.opening_s += opening_s
        place.opening_s = opening_s
        place.model = model
        place.measured_bytes = weights_bytes
        place.weights_bytes = weights_bytes or place.weights_bytes
        place.failure = None
        place.used_s, place.stays_until_s = now_s, now_s + stay_s
        if place.is_retired:
            place.stage = "leaving"
            return
        place.stage = "open"
        self._grant_all(place, now_s)

    def failed(self, place: Place, error: OnhandError, now_s: float) -> None:
        """Note that a model could not be opened, and tell those who wait."""
        place.stage, place.weights_bytes = "closed", 0
        place.failure = (_again(error), now_s + _PAUSE_S)
        waiting, place.tickets = place.tickets, []
        self._forget(place)
        for ticket in waiting:
            _refuse(ticket, error)

    def closed(self, place: Place) -> None:
        """Note that a model was closed."""
        place.stage, place.model, place.weights_bytes = "closed", None, 0
        place.sessions_bytes = place.n_leases = 0
        if place.tickets:
            place.stage = "wanted"
        else:
            self._forget(place)

    def least_bytes(self, place: Place) -> int:
        """Return what a model takes when nobody asks it anything, as far as is known."""
        return place.measured_bytes or place.facts.footprint.idle_bytes

    def _holders(self) -> list[Holder]:
        return [place.holder() for place in self._places if place.is_there]

    def _plan(self, need: int, now_s: float, *, without: Place | None = None) -> RoomPlan:
        total, holders = self.total_bytes - self.set_aside_bytes, self._holders()
        if without is not None and without.is_there:
            # It stays whatever happens: what it takes is not there for others.
            holders = [one for one in holders if one.key != without.key]
            total -= without.holder().n_bytes
        return plan_room(need, holders, total_bytes=total, now_s=now_s)

    def _carry_out(self, plan: RoomPlan) -> None:
        by_key = {place.key: place for place in self._places if place.is_there}
        for key, n in plan.forget.items():
            model = by_key[key].model
            if model is not None:
                model.forget(n)
        for key in (*plan.close, *plan.drain):
            by_key[key].stage = "leaving"
            self.n_evicted += 1

    def _grant(self, place: Place, ticket: Ticket, now_s: float) -> None:
        place.n_leases += 1
        place.used_s = now_s
        ticket.is_granted = True
        ticket.on_end(ticket)

    def _grant_all(self, place: Place, now_s: float) -> None:
        waiting, place.tickets = place.tickets, []
        for ticket in waiting:
            self._grant(place, ticket, now_s)

    def _expire(self, now_s: float) -> None:
        for place in tuple(self._places):
            if place.stage == "opening":
                continue  # they wait for it and not for memory
            late = [t for t in place.tickets if now_s >= t.asked_s + self._most_wait_s]
            for ticket in late:
                place.tickets.remove(ticket)
                _refuse(ticket, RefusedRequest(no_turn()))
            self.drop_unwanted(place)

    def _take_back(self) -> None:
        # Whoever wanted the room has left: a model that answers still may go on.
        if any(place.stage == "wanted" for place in self._places):
            return
        for place in self._places:
            if place.stage == "leaving" and place.n_leases and not place.is_retired:
                place.stage = "open"
                self._grant_all(place, place.used_s)

    def _is_over(self, place: Place, now_s: float) -> bool:
        keep_s = place.facts.settings.keep_s
        is_unused = keep_s > 0 and now_s - place.used_s >= keep_s and now_s >= place.stays_until_s
        return place.n_leases == 0 and (place.is_retired or is_unused)

    def _closing(self) -> Job | None:
        for place in self._places:
            if place.stage == "leaving" and place.n_leases == 0:
                place.stage = "closing"
                return Job("close", place)
        return None

    def _opening(self, now_s: float) -> Job | None:
        wanted = [place for place in self._places if place.stage == "wanted"]
        # Requests go before a version that nobody waits for yet.
        wanted.sort(key=lambda one: one.tickets[0].number if one.tickets else float("inf"))
        for number, place in enumerate(wanted):
            need = self.least_bytes(place)
            room = self.total_bytes - self.set_aside_bytes
            if need > room:
                self.failed(place, RefusedRequest(too_large(place.facts.name, need, room)), now_s)
                continue
            if need > self.free_bytes and number == 0:
                # One at a time, or two would count on the same room.
                plan = self._plan(need, now_s, without=place.replaces)
                self._carry_out(plan if place.replaces is None else replace(plan, drain=()))
            if need <= self.free_bytes:
                place.stage, place.weights_bytes = "opening", need
                return Job("open", place)
        return None

    def _forget(self, place: Place) -> None:
        if place in self._places:
            self._places.remove(place)


def too_large(name: str, need_bytes: int, room_bytes: int) -> Refusal:
    """Say that a model does not fit, even alone."""
    message = (
        f"{name} needs about {need_bytes} bytes of memory, and all models of this server may take "
        f"{room_bytes}; ask for a smaller variant"
    )
    # The official clients ask again after a 503 unless they are told not to.
    headers = {"x-should-retry": "false"}
    return Refusal(status=503, message=message, code="model_too_large", headers=headers)


def _no_room(need_bytes: int, room_bytes: int) -> Refusal:
    message = (
        f"prompt and answer need up to {need_bytes} bytes of memory, and beside the model there "
        f"are {max(0, room_bytes)}; shorten the prompt or lower max_tokens"
    )
    headers = {"x-should-retry": "false"}
    return Refusal(status=503, message=message, code="no_memory", headers=headers)


def no_turn() -> Refusal:
    """Say that there was no memory in time."""
    message = "the memory is taken by models that answer; ask again"
    return Refusal(status=503, message=message, code="no_memory", headers={"Retry-After": "5"})


def _refuse(ticket: Ticket, error: OnhandError) -> None:
    ticket.error = _again(error)
    ticket.on_end(ticket)


def _again(error: OnhandError) -> OnhandError:
    """Return an error like another one: one that is raised many times keeps all their traces."""
    if isinstance(error, RefusedRequest):
        return RefusedRequest(error.refusal)
    return type(error)(*error.args)
