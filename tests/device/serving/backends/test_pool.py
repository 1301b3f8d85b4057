"""Several backends as one: load, failures before and after the first text, and full houses."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.serving.backends.acted import (
    ASK,
    PLAIN,
    Scripted,
    Slept,
    member,
    pool_of,
    text_of,
)

from onhand.core.errors import EngineBusy, EngineError, InputError, OnhandError
from onhand.device.serving.asks import Ask, Piece, Source
from onhand.device.serving.backends.failures import of_status, unreachable
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.backends.settings import BalanceSettings
from onhand.device.serving.refusals import BackendFailed, refusal_of


def down() -> BackendFailed:
    return unreachable("a", "it is down")


def test_a_failure_before_the_first_text_is_not_seen() -> None:
    """Another one answers at once, and the reader is told who."""
    told: list[Source] = []
    bad, good = Scripted([down()]), Scripted(["fine"])
    slept = Slept()
    pool = pool_of(member(bad, "bad"), member(good, "good"), slept=slept)

    said = asyncio.run(text_of(pool, Ask(tenant="t", prompt="x", told=told.append)))

    assert said == "fine"
    assert told[-1].backend == "good"
    assert slept.seconds == []
    assert bad.n_asked + good.n_asked == len(told) == 1 + pool.n_retries


def test_a_failure_after_it_is() -> None:
    """Nothing is said twice, and nobody else is asked."""
    bad, other = Scripted(["it is ", down()]), Scripted(["fine"])
    pool = pool_of(member(bad, "bad"))
    second = pool_of(member(bad, "bad"), member(other, "good", route="cloud"))
    heard: list[str] = []

    async def read(found: Pool) -> None:
        async with aclosing(found.answer(ASK)) as parts:
            async for part in parts:
                assert isinstance(part, Piece)
                heard.append(part.text)

    for found in (pool, second):
        with pytest.raises(BackendFailed):
            asyncio.run(read(found))

    assert heard == ["it is ", "it is "]
    assert other.n_asked == 0


@pytest.mark.parametrize(
    ("error", "n_asked"),
    [
        (InputError("the request is wrong"), 1),
        (of_status("a", 400), 1),
        (of_status("a", 500), 3),
        (of_status("a", 401), 1),
        (EngineBusy("full"), 3),
        (EngineError("the engine failed"), 3),
    ],
)
def test_what_is_asked_again(error: OnhandError, n_asked: int) -> None:
    """Not what would be refused again; the same backend only where there is no other."""
    alone = Scripted([error])
    pool = pool_of(member(alone), balance=BalanceSettings(failures=9))

    with pytest.raises(type(error)):
        asyncio.run(text_of(pool))

    assert alone.n_asked == n_asked


def test_the_same_backend_is_asked_again_after_a_pause_that_grows() -> None:
    """A part of it is drawn, so that not all come back at once."""
    slept = Slept()
    found = Scripted([down()], later=[[down()], ["fine"]])
    pool = pool_of(member(found), slept=slept, balance=BalanceSettings(backoff_s=0.4))

    assert asyncio.run(text_of(pool)) == "fine"
    assert slept.seconds == [0.2, 0.4]


def test_second_attempts_have_a_budget() -> None:
    """When everything fails the load does not triple."""
    found = Scripted([of_status("a", 429)])
    balance = BalanceSettings(retry_share=0.1, retry_reserve=4)
    pool = pool_of(member(found), balance=balance)

    async def ask_often() -> None:
        for _ in range(50):
            with pytest.raises(BackendFailed):
                await text_of(pool)

    asyncio.run(ask_often())

    assert found.n_asked == 50 + pool.n_retries
    assert 4 <= pool.n_retries <= 4 + 50 * 0.1


def test_one_that_fails_gets_no_requests_for_a_while() -> None:
    """After some failures others answer without a detour; if there is no other, that is said."""
    bad, good = Scripted([down()]), Scripted(["fine"])
    pool = pool_of(member(bad, "bad"), member(good, "good"))

    async def ask_often(found: Pool) -> None:
        for _ in range(20):
            assert await text_of(found) == "fine"

    asyncio.run(ask_often(pool))
    alone = pool_of(pool.members[0])
    with pytest.raises(BackendFailed) as nobody:
        asyncio.run(text_of(alone, Ask(tenant="t", prompt="x")))

    assert bad.n_asked == 3
    assert refusal_of(nobody.value).status in {502, 503}


def test_when_all_are_ejected_each_request_tries_one() -> None:
    """As likely it is this device that was cut off; one that answers is back at once."""
    backends = [Scripted([down()]), Scripted([down()])]
    members = [member(one, name) for one, name in zip(backends, "ab", strict=True)]
    pool = pool_of(*members)

    async def until_all_are_ejected() -> None:
        while any(one.permits for one in members):
            with pytest.raises(BackendFailed):
                await text_of(pool)

    asyncio.run(until_all_are_ejected())
    n_asked = sum(one.n_asked for one in backends)
    waits = [one.breaker.wait_s for one in members]
    with pytest.raises(BackendFailed):
        asyncio.run(text_of(pool))
    assert sum(one.n_asked for one in backends) == n_asked + 1
    assert [one.breaker.wait_s for one in members] == waits
    for one in backends:
        one.steps = ["fine"]

    assert asyncio.run(text_of(pool)) == "fine"
    assert [one.permits for one in members].count(True) == 1


def test_who_asks_to_be_left_alone_is() -> None:
    """For as long as it says; a short time is waited for."""
    slept = Slept()
    error = of_status("a", 429, headers={"retry-after": "1"})
    busy = member(Scripted([error]), slept=slept)
    pool = pool_of(busy, slept=slept, balance=BalanceSettings(attempts=2))
    asyncio.run(_refused(pool, 429))
    assert not busy.permits
    assert busy.breaker.state == "closed"
    assert slept.seconds[0] == 1

    long = member(Scripted([of_status("a", 503, headers={"retry-after": "60"})]))
    refusal = asyncio.run(_refused(pool_of(long), 503))

    assert refusal["Retry-After"] == "60"


async def _refused(pool: Pool, status: int) -> dict[str, str]:
    with pytest.raises(BackendFailed) as failed:
        await text_of(pool)
    refusal = refusal_of(failed.value)
    assert refusal.status == status
    return dict(refusal.headers)


def test_clouds_are_asked_when_nobody_nearer_can() -> None:
    """The device and its peers come first."""
    near, far = Scripted(["near"]), Scripted(["far"])
    pool = pool_of(
        member(far, "far", route="cloud", max_active=99), member(near, "near", max_active=1)
    )

    async def two_at_once() -> list[str]:
        held = pool.answer(ASK)
        first = await anext(held)
        assert isinstance(first, Piece)
        second = await text_of(pool)
        await held.aclose()
        return [first.text, second, await text_of(pool)]

    assert asyncio.run(two_at_once()) == ["near", "far", "near"]


def test_one_that_hangs_holds_up_nobody_else() -> None:
    """Requests go where the others are answered; it never has more than its limit."""

    async def beside_one_that_hangs() -> tuple[int, int]:
        frozen = Scripted([asyncio.Event()])
        good = Scripted(["fine"])
        pool = Pool(
            (member(frozen, "frozen", max_active=2), member(good, "good", max_active=50)),
            BalanceSettings(),
        )
        asks = [Ask(tenant="t", prompt=f"{i} prompt") for i in range(60)]
        tasks = [asyncio.create_task(text_of(pool, ask)) for ask in asks]
        done, waiting = await _settle(tasks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return frozen.n_most, len(done)

    n_frozen, n_done = asyncio.run(beside_one_that_hangs())

    assert n_frozen <= 2
    assert n_done >= 58


async def _settle(
    tasks: list[asyncio.Task[str]],
) -> tuple[set[asyncio.Task[str]], set[asyncio.Task[str]]]:
    """Let everything run that can."""
    for _ in range(500):
        await asyncio.sleep(0)
    done = {task for task in tasks if task.done()}
    return done, set(tasks) - done


def test_when_all_are_full_requests_wait_in_order() -> None:
    """Up to a number; one more is refused, and one that waits too long as well."""

    async def crowd() -> tuple[list[int], list[int], int]:
        gate = asyncio.Event()
        found = Scripted([gate, "x"])
        balance = BalanceSettings(max_waiting=3, wait_s=5)
        pool = pool_of(member(found, max_active=1), balance=balance)
        ended: list[int] = []
        refused: list[int] = []

        async def ask(number: int) -> None:
            try:
                await text_of(pool)
                ended.append(number)
            except BackendFailed:
                refused.append(number)

        tasks = [asyncio.create_task(ask(number)) for number in range(6)]
        await _settle([])
        n_waiting = pool.n_waiting
        gate.set()
        await asyncio.gather(*tasks)
        return ended, refused, n_waiting

    assert asyncio.run(crowd()) == ([0, 1, 2, 3], [4, 5], 3)


def test_waiting_has_an_end() -> None:
    """With status 429, so that clients ask again."""

    async def wait_in_vain() -> int:
        found = Scripted([asyncio.Event()])
        pool = pool_of(member(found, max_active=1), balance=BalanceSettings(wait_s=0.01))
        holding = asyncio.create_task(text_of(pool))
        await _settle([])
        with pytest.raises(BackendFailed) as failed:
            await text_of(pool)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert found.n_open == 0
        assert pool.members[0].n_active == 0
        return refusal_of(failed.value).status

    assert asyncio.run(wait_in_vain()) == 429


def test_a_reader_who_leaves_frees_its_place() -> None:
    """And closes the backend's answer; that says nothing against the backend."""

    async def leave() -> None:
        found = Scripted(["a", asyncio.Event()])
        pool = pool_of(member(found, max_active=1))
        for _ in range(5):
            parts = pool.answer(ASK)
            await anext(parts)
            await parts.aclose()
            assert found.n_open == pool.members[0].n_active == 0
        assert pool.members[0].breaker.state == "closed"

    asyncio.run(leave())


def test_conversations_stay_where_they_began() -> None:
    """Prompts that begin alike go to one backend, others to others."""
    backends = {name: Scripted(["x"]) for name in "abc"}
    pool = Pool([member(one, name) for name, one in backends.items()], BalanceSettings())
    chosen: dict[str, set[str]] = {}

    async def ask_often() -> None:
        for i in range(120):
            beginning = f"beginning {i % 12}"
            told: list[Source] = []
            await text_of(pool, Ask(tenant="t", prompt=beginning, told=told.append))
            chosen.setdefault(beginning, set()).update(one.backend for one in told)

    asyncio.run(ask_often())

    assert all(len(names) == 1 for names in chosen.values())
    assert len(set().union(*chosen.values())) > 1


def test_who_may_not_be_used_is_not() -> None:
    """If that leaves nobody, it is said."""
    found = Scripted(["x"])
    pool = Pool([member(found)], PLAIN, may_use=lambda ask, one: ask.tenant == "t")

    assert asyncio.run(text_of(pool)) == "x"
    with pytest.raises(BackendFailed, match="no backend"):
        asyncio.run(text_of(pool, Ask(tenant="another", prompt="x")))


outcomes = st.sampled_from(["fine", "before", "middle", "busy", "wrong"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(outcomes, min_size=1, max_size=4), min_size=1, max_size=20))
def test_whatever_fails_nothing_is_said_twice(rounds: list[list[str]]) -> None:
    """A reader hears one backend's words from their beginning, or an error; no place is lost."""
    scripts: dict[str, Callable[[], Sequence[str | OnhandError]]] = {
        "fine": lambda: ["1", "2", "3"],
        "before": lambda: [down()],
        "middle": lambda: ["1", "2", down()],
        "busy": lambda: [of_status("a", 429)],
        "wrong": lambda: [InputError("no")],
    }

    async def run() -> None:
        backends = [Scripted() for _ in range(max(len(one) for one in rounds))]
        slept = Slept()
        members = [member(one, str(i), slept=slept) for i, one in enumerate(backends)]
        pool = Pool(members, BalanceSettings(), sleep=slept)
        for one in rounds:
            for backend, outcome in zip(backends, one * 4, strict=False):
                backend.steps = scripts[outcome]()
            heard = ""
            try:
                async with aclosing(pool.answer(ASK)) as parts:
                    async for part in parts:
                        heard += part.text if isinstance(part, Piece) else ""
                assert heard == "123"
            except OnhandError:
                assert heard in {"", "12"}
        assert [one.n_active for one in members] == [0] * len(members)
        assert [one.n_open for one in backends] == [0] * len(backends)

    asyncio.run(run())
