"""Failover, race and hedge, in virtual time: the first content decides."""

import asyncio
from contextlib import aclosing

import pytest
from tests.device.serving.routing.acted import Actor, asked, piece, run, texts

from onhand.core.errors import ContextOverflow, EngineUnavailable, InputError
from onhand.device.serving.asks import Piece
from onhand.device.serving.routing.contests import Lane, Rules, contested
from onhand.device.serving.routing.meters import Meter

RACE = Rules(at_once=2)


class Story:
    """A contest of some backends, and what was noted of it."""

    def __init__(self, **backends: Actor) -> None:
        self.backends = backends
        self.events: list[str] = []
        self.winners: list[str] = []
        self.meters = {name: Meter() for name in backends}

    def note(self, event: str, name: str) -> None:
        """See `Noting`."""
        self.events.append(f"{event} {name}")

    def lanes(self) -> list[Lane]:
        """Its backends."""
        return [
            Lane(name=name, backend=one, ask=asked(), meter=self.meters[name])
            for name, one in self.backends.items()
        ]

    def told(self, rules: Rules) -> str:
        """Run it, and return its text."""
        return run(self.read(rules))

    async def read(self, rules: Rules) -> str:
        """Read its answer to the end."""
        begun_s = asyncio.get_running_loop().time()
        answer = contested(self.lanes(), rules, note=self.note, won=self.winners.append)
        async with aclosing(answer):
            text = await texts(answer)
        self.took_s = asyncio.get_running_loop().time() - begun_s
        return text


def test_the_preferred_backend_answers_alone() -> None:
    """Nobody else is asked where it answers, however slowly."""
    story = Story(a=Actor([Piece("A"), Piece("B")], first_s=60), b=Actor())

    assert story.told(Rules()) == "AB"
    assert story.events == ["asked a", "won a"]
    assert story.backends["b"].asks == []


def test_one_that_fails_before_content_is_followed_by_the_next() -> None:
    """The reader sees one answer, and no trace of the failure."""
    story = Story(a=Actor.broken(), b=Actor.broken(), c=Actor([Piece("C")]))

    assert story.told(Rules()) == "C"
    assert story.winners == ["c"]
    assert story.events == ["asked a", "failed a", "asked b", "failed b", "asked c", "won c"]


def test_one_that_fails_after_content_is_not_followed() -> None:
    """Two halves are never joined: the reader is told."""
    story = Story(a=Actor([Piece("half"), EngineUnavailable("cut")]), b=Actor())

    with pytest.raises(EngineUnavailable, match="cut"):
        story.told(Rules())

    assert story.backends["b"].asks == []
    assert story.backends["a"].n_closed == 1


def test_a_wrong_request_is_wrong_everywhere() -> None:
    """What the client gave wrongly goes back to it at once."""
    story = Story(a=Actor.broken(error=InputError("no such field")), b=Actor())

    with pytest.raises(InputError, match="no such field"):
        story.told(Rules())

    assert story.backends["b"].asks == []


def test_a_prompt_too_long_for_one_context_may_fit_another() -> None:
    """It is the one refusal of a request that the next backend may not share."""
    story = Story(a=Actor.broken(error=ContextOverflow("4096")), b=Actor([Piece("B")]))

    assert story.told(Rules()) == "B"


def test_the_last_failure_is_told() -> None:
    """Where all fail, somebody has to say so."""
    story = Story(a=Actor.broken(), b=Actor.broken(error=EngineUnavailable("b is gone")))

    with pytest.raises(EngineUnavailable, match="b is gone"):
        story.told(Rules())


def test_the_first_content_wins_a_race_and_the_loser_stops_at_once() -> None:
    """It is broken off when it has lost, not when the winner has ended."""
    slow = Actor([Piece("S")], first_s=2)
    quick = Actor([Piece("Q"), Piece("!")], first_s=1, between_s=30)
    story = Story(slow=slow, quick=quick)
    assert story.told(RACE) == "Q!"

    assert story.events == ["asked slow", "asked quick", "won quick", "lost slow"]
    assert (slow.n_whole, slow.n_closed) == (0, 1)
    assert story.meters["slow"].n_active == 0


def test_a_loser_that_is_slow_to_stop_delays_no_content() -> None:
    """The winner's content goes on while the loser is being broken off."""
    slow = Actor(first_s=2, closing_s=50)
    story = Story(slow=slow, quick=Actor([Piece("Q")], first_s=1))

    # Measured inside: leaving the block waits until the loser has ended.
    async def timed() -> float:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        answer = contested(story.lanes(), RACE, note=story.note, won=lambda _: None)
        await anext(answer)
        took_s = loop.time() - begun_s
        await answer.aclose()
        return took_s

    assert run(timed()) == 1.0
    assert slow.n_closed == 1


def test_a_race_goes_on_without_one_that_fails() -> None:
    """A failure is no content."""
    story = Story(a=Actor.broken(first_s=0.5), b=Actor([Piece("B")], first_s=9))

    assert story.told(RACE) == "B"


def test_of_two_at_the_same_moment_the_preferred_wins() -> None:
    """Not the one whose task happens to run first."""
    story = Story(a=Actor([Piece("A")], first_s=1), b=Actor([Piece("B")], first_s=1))

    assert story.told(RACE) == "A"


def test_an_answer_without_text_wins_as_well() -> None:
    """An ending is an answer."""
    story = Story(a=Actor([]), b=Actor(first_s=1))

    assert story.told(RACE) == ""
    assert story.winners == ["a"]


def test_a_hedge_is_sent_where_the_first_is_slower_than_usual() -> None:
    """After the delay, not before; then the first content wins."""
    story = Story(a=Actor(first_s=5), b=Actor([Piece("B")], first_s=0.5))

    assert story.told(Rules(hedge_s=1.0)) == "B"
    assert story.took_s == 1.5
    assert story.events == ["asked a", "hedged b", "asked b", "won b", "lost a"]


def test_no_hedge_is_sent_where_the_first_is_in_time() -> None:
    """Nor after its first content, however slow it is from then on."""
    story = Story(a=Actor([Piece("A"), Piece("!")], first_s=0.9, between_s=100), b=Actor())

    assert story.told(Rules(hedge_s=1.0)) == "A!"
    assert story.backends["b"].asks == []


def test_a_hedge_beyond_the_budget_is_not_sent() -> None:
    """The first is waited for."""
    story = Story(a=Actor([Piece("A")], first_s=5), b=Actor())

    assert story.told(Rules(hedge_s=1.0, may_hedge=lambda: False)) == "A"
    assert story.events == ["asked a", "hedge-denied b", "won a"]


def test_there_is_one_hedge_at_most() -> None:
    """A third backend is asked only where both have failed."""
    story = Story(a=Actor([Piece("A")], first_s=50), b=Actor(first_s=60), c=Actor())

    assert story.told(Rules(hedge_s=1.0)) == "A"
    assert story.backends["c"].asks == []


def test_a_failure_is_not_waited_out_before_the_next_is_asked() -> None:
    """The delay is for the slow."""
    story = Story(a=Actor.broken(first_s=0.1), b=Actor([Piece("B")]))

    assert story.told(Rules(hedge_s=10.0)) == "B"
    assert story.took_s == pytest.approx(0.1)
    assert "hedged b" not in story.events


def test_a_reader_that_leaves_breaks_all_off() -> None:
    """Also before any content."""
    story = Story(a=Actor(first_s=50), b=Actor(first_s=60))

    async def leave() -> None:
        answer = contested(story.lanes(), RACE, note=story.note, won=story.winners.append)
        reading = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await answer.aclose()

    run(leave())

    assert [one.n_closed for one in story.backends.values()] == [1, 1]
    assert [meter.n_active for meter in story.meters.values()] == [0, 0]


def test_speeds_are_measured_on_the_way() -> None:
    """Time to the first content, and for each token after it."""
    story = Story(a=Actor([piece("a"), piece("b"), piece("c")], first_s=2, between_s=0.25))
    story.told(Rules())

    expected = story.meters["a"].expected
    assert expected.first_s == 2.0
    assert expected.token_s == 0.25


def test_an_answer_without_an_ending_is_a_failure() -> None:
    """A backend that stops in silence has not answered."""
    story = Story(a=Actor(is_silent=True), b=Actor([Piece("B")]))

    assert story.told(Rules()) == "B"
