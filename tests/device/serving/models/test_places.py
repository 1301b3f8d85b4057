"""Who is open, who waits and who goes, whatever comes in whatever order."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from onhand.core.errors import EngineBusy, EngineError
from onhand.device.learning.in_use import AS_BUILT
from onhand.device.serving.models.facts import Facts
from onhand.device.serving.models.footprint import Footprint
from onhand.device.serving.models.place import Place, Ticket
from onhand.device.serving.models.places import Places
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.settings import ModelSettings

TOTAL = 100
WAIT_S = 60.0


class Toy:
    """An open model that remembers what it is told to."""

    engine_name = "toy"
    bundle_sha256 = "0"
    learned = AS_BUILT

    def __init__(self) -> None:
        self.kept: list[tuple[float, int]] = []
        self.is_closed = False

    def remembered(self) -> Sequence[tuple[float, int]]:
        """See `OpenModel`."""
        return self.kept

    def forget(self, n: int) -> None:
        """See `OpenModel`."""
        del self.kept[:n]

    def break_off(self) -> None:
        """See `OpenModel`."""

    def close(self) -> None:
        """See `OpenModel`."""
        self.is_closed = True


def place(name: str, size: int, **more: object) -> Place:
    given = ModelSettings(bundle=name, max_waiting=3, **more)  # type: ignore[arg-type] # its fields
    facts = Facts(
        settings=given,
        name=name,
        bundle_sha256="0",
        version=1,
        variant="v",
        variants=("v",),
        engine_name="toy",
        footprint=Footprint(weights_bytes=size, token_bytes=1),
        task="text-generation",
        context=64,
    )
    return Place(facts)


def test_what_never_fits_is_refused_with_both_numbers() -> None:
    """Of a model before it is opened, and of an answer before it is computed."""
    places = Places(TOTAL, most_wait_s=WAIT_S)
    large, small = place("large", 101), place("small", 40)
    tickets = [Ticket(0.0, lambda _: None) for _ in range(2)]
    places.ask(large, tickets[0])
    places.ask(small, tickets[1])

    job = places.next_job(0.0)

    assert job is not None
    assert job.place is small
    assert isinstance(tickets[0].error, RefusedRequest)
    assert "large needs about 101 bytes" in str(tickets[0].error)
    with pytest.raises(RefusedRequest, match=r"up to 61 bytes.*there are 60"):
        places.check_hold(small, 61)
    places.check_hold(small, 60)


class Shelf(RuleBasedStateMachine):
    """Requests come, leave, answer and end; models are opened, fail and are closed."""

    leases = Bundle("leases")
    holds = Bundle("holds")
    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.places = Places(TOTAL, most_wait_s=WAIT_S)
        self.all = [
            place("a", 30),
            place("b", 60),
            place("c", 45, keep_s=30.0),
            place("d", 120),
        ]
        self.ended: list[Ticket] = []
        self.pending: list[object] = []

    @rule(target=waiting, number=st.integers(0, 3))
    def ask(self, number: int) -> object:
        """A request comes."""
        ticket = Ticket(self.now_s, self.ended.append)
        try:
            self.places.ask(self.all[number], ticket)
        except (EngineBusy, EngineError, RefusedRequest):
            return multiple()
        return ticket

    @rule(ticket=consumes(waiting))
    def leave(self, ticket: Ticket) -> None:
        """Its client leaves, wherever it is."""
        self.places.withdraw(ticket, self.now_s)

    @rule(target=leases, ticket=consumes(waiting))
    def begin(self, ticket: Ticket) -> object:
        """An answer begins, if it was granted."""
        if ticket.is_granted:
            return ticket
        if ticket.error is None:
            self.places.withdraw(ticket, self.now_s)
        return multiple()

    @rule(target=holds, ticket=consumes(leases), n_bytes=st.integers(0, 30))
    def hold(self, ticket: Ticket, n_bytes: int) -> object:
        """It asks for memory, and ends if there is none."""
        assert ticket.place is not None
        if self.places.hold(ticket.place, n_bytes, self.now_s):
            return (ticket, n_bytes)
        self.places.release(ticket.place, self.now_s)
        return multiple()

    @rule(held=consumes(holds), is_kept=st.booleans())
    def end(self, held: tuple[Ticket, int], is_kept: bool) -> None:
        """It ends, and may leave something to be remembered."""
        ticket, n_bytes = held
        assert ticket.place is not None
        model = ticket.place.model
        assert isinstance(model, Toy)
        assert not model.is_closed
        if is_kept and n_bytes:
            model.kept.append((self.now_s, n_bytes))
        self.places.count(ticket.place, -n_bytes)
        self.places.release(ticket.place, self.now_s)

    @rule(fails=st.booleans())
    def work(self, fails: bool) -> None:
        """The worker does one thing."""
        job = self.places.next_job(self.now_s)
        if job is None:
            return
        if job.kind == "close":
            assert job.place.n_leases == 0
            assert isinstance(job.place.model, Toy)
            job.place.model.close()
            self.places.closed(job.place)
        elif fails:
            self.places.failed(job.place, EngineError("failed"), self.now_s)
        else:
            size = job.place.facts.footprint.idle_bytes
            self.places.opened(
                job.place,
                Toy(),
                weights_bytes=size,
                opening_s=1.0,
                now_s=self.now_s,
                stay_s=4.0,
            )

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds

    @rule(number=st.integers(0, 2))
    def retire(self, number: int) -> None:
        """A new version takes a place."""
        before = self.all[number]
        self.all[number] = place(before.facts.name, before.facts.footprint.weights_bytes)
        self.places.retire(before, self.all[number])

    @invariant()
    def the_budget_holds(self) -> None:
        """What is taken is never more than may be."""
        assert self.places.taken_bytes <= TOTAL

    @invariant()
    def everybody_ends_once(self) -> None:
        """A request is granted or refused, not both and not twice."""
        assert len({id(ticket) for ticket in self.ended}) == len(self.ended)
        assert all(ticket.is_granted == (ticket.error is None) for ticket in self.ended)

    @invariant()
    def who_waits_has_a_reason(self) -> None:
        """Nobody waits for a model that is open."""
        for one in self.places:
            assert one.n_leases >= 0
            if one.stage == "open":
                assert not one.tickets

    def teardown(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self,
    ) -> None:
        """At last everybody who waits is answered or refused."""
        for one in self.places:
            if one.n_leases:
                one.n_leases = 0
        for _ in range(200):
            self.now_s += 5
            while (job := self.places.next_job(self.now_s)) is not None:
                if job.kind == "close":
                    self.places.closed(job.place)
                else:
                    self.places.failed(job.place, EngineError("end"), self.now_s)
        assert not [ticket for one in self.places for ticket in one.tickets]


TestShelf = Shelf.TestCase
TestShelf.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
