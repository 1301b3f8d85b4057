"""The router over acted backends, in virtual time: decisions carried out, told and counted."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from tests.device.serving.routing.acted import Actor, asked, piece, run, texts

from onhand.core.errors import EngineUnavailable, InputError
from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Ending, Piece, Source
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.routing.counts import RouteCounts
from onhand.device.serving.routing.meters import Purse, TokenBucket
from onhand.device.serving.routing.router import Means, RoutedModel, Target
from onhand.device.serving.routing.settings import RoutingSettings
from onhand.device.serving.routing.situation import Candidate
from onhand.device.serving.wishes import Wishes


class Front:
    """A name, and nothing else."""

    name = "toy"
    usual = Sampling()
    context = 64
    engine_name = "acted"
    fingerprint = "acted-1"
    n_active = 0
    prefix_cache_bytes = 0

    def __init__(self) -> None:
        self.n_broken_off = self.n_closed = 0

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """Nobody asks it."""
        if ask.tenant:
            raise EngineUnavailable("the front answers nothing")
        yield Piece("")

    def break_off(self) -> None:
        """Note it."""
        self.n_broken_off += 1

    def close(self) -> None:
        """Note it."""
        self.n_closed += 1


class Story:
    """A routed model of one backend here and one there."""

    def __init__(
        self, here: Actor, there: Actor, *, policy: str = "local-first", hedges: float = 0.05,
        budget: float = 0.0, tenants: dict[str, Any] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        self.here, self.there = here, there
        there.source = "cloud"
        self.metrics = Metrics()
        self.told: list[Source] = []
        self.purse = Purse(budget, now=lambda: 0.0)
        self.is_there = True
        self.front = Front()
        self.model = RoutedModel(
            self.front,
            [
                Target(name="local", backend=here, patient=here, facts=self._here),
                Target(name="cloud", backend=there, patient=there, facts=self._there),
            ],
            balanced=there,
            settings=RoutingSettings(policy=policy, **settings),
            means=Means(
                counts=RouteCounts(self.metrics),
                purse=self.purse,
                hedges=TokenBucket(hedges),
                tenants=tenants or {},
                draw=lambda: 0.5,
            ),
        )

    def _here(self) -> Candidate:
        return Candidate(name="local", place="local", context=64)

    def _there(self) -> Candidate:
        return Candidate(
            name="cloud",
            place="cloud",
            is_healthy=self.is_there,
            prompt_cost=1.0,
            answer_cost=2.0,
            capabilities=frozenset({"schema"}),
        )

    def ask(self, text: str = "lamp", **wishes: Any) -> Ask:
        """A question that notes who answers."""
        return asked(text, told=self.told.append, wishes=Wishes(**wishes))

    def answer(self, ask: Ask | None = None) -> str:
        """The text of one answer."""
        return run(texts(self.model.answer(ask or self.ask())))

    def count(self, **labels: str) -> float:
        """How often something happened."""
        found = self.metrics.registry.get_sample_value("onhand_route_events_total", labels)
        return found or 0.0


HERE, THERE = [Piece("here")], [Piece("there")]


def test_the_answer_says_where_it_comes_from_and_why() -> None:
    """At once, and again when it has changed."""
    story = Story(Actor.broken(), Actor(THERE))

    assert story.answer() == "there"
    assert [(one.route, one.backend) for one in story.told] == [
        ("local", "local"), ("cloud", "cloud"),
    ]  # fmt: skip
    assert story.told[-1].reason == "the device can answer"
    assert story.count(event="failed", backend="local") == 1
    assert story.count(event="won", backend="cloud") == 1


def test_a_private_request_is_answered_here_or_not_at_all() -> None:
    """By its own header, by its tenant, or by the settings."""
    for story, ask in (
        (Story(Actor.broken(), Actor(THERE)), {"privacy": "private"}),
        (Story(Actor.broken(), Actor(THERE), tenants={"local": "private"}), {}),
        (Story(Actor.broken(), Actor(THERE), privacy="private"), {}),
        (Story(Actor.broken(), Actor(THERE), policy="cloud-first"), {"privacy": "redact"}),
    ):
        with pytest.raises(EngineUnavailable):
            story.answer(story.ask(**ask))
        assert story.there.asks == []


def test_a_request_may_be_stricter_than_the_settings_but_not_looser() -> None:
    """The stricter wins."""
    story = Story(Actor(HERE), Actor(THERE), policy="cloud-first", privacy="private")

    assert story.answer(story.ask(privacy="public")) == "here"


def test_a_request_chooses_among_the_policies_that_it_may() -> None:
    """Being answered on the device may be chosen always."""
    story = Story(Actor(HERE), Actor(THERE), policies=("cloud-first",))

    assert story.answer(story.ask(policy="cloud-first")) == "there"
    assert story.answer(story.ask(policy="local-only")) == "here"
    with pytest.raises(InputError, match="'race' may not be chosen here, but cloud-first, local"):
        story.model.routed(story.ask(policy="race"))
    with pytest.raises(InputError, match="did you mean 'race'"):
        story.model.routed(story.ask(policy="rase"))


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        ({"text": "x" * 400, "privacy": "private"}, 400, "context_length_exceeded"),
        ({"text": "x" * 400}, 503, "no_backend_unreachable"),
    ],
)
def test_refusals(ask: dict[str, Any], status: int, code: str) -> None:
    """Told with what to do: another request, or the same one later."""
    story = Story(Actor(HERE), Actor(THERE))
    story.is_there = False

    with pytest.raises(RefusedRequest) as refused:
        story.model.routed(story.ask(**ask))

    assert (refused.value.refusal.status, refused.value.refusal.code) == (status, code)
    assert ("Retry-After" in refused.value.refusal.headers) is (status == 503)


def test_a_cascade_by_settings() -> None:
    """Unsure here, so there; the reason says how unsure."""
    unsure = Actor([piece(letter, 0.2) for letter in "abc"])
    story = Story(unsure, Actor(THERE), policy="cascade", cascade_threshold=0.5)

    assert story.answer(story.ask(is_stream=True)) == "there"
    assert story.told[-1].reason == "the device is unsure: 0.20 < 0.50"
    assert story.count(event="escalated", backend="local") == 1


def test_hedges_keep_to_their_budget() -> None:
    """Of a hundred slow answers, the first and one in twenty are hedged."""
    story = Story(Actor(HERE, first_s=5), Actor(THERE, first_s=5), policy="hedge", hedge_s=1.0)

    async def many() -> None:
        for _ in range(100):
            await texts(story.model.answer(story.ask()))

    run(many())

    sent = sum(story.count(event="hedged", backend=name) for name in ("local", "cloud"))
    denied = sum(story.count(event="hedge-denied", backend=name) for name in ("local", "cloud"))
    assert 5 <= sent <= 6
    assert sent + denied <= 100


def test_without_enough_answers_nothing_is_hedged() -> None:
    """A delay that was not learned is not guessed."""
    story = Story(Actor(HERE, first_s=50), Actor(THERE, first_s=50), policy="hedge")
    story.answer()

    assert story.model.hedge_s("local") is None
    assert len(story.here.asks) + len(story.there.asks) == 1


def test_the_delay_of_hedges_is_learned() -> None:
    """The time that one in twenty answers exceeds."""
    story = Story(Actor(HERE), Actor(THERE))

    async def many() -> None:
        for n in range(100):
            story.here.first_s = (n + 1) / 100
            await texts(story.model.answer(story.ask()))

    run(many())

    assert story.model.hedge_s("local") == pytest.approx(0.95)


def test_what_is_spent_is_counted_and_bounds_what_follows() -> None:
    """Three tokens of a prompt and one of an answer: 0.005."""
    story = Story(Actor(HERE), Actor(THERE), policy="cloud-first", budget=0.52)
    assert story.answer(replace(story.ask(), max_tokens=1)) == "there"
    assert story.purse.spent == pytest.approx(0.005)
    story.purse.pay(0.514)

    assert story.answer(replace(story.ask(), max_tokens=1)) == "here"


def test_a_balanced_request_goes_to_whoever_has_room() -> None:
    """Among those that may answer; who it was says the pool."""
    story = Story(Actor(HERE), Actor(THERE), policy="balanced")

    assert story.answer() == "there"
    assert story.there.asks[0].only == frozenset({"local", "cloud"})
    story.answer(story.ask(privacy="private"))
    assert story.there.asks[1].only == frozenset({"local"})


def test_a_governor_moves_a_share_elsewhere() -> None:
    """Where the policy lets it: a request drawn below the share."""
    story = Story(Actor(HERE), Actor(THERE), policy="adaptive")
    story.model.use_cloud_share(0.6)
    assert story.answer() == "there"
    assert story.told[-1].reason == "the device is under load"
    story.model.use_cloud_share(0.4)

    assert story.answer(story.ask(privacy="private")) == "here"


def test_a_deferred_request_is_not_begun() -> None:
    """Who asked for the answer sees that there is none now."""
    story = Story(Actor.broken(), Actor(THERE), policy="cloud-first")

    routed = run(_routed(story, story.ask(defer="must")))

    assert routed == "defer"
    assert story.there.asks == []


async def _routed(story: Story, ask: Ask) -> str:
    return story.model.routed(ask).decision.mode


def test_running_answers_are_broken_off() -> None:
    """From another thread, when the server ends; and no more are taken."""
    story = Story(Actor(HERE, first_s=1e6), Actor(THERE, first_s=1e6))

    async def broken() -> None:
        reading = asyncio.ensure_future(texts(story.model.answer(story.ask())))
        await asyncio.sleep(1)
        assert story.model.n_active == 1
        await asyncio.to_thread(story.model.break_off)
        with pytest.raises(EngineUnavailable, match="broken off"):
            await reading
        with pytest.raises(EngineUnavailable, match="broken off"):
            await texts(story.model.answer(story.ask()))

    asyncio.run(broken())

    assert story.model.n_active == 0
    assert story.here.n_closed == 1
    assert story.front.n_broken_off == 1


def test_a_reader_that_leaves_frees_everything() -> None:
    """Nothing is computed on for nobody."""
    story = Story(Actor([Piece("a")] * 9, between_s=1), Actor(THERE))

    async def leave() -> None:
        async with aclosing(story.model.answer(story.ask())) as parts:
            await anext(parts)

    run(leave())

    assert (story.model.n_active, story.here.n_closed, story.here.n_whole) == (0, 1, 0)


def test_the_front_gives_the_name() -> None:
    """And is closed with the model; another policy answers otherwise."""
    story = Story(Actor(HERE), Actor(THERE))
    other = Story(Actor(HERE), Actor(THERE), policy="race")
    story.model.close()

    assert (story.model.name, story.model.engine_name) == ("toy", "acted")
    assert story.model.context == 64
    assert story.model.usual == Sampling()
    assert story.model.prefix_cache_bytes == 0
    assert story.model.fingerprint != other.model.fingerprint
    assert story.front.n_closed == 1
