"""Cascades, in virtual time: the device where it is sure, another where it is not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.device.serving.routing.acted import Actor, asked, piece, run, texts

from onhand.core.errors import EngineUnavailable, InputError
from onhand.device.serving.asks import Ask, Ending, Piece, Score
from onhand.device.serving.routing.cascade import CascadeRules, cascaded, shown
from onhand.device.serving.routing.confidence import Judge
from onhand.device.serving.routing.contests import Lane
from onhand.device.serving.routing.meters import Meter

JUDGE = Judge(threshold=0.6, window_tokens=4, early_tokens=2, early=0.9)
RULES = CascadeRules(judge=JUDGE, wait_s=2.0, cloud_wait_s=10.0)
WHOLE = CascadeRules(judge=JUDGE, wait_s=2.0, is_whole=True)
BESIDE = CascadeRules(judge=JUDGE, wait_s=2.0, is_beside=True)


def sure(text: str = "abcdef", **how: float) -> Actor:
    """A device that is sure of every token."""
    return Actor([piece(letter, 0.95) for letter in text], **how)  # type: ignore[arg-type]


def unsure(text: str = "abcdef", **how: float) -> Actor:
    """A device that is sure of none."""
    return Actor([piece(letter, 0.3) for letter in text], **how)  # type: ignore[arg-type]


class Story:
    """A cascade, and what was noted of it."""

    def __init__(self, near: Actor, *far: Actor, rules: CascadeRules = RULES) -> None:
        self.near, self.far, self.rules = near, far, rules
        self.events: list[str] = []
        self.won: tuple[str, str] = ("", "")
        self.first_s = -1.0
        self.n_shown_scores = 0

    def told(self, ask: Ask | None = None) -> str:
        """Run it, and return its text."""
        return run(self.read(ask or asked()))

    async def read(self, ask: Ask) -> str:
        """Read its answer to the end."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        near = Lane(name="local", backend=self.near, ask=ask, meter=Meter())
        far = [
            Lane(name=f"cloud{i or ''}", backend=one, ask=ask, meter=Meter())
            for i, one in enumerate(self.far)
        ]

        async def seen() -> AsyncGenerator[Piece | Ending]:
            answer = cascaded(near, far, self.rules, note=self.note, won=self.noted)
            async with aclosing(answer):
                async for part in answer:
                    if self.first_s < 0:
                        self.first_s = loop.time() - begun_s
                    if isinstance(part, Piece):
                        self.n_shown_scores += len(part.scores)
                    yield part

        return await texts(seen())

    def note(self, event: str, name: str) -> None:
        """See `Noting`."""
        self.events.append(f"{event} {name}")

    def noted(self, name: str, why: str) -> None:
        """Note whose answer it is."""
        self.won = (name, why)


def test_a_sure_answer_stays_on_the_device() -> None:
    """The cloud is not asked, and the scores that nobody wanted are not shown."""
    story = Story(sure(), Actor())

    assert story.told() == "abcdef"
    assert story.won == ("local", "the device is sure: 0.95 >= 0.60")
    assert story.far[0].asks == []
    assert story.near.asks[0].n_scores == 0
    assert story.n_shown_scores == 0


def test_a_sure_answer_is_shown_as_soon_as_it_is_sure() -> None:
    """After the early tokens, not after the window."""
    story = Story(sure(first_s=0.2, between_s=0.1), Actor())
    story.told()

    assert story.first_s == pytest.approx(0.3)  # two tokens


def test_numbers_that_differ_are_told_so_that_it_shows() -> None:
    """With as many digits as that takes."""
    rules = replace(RULES, judge=replace(RULES.judge, threshold=0.3001))
    story = Story(unsure(), Actor([Piece("C")], first_s=1), rules=rules)
    story.told()

    assert story.won == ("cloud", "the device is unsure: 0.3000 < 0.3001")


def test_an_unsure_answer_is_given_elsewhere() -> None:
    """Nothing of the device's is shown, and it is broken off."""
    story = Story(unsure(), Actor([Piece("C")], first_s=1))

    assert story.told() == "C"
    assert story.won == ("cloud", "the device is unsure: 0.30 < 0.60")
    assert story.events == [
        "asked local", "escalated local", "asked cloud", "won cloud", "lost local",
    ]  # fmt: skip
    assert (story.near.n_whole, story.near.n_closed) == (0, 1)


def test_an_unsure_answer_is_better_than_none() -> None:
    """Where the others fail, what was held back is shown, whole."""
    story = Story(unsure(), Actor.broken(), Actor.broken())

    assert story.told() == "abcdef"
    assert story.won[0] == "local"
    assert "nobody else answered" in story.won[1]
    assert story.events[-2:] == ["failed cloud1", "kept-unsure local"]


def test_an_unsure_answer_is_shown_where_the_others_are_late() -> None:
    """The cost of waiting is bounded, and the late answer is broken off at once."""
    cloud = Actor(first_s=500)
    story = Story(unsure(first_s=1), cloud)

    assert story.told() == "abcdef"
    assert story.first_s == pytest.approx(11.0)  # four tokens at 1 s, ten more for the cloud
    assert (cloud.n_whole, cloud.n_closed) == (0, 1)


def test_a_second_cloud_is_asked_where_the_first_fails() -> None:
    """Before any content, others may take over."""
    assert Story(unsure(), Actor.broken(), Actor([Piece("D")])).told() == "D"


def test_a_device_that_fails_is_no_end() -> None:
    """Nor is it waited for."""
    story = Story(Actor.broken(), Actor([Piece("C")], first_s=100))

    assert story.told() == "C"
    assert story.won == ("cloud", "the device failed")


def test_a_device_that_fails_while_it_is_held_back_is_no_end() -> None:
    """Nothing of it was shown."""
    story = Story(Actor([piece("a", 0.5), EngineUnavailable("gone")]), Actor([Piece("C")]))

    assert story.told() == "C"


def test_where_all_fail_the_last_failure_is_told() -> None:
    """There is nothing to fall back on."""
    with pytest.raises(EngineUnavailable, match="it is gone"):
        Story(Actor.broken(), Actor.broken()).told()


def test_a_wrong_request_is_not_sent_on() -> None:
    """The device says what is wrong with it."""
    story = Story(Actor.broken(error=InputError("stop: too many")), Actor())

    with pytest.raises(InputError, match="too many"):
        story.told()

    assert story.far[0].asks == []


def test_a_device_that_shows_nothing_in_time_is_not_waited_for() -> None:
    """A long prompt is read elsewhere."""
    story = Story(sure(first_s=60), Actor([Piece("C")], first_s=0.5))

    assert story.told() == "C"
    assert story.first_s == pytest.approx(2.5)
    assert story.won[1] == "the device had nothing to show in time"


def test_a_slow_device_is_judged_by_what_there_is() -> None:
    """One token in two seconds, and a good one."""
    story = Story(Actor([piece("a", 0.7)] * 3, first_s=1.5, between_s=5), Actor())

    assert story.told() == "aaa"
    assert story.first_s == pytest.approx(2.0)


def test_a_short_answer_is_judged_at_its_end() -> None:
    """Whether it is sure does not wait for a window that never fills."""
    assert Story(Actor([piece("y", 0.8)]), Actor()).told() == "y"
    assert Story(Actor([piece("y", 0.5)]), Actor([Piece("n")])).told() == "n"


def test_a_whole_answer_is_judged_as_a_whole() -> None:
    """A sure beginning does not save an unsure end."""
    wavering = [piece("a", 0.95)] * 4 + [piece("b", 0.05)] * 4
    cloud = Actor([Piece("C")])

    assert Story(Actor(wavering), cloud, rules=WHOLE).told() == "C"
    assert Story(Actor(wavering), cloud).told() == "aaaabbbb"


def test_an_unsure_beginning_ends_a_whole_answer_early() -> None:
    """The rest is not computed."""
    story = Story(unsure("abcdefghijkl", between_s=1), Actor([Piece("C")]), rules=WHOLE)

    assert story.told() == "C"
    assert story.first_s == pytest.approx(2.0)


def test_the_cloud_beside_the_device_costs_no_second_wait() -> None:
    """It was asked at the beginning, and gives its content when the device is unsure."""
    story = Story(unsure(between_s=0.5), Actor([Piece("C")], first_s=1.6), rules=BESIDE)

    assert story.told() == "C"
    assert story.first_s == pytest.approx(1.6)


def test_a_sure_device_stops_the_cloud_beside_it() -> None:
    """What was sent is paid for; what was not computed is not."""
    cloud = Actor([Piece("C")], first_s=50)
    story = Story(sure(between_s=0.1), cloud, rules=BESIDE)

    assert story.told() == "abcdef"
    assert "lost cloud" in story.events
    assert (cloud.n_whole, cloud.n_closed) == (0, 1)


def test_the_cloud_beside_is_shown_where_it_is_first() -> None:
    """No content of the device was shown before."""
    story = Story(sure(first_s=1.9), Actor([Piece("C")], first_s=0.5), rules=BESIDE)

    assert story.told() == "C"
    assert story.won[1] == "the other answer began before the device was sure"


def test_the_cloud_beside_may_fail() -> None:
    """The device goes on; where it is unsure, the next cloud is asked."""
    story = Story(sure(first_s=1), Actor.broken(), rules=BESIDE)
    assert story.told() == "abcdef"

    story = Story(unsure(first_s=1), Actor.broken(), Actor([Piece("D")]), rules=BESIDE)
    assert story.told() == "D"


def test_scores_are_shown_as_the_client_wants_them() -> None:
    """The judge's two others are cut to the client's one."""
    rules = CascadeRules(judge=Judge(measure="margin", window_tokens=2, threshold=0.5))
    story = Story(sure("ab"), Actor(), rules=rules)
    story.told(asked(n_scores=1))

    assert story.near.asks[0].n_scores == 2
    assert story.n_shown_scores == 2


def test_a_piece_of_scores_alone_is_nothing_without_them() -> None:
    """Its text is empty."""
    bare = Piece("", (Score(b"a", -1.0, (Score(b"a", -1.0), Score(b"b", -2.0))),))

    assert shown(bare, asked()) is None
    assert shown(bare, asked(n_scores=1)) == Piece("", (Score(b"a", -1.0, (Score(b"a", -1.0),)),))


def test_a_reader_that_leaves_breaks_both_off() -> None:
    """Wherever the cascade is."""
    near, cloud = unsure(), Actor(first_s=5)
    story = Story(near, cloud)

    async def leave() -> None:
        reading = asyncio.ensure_future(story.read(asked()))
        await asyncio.sleep(3)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.sleep(1)

    run(leave())

    assert (near.n_closed, cloud.n_closed) == (1, 1)
    assert cloud.n_whole == 0
