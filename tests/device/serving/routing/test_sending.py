"""The sender, in virtual time: in order, again after failures, at once when it can."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
from tests.device.serving.routing.acted import run

from onhand.core.errors import ResourceError
from onhand.device.serving.routing.outbox import Deferred, Outbox
from onhand.device.serving.routing.sending import Outcome, Retries, Sender

P = ParamSpec("P")
T = TypeVar("T")
RETRIES = Retries(poll_s=1, first_s=2, most_s=16)
DONE = Outcome(status=200, answer=b"{}")


async def inline(work: Callable[P, T], /, *given: P.args, **named: P.kwargs) -> T:
    """The disk is fast enough for a test."""
    return work(*given, **named)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An empty one."""
    found = Outbox(tmp_path / "o.sqlite", most_bytes=100_000, most_waiting=99)
    yield found
    found.close()


class Story:
    """A sender whose attempts end as they are told to.

    Attributes:
        sent: when what was sent, in seconds from the beginning.
    """

    def __init__(self, outbox: Outbox, outcomes: dict[str, list[Outcome]], took_s: float) -> None:
        self.outbox = outbox
        self.outcomes = outcomes
        self.took_s = took_s
        self.sent: list[tuple[float, str]] = []
        self.n_at_once = self.most_at_once = 0
        self.sender: Sender | None = None

    def now(self) -> float:
        """Seconds on the loop's clock, from 0."""
        return asyncio.get_running_loop().time() - 1000.0

    def put(self, body: str, *, tenant: str = "a", keep_s: float = 1000.0) -> str:
        """Keep a request at the beginning."""
        kept, _ = self.outbox.put(
            body.encode(), tenant=tenant, lane=tenant, key="", now_s=0.0, keep_s=keep_s
        )
        return kept.id

    async def send(self, request: Deferred) -> Outcome:
        """See `Send`."""
        body = request.body.decode()
        left = self.outcomes.get(body, [])
        outcome = left.pop(0) if left else DONE
        if outcome.was_sent:
            self.outbox.begin(request.id)
            self.sent.append((round(self.now(), 3), body))
        self.n_at_once += 1
        self.most_at_once = max(self.most_at_once, self.n_at_once)
        try:
            await asyncio.sleep(self.took_s)
        finally:
            self.n_at_once -= 1
        return outcome

    async def for_s(self, seconds: float) -> None:
        """Let it send for some time."""
        self.sender = Sender(
            self.outbox,
            self.send,
            retries=RETRIES,
            now=self.now,
            draw=lambda: 1.0,
            off_loop=inline,
        )
        running = asyncio.create_task(self.sender.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def story(
    outbox: Outbox, outcomes: dict[str, list[Outcome]] | None = None, *, took_s: float = 0.1
) -> Story:
    """A sender; what has no outcome of its own is answered."""
    return Story(outbox, outcomes or {}, took_s)


AGAIN = Outcome()
NOBODY = Outcome(was_sent=False)


def test_what_is_there_is_sent_in_order(outbox: Outbox) -> None:
    """One after the other, each once."""
    told = story(outbox)
    for body in "abc":
        told.put(body)
    run(told.for_s(10))

    assert told.sent == [(0.0, "a"), (0.1, "b"), (0.2, "c")]
    assert outbox.counts() == {"done": 3}


def test_a_failure_is_sent_again_later_and_holds_back_what_follows(outbox: Outbox) -> None:
    """After 2 s, then 4 s; the order stays."""
    told = story(outbox, {"a": [AGAIN, AGAIN]}, took_s=0)
    told.put("a")
    told.put("b")
    run(told.for_s(30))

    assert [body for _, body in told.sent] == ["a", "a", "a", "b"]
    times = [time_s for time_s, _ in told.sent]
    assert times[1] - times[0] == pytest.approx(2, abs=1)
    assert times[2] - times[1] == pytest.approx(4, abs=1)
    attempts = [one.attempts for one in outbox.listed(tenant="a")]
    assert attempts == [3, 1]


def test_waits_grow_to_a_bound_and_differ_between_devices() -> None:
    """Half to the whole of 2, 4, 8, 16, 16 ... seconds."""
    assert [RETRIES.wait_s(n, 1.0) for n in (1, 2, 3, 4, 5, 99)] == [2, 4, 8, 16, 16, 16]
    assert RETRIES.wait_s(3, 0.0) == 4


def test_where_nobody_can_be_asked_nothing_was_tried(outbox: Outbox) -> None:
    """It looks again each second, without waiting longer each time, and then sends at once."""
    told = story(outbox, {"a": [NOBODY] * 20}, took_s=0)
    told.put("a")
    run(told.for_s(40))

    assert len(told.sent) == 1
    assert 19 <= told.sent[0][0] <= 22
    assert outbox.listed(tenant="a")[0].attempts == 1


def test_the_other_side_may_ask_for_more_time(outbox: Outbox) -> None:
    """Its Retry-After counts where it is longer."""
    told = story(outbox, {"a": [Outcome(retry_after_s=20.0)]}, took_s=0)
    told.put("a")
    run(told.for_s(40))

    assert 20 <= told.sent[1][0] <= 22


def test_a_refusal_for_good_lets_the_next_pass(outbox: Outbox) -> None:
    """A poisoned request does not block its lane."""
    told = story(outbox, {"a": [Outcome(status=400, answer=b"{}")]})
    told.put("a")
    told.put("b")
    run(told.for_s(5))

    assert [body for _, body in told.sent] == ["a", "b"]
    assert outbox.counts() == {"failed": 1, "done": 1}


def test_lanes_do_not_wait_for_each_other(outbox: Outbox) -> None:
    """A few at once, and no more."""
    told = story(outbox, took_s=1.0)
    for number in range(9):
        told.put(str(number), tenant=f"t{number}")
    run(told.for_s(10))

    assert len(told.sent) == 9
    assert told.most_at_once == RETRIES.most_lanes


def test_what_comes_later_is_sent_at_once(outbox: Outbox) -> None:
    """Nobody waits for the next look."""
    told = story(outbox)

    async def later() -> None:
        running = asyncio.create_task(told.for_s(20))
        await asyncio.sleep(7.5)
        told.put("a")
        assert told.sender is not None
        told.sender.wake()
        await running

    run(later())

    assert told.sent == [(7.5, "a")]


def test_what_is_of_no_use_any_more_is_not_sent(outbox: Outbox) -> None:
    """And does not hold back the rest."""
    told = story(outbox, {"a": [NOBODY] * 99}, took_s=0)
    told.put("a", keep_s=10)
    told.put("b")
    run(told.for_s(30))

    assert [body for _, body in told.sent] == ["b"]
    assert outbox.counts() == {"expired": 1, "done": 1}


def test_what_was_being_sent_is_sent_again_by_the_next_run(outbox: Outbox) -> None:
    """With the same id; whether it had arrived, only the other side knows."""
    told = story(outbox, took_s=5.0)
    name = told.put("a")
    run(told.for_s(1))
    assert outbox.listed(tenant="a")[0].state == "sending"
    run(told.for_s(20))

    assert [body for _, body in told.sent] == ["a", "a"]
    found = outbox.find(name, tenant="a")
    assert found is not None
    assert (found.state, found.attempts) == ("done", 2)


def test_a_disk_that_fails_does_not_end_the_sender(outbox: Outbox) -> None:
    """It tries again; nothing is sent that could not be noted."""
    told = story(outbox)
    told.put("a")
    real = outbox.tidy
    failing = [True]

    def tidy(now_s: float, *, kept_s: float) -> int:
        if failing:
            failing.clear()
            raise ResourceError("the disk is full")
        return real(now_s, kept_s=kept_s)

    outbox.tidy = tidy  # type: ignore[method-assign] # a disk that fails once
    run(told.for_s(60))

    assert [body for _, body in told.sent] == ["a"]
