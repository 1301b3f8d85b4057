"""A shelf without its thread: each thing that is to be done is done when the test says so."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.device.serving.models.shelves import (
    Clock,
    Openings,
    bundle_saying,
    entry_of,
    shelf_of,
    swap,
)

from onhand.core.errors import EngineBusy, EngineUnavailable, InputError, OnhandError
from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.shelved import ShelvedModel, look_soon, shelved, variant_of
from onhand.device.serving.models.versions import Entry
from onhand.device.serving.refusals import RefusedRequest

MIB = 2**20
# A toy takes about 12 MiB: room for one, with its conversations.
ONE = 20 * MIB


@pytest.fixture
def openings() -> Openings:
    return Openings()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(**more: object) -> Ask:
    given = {"tenant": "t", "prompt": "<open>", "sampling": Sampling(), **more}
    return Ask(**given)  # type: ignore[arg-type] # its fields


async def answered(shelf: Shelf, entry: Entry, variant: str | None = None) -> str:
    """What a model says, with all work of the shelf done meanwhile."""
    model = ShelvedModel(shelf, entry, variant=variant)
    task = asyncio.ensure_future(_text(model))
    while not task.done():
        await asyncio.sleep(0)
        while shelf.work():
            pass
    return await task


async def _text(model: ShelvedModel) -> str:
    return "".join([p.text async for p in model.answer(ask()) if isinstance(p, Piece)])


def says(shelf: Shelf, entry: Entry, variant: str | None = None) -> str:
    return asyncio.run(answered(shelf, entry, variant))


def stages(*entries: Entry) -> list[str]:
    return [entry.place().stage for entry in entries]


@pytest.fixture
def two(tmp_path: Path, openings: Openings, clock: Clock) -> Iterator[tuple[Shelf, Entry, Entry]]:
    """Two models, and room for one."""
    shelf = shelf_of(openings, memory_bytes=ONE, clock=clock)
    yield (
        shelf,
        entry_of(shelf, tmp_path / "a", says="I am a"),
        entry_of(shelf, tmp_path / "b", says="I am b"),
    )
    shelf.close()


def test_a_model_is_opened_when_it_is_asked(
    two: tuple[Shelf, Entry, Entry], openings: Openings
) -> None:
    """Not before, and not again for the next request."""
    shelf, a, _ = two
    assert openings.made == []

    assert says(shelf, a) == "I am a"
    assert says(shelf, a) == "I am a"
    assert openings.made == ["a:float"]


def test_the_longest_unused_model_goes(
    two: tuple[Shelf, Entry, Entry], openings: Openings, clock: Clock
) -> None:
    """After the seconds that it stays at least; its weights are released."""
    shelf, a, b = two
    says(shelf, a)
    clock.now_s += 5

    assert says(shelf, b) == "I am b"
    assert stages(a, b) == ["closed", "open"]
    assert openings.loaded[0].is_closed
    assert shelf.counts() == {"openings": 2, "evictions": 1, "opening_seconds": 0}
    assert sum(shelf.taken_bytes().values()) <= ONE


def test_a_model_that_was_just_opened_stays(
    two: tuple[Shelf, Entry, Entry], openings: Openings, clock: Clock
) -> None:
    """A request for another one waits, and those for the first go on: no thrash."""
    shelf, a, b = two
    says(shelf, a)

    async def scene() -> str:
        waiting = asyncio.ensure_future(_text(ShelvedModel(shelf, b)))
        for _ in range(5):
            await asyncio.sleep(0)
            shelf.work()
        assert stages(a, b) == ["open", "wanted"]
        assert await answered(shelf, a) == "I am a"
        clock.now_s += 1.5
        while not waiting.done():
            await asyncio.sleep(0)
            shelf.work()
        return await waiting

    assert asyncio.run(scene()) == "I am b"
    assert openings.made == ["a:float", "b:float"]


def test_a_model_that_answers_is_not_closed(two: tuple[Shelf, Entry, Entry], clock: Clock) -> None:
    """Its turn ends: it takes no more requests, and goes when its last answer ended."""
    shelf, a, b = two

    async def scene() -> list[list[str]]:
        seen = []
        model = ShelvedModel(shelf, a)
        stream = model.answer(ask())
        first = asyncio.ensure_future(anext(stream))
        while not first.done():
            await asyncio.sleep(0)
            shelf.work()
        clock.now_s += 5
        other = asyncio.ensure_future(_text(ShelvedModel(shelf, b)))
        await asyncio.sleep(0)
        shelf.work()
        late = asyncio.ensure_future(_text(ShelvedModel(shelf, a)))
        await asyncio.sleep(0)
        seen.append(stages(a, b))
        parts = [await first, *[part async for part in stream]]
        assert "".join(part.text for part in parts if isinstance(part, Piece)) == "I am a"
        while not other.done():
            await asyncio.sleep(0)
            shelf.work()
        seen.append(stages(a, b))
        clock.now_s += 5
        while not late.done():
            await asyncio.sleep(0)
            shelf.work()
        assert (await other, await late) == ("I am b", "I am a")
        return [*seen, stages(a, b)]

    assert asyncio.run(scene()) == [["leaving", "wanted"], ["wanted", "open"], ["open", "closed"]]


def test_a_turn_goes_on_when_nobody_waits_for_its_end(
    two: tuple[Shelf, Entry, Entry], clock: Clock
) -> None:
    """The client that wanted the other model left: those who came since are answered at once."""
    shelf, a, b = two

    async def scene() -> str:
        stream = ShelvedModel(shelf, a).answer(ask())
        first = asyncio.ensure_future(anext(stream))
        while not first.done():
            await asyncio.sleep(0)
            shelf.work()
        clock.now_s += 5
        other = asyncio.ensure_future(_text(ShelvedModel(shelf, b)))
        await asyncio.sleep(0)
        shelf.work()
        late = asyncio.ensure_future(_text(ShelvedModel(shelf, a)))
        await asyncio.sleep(0)
        assert stages(a, b) == ["leaving", "wanted"]
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        while not late.done():
            await asyncio.sleep(0)
            shelf.work()
        await stream.aclose()
        return await late

    assert asyncio.run(scene()) == "I am a"
    assert stages(a, b) == ["open", "closed"]


def test_who_waits_too_long_is_told_to_ask_again(
    two: tuple[Shelf, Entry, Entry], clock: Clock
) -> None:
    """With 503 and Retry-After; the place in the queue is free then."""
    shelf, a, b = two

    async def scene() -> None:
        lease = asyncio.ensure_future(shelf.lease(a))
        await asyncio.sleep(0)
        shelf.work()
        held = await lease
        other = asyncio.ensure_future(shelf.lease(b))
        await asyncio.sleep(0)
        shelf.work()
        clock.now_s += 61
        shelf.work()
        with pytest.raises(RefusedRequest, match="ask again") as refused:
            await other
        assert refused.value.refusal.status == 503
        assert refused.value.refusal.headers["Retry-After"]
        held.release()
        held.release()

    asyncio.run(scene())
    assert stages(a, b) == ["open", "closed"]
    assert a.place().n_leases == 0


def test_as_many_wait_as_may(tmp_path: Path, openings: Openings) -> None:
    """One more is told so at once."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", max_waiting=1)

    async def scene() -> None:
        waiting = [asyncio.ensure_future(shelf.lease(entry)) for _ in range(3)]
        await asyncio.sleep(0)
        shelf.work()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(one, EngineBusy) for one in found] == [False, False, True]

    asyncio.run(scene())
    shelf.close()


def test_a_model_that_does_not_fit_even_alone_is_refused(
    tmp_path: Path, openings: Openings
) -> None:
    """With both numbers, before anything is opened; the official client does not ask again."""
    shelf = shelf_of(openings, memory_bytes=5 * MIB)
    entry = entry_of(shelf, tmp_path / "a")

    with pytest.raises(RefusedRequest, match=f"about [0-9]{{8}} bytes.*take {5 * MIB}") as refused:
        says(shelf, entry)

    assert refused.value.refusal.headers == {"x-should-retry": "false"}
    assert openings.made == []
    assert stages(entry) == ["closed"]
    shelf.close()


def test_a_failure_is_told_to_all_who_wait(
    tmp_path: Path, openings: Openings, clock: Clock
) -> None:
    """It is not tried again for each request, but it is after a while."""
    shelf = shelf_of(openings, clock=clock)
    entry = entry_of(shelf, tmp_path / "a")
    openings.failing.add("a")

    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="out of luck"):
            says(shelf, entry)
    assert openings.made == ["a:float"]
    openings.failing.clear()
    clock.now_s += 10

    assert says(shelf, entry) == "yes"
    shelf.close()


def test_what_is_not_asked_is_closed_after_a_while(
    tmp_path: Path, openings: Openings, clock: Clock
) -> None:
    """`keep_s` after its last answer, and not before."""
    shelf = shelf_of(openings, clock=clock)
    kept, left = entry_of(shelf, tmp_path / "a"), entry_of(shelf, tmp_path / "b", keep_s=30.0)
    says(shelf, kept)
    says(shelf, left)
    clock.now_s += 29
    assert not shelf.work()

    clock.now_s += 1
    while shelf.work():
        pass
    assert stages(kept, left) == ["open", "closed"]
    shelf.close()


def test_a_variant_is_asked_by_its_name(tmp_path: Path, openings: Openings) -> None:
    """Beside the default; a name that is no variant is none."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a")
    models = {"a": shelved(shelf, entry)}
    other = variant_of(models, "a:other")
    assert isinstance(other, ShelvedModel)
    assert variant_of(models, "a:none") is None
    assert variant_of(models, "b:other") is None

    assert says(shelf, entry, "other") == "yes"
    assert openings.made == ["a:other"]
    assert (other.name, other.fingerprint != models["a"].fingerprint) == ("a:other", True)  # type: ignore[union-attr] # a model that answers in text
    shelf.close()


def test_another_variant_takes_over_once_it_is_open(tmp_path: Path, openings: Openings) -> None:
    """Until then the one before answers."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a")
    model = ShelvedModel(shelf, entry)
    says(shelf, entry)

    model.prefer_variant("other")
    before = entry.place().facts.variant
    while shelf.work():
        pass

    assert (before, entry.place().facts.variant) == ("float", "other")
    assert openings.made == ["a:float", "a:other"]
    with pytest.raises(InputError, match="no variant 'int4' here; there are float, other"):
        model.prefer_variant("int4")
    model.prefer_variant("float")  # it is open still
    assert entry.place().facts.variant == "float"
    shelf.close()


def test_a_variant_that_has_no_room_beside_replaces_the_other(
    tmp_path: Path, openings: Openings, clock: Clock
) -> None:
    """New requests wait for it, and the one before goes."""
    shelf = shelf_of(openings, memory_bytes=ONE, clock=clock)
    entry = entry_of(shelf, tmp_path / "a")
    says(shelf, entry)
    clock.now_s += 5

    ShelvedModel(shelf, entry).prefer_variant("other")

    assert entry.place().facts.variant == "other"
    assert says(shelf, entry) == "yes"
    assert entry.version.places["float"].stage == "closed"
    shelf.close()


def test_a_replaced_bundle_answers_once_it_is_open(tmp_path: Path, openings: Openings) -> None:
    """What answers goes on to its end with the old one, which is closed then."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", says="the old one answers")

    async def scene() -> tuple[str, str]:
        model = ShelvedModel(shelf, entry)
        stream = model.answer(ask())
        first = asyncio.ensure_future(anext(stream))
        while not first.done():
            await asyncio.sleep(0)
            shelf.work()
        before = model.fingerprint
        swap(tmp_path / "a", "the new one")
        assert model.reload()
        assert model.fingerprint == before
        while shelf.work():
            pass
        assert model.fingerprint != before
        new = await answered(shelf, entry)
        parts = [await first, *[part async for part in stream]]
        ending = parts[-1]
        assert isinstance(ending, Ending)
        assert ending.fingerprint == before
        return "".join(part.text for part in parts if isinstance(part, Piece)), new

    assert asyncio.run(scene()) == ("the old one answers", "the new one")
    assert [one.is_closed for one in openings.loaded] == [False, False]
    while shelf.work():
        pass
    assert [one.is_closed for one in openings.loaded] == [True, False]
    assert entry.old == []
    shelf.close()


def test_what_answers_stays_where_the_new_one_fails(
    tmp_path: Path, openings: Openings, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, it is not tried again and again, and may be when somebody asks for it."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", says="old")
    says(shelf, entry)
    swap(tmp_path / "a", "new")
    (tmp_path / "a" / "answer.txt").write_text("changed")
    sizes = len("changed")
    assert sizes != len("new")

    assert shelf.look(entry)
    while shelf.work():
        pass
    shelf.work()

    assert says(shelf, entry) == "old"
    assert "what answers stays" in caplog.text
    assert "expected" in caplog.text
    assert not shelf.look(entry)
    (tmp_path / "a" / "answer.txt").write_text("new")
    assert shelf.look(entry, again=True)
    while shelf.work():
        pass
    assert says(shelf, entry) == "new"
    shelf.close()


def test_a_bundle_that_nobody_uses_is_replaced_at_once(tmp_path: Path, openings: Openings) -> None:
    """Nothing is opened for it; while no bundle lies there, the old facts hold."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", says="old")
    before = entry.version.bundle_sha256
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    assert not shelf.look(entry)
    assert entry.version.bundle_sha256 == before
    bundle_saying(tmp_path / "a", "new")

    assert shelf.look(entry)
    assert entry.version.bundle_sha256 != before
    assert openings.made == []
    assert says(shelf, entry) == "new"
    shelf.close()


def test_who_waits_while_a_bundle_is_replaced_gets_the_new_one(
    tmp_path: Path, openings: Openings
) -> None:
    """The old one was about to be opened, and is there no more."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", says="old")
    swap(tmp_path / "a", "new")

    assert says(shelf, entry) == "new"
    shelf.close()


def test_a_pointer_says_where_the_bundle_lies(tmp_path: Path, openings: Openings) -> None:
    """A link, or a text file with the path: when it points elsewhere, the bundle was replaced."""
    bundle_saying(tmp_path / "versions" / "1", "one")
    bundle_saying(tmp_path / "versions" / "2", "two")
    (tmp_path / "linked").symlink_to(tmp_path / "versions" / "1")
    (tmp_path / "pointed").write_text("versions/1\n")
    shelf = shelf_of(openings)
    linked, pointed = (entry_of(shelf, tmp_path / name) for name in ("linked", "pointed"))
    assert (says(shelf, linked), says(shelf, pointed)) == ("one", "one")

    (tmp_path / "new").symlink_to(tmp_path / "versions" / "2")
    (tmp_path / "new").rename(tmp_path / "linked")
    (tmp_path / "pointed").write_text("versions/2")
    look_soon({"a": shelved(shelf, linked)})
    while shelf.work():
        pass

    assert (says(shelf, linked), says(shelf, pointed)) == ("two", "two")
    shelf.close()


def test_bundles_are_looked_at_now_and_then(
    tmp_path: Path, openings: Openings, clock: Clock
) -> None:
    """Every `watch_s` seconds, without anybody's asking."""
    shelf = shelf_of(openings, clock=clock, settings=ShelfSettings(watch_s=2.0))
    entry = entry_of(shelf, tmp_path / "a", says="old")
    swap(tmp_path / "a", "new")
    before = entry.version.bundle_sha256
    shelf.work()
    assert entry.version.bundle_sha256 == before

    clock.now_s += 2
    shelf.work()
    assert entry.version.bundle_sha256 != before
    shelf.close()


def test_a_budget_follows_what_is_free(tmp_path: Path, openings: Openings, clock: Clock) -> None:
    """Less a margin; when others take it, idle models go."""
    free = 100 * MIB
    shelf = Shelf(
        ShelfSettings(watch_s=2.0, margin=0.1, margin_bytes=4 * MIB),
        open_model=openings,
        free_bytes=lambda: free,
        resident=lambda: 0,
        clock=clock,
        has_thread=False,
    )
    assert shelf.total_bytes == 90 * MIB
    entry = entry_of(shelf, tmp_path / "a")
    says(shelf, entry)
    taken = sum(shelf.taken_bytes().values())
    clock.now_s += 2
    shelf.work()
    assert shelf.total_bytes == 90 * MIB + taken

    free = 3 * MIB
    clock.now_s += 2
    while shelf.work():
        pass
    assert shelf.total_bytes == taken
    assert stages(entry) == ["open"]  # it was there before: nobody else's memory was needed for it
    shelf.close()


def test_what_is_set_aside_is_not_for_models(tmp_path: Path, openings: Openings) -> None:
    """As for a cache in memory."""
    shelf = shelf_of(openings, memory_bytes=ONE)
    entry = entry_of(shelf, tmp_path / "a")
    shelf.set_aside(15 * MIB)

    assert not shelf.fits_alone(entry)
    assert shelf.taken_bytes()["caches"] == 15 * MIB
    with pytest.raises(OnhandError, match="needs about"):
        says(shelf, entry)
    shelf.close()


def test_a_closed_shelf_refuses(tmp_path: Path, openings: Openings) -> None:
    """Those who wait are told, and so is who comes later; all weights are released."""
    shelf = shelf_of(openings)
    entry, waiting = entry_of(shelf, tmp_path / "a"), entry_of(shelf, tmp_path / "b")
    says(shelf, entry)

    async def scene() -> None:
        task = asyncio.ensure_future(shelf.lease(waiting))
        await asyncio.sleep(0)
        ShelvedModel(shelf, waiting).break_off()
        with pytest.raises(EngineUnavailable, match="being closed"):
            await task
        shelf.close()
        shelf.close()
        with pytest.raises(EngineUnavailable, match="closed"):
            await shelf.lease(entry)

    asyncio.run(scene())
    assert [one.is_closed for one in openings.loaded] == [True]
    assert sum(shelf.taken_bytes().values()) == 0


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path, openings: Openings) -> None:
    """Before anything else is tried."""
    shelf = shelf_of(openings)
    (tmp_path / "a").mkdir()

    with pytest.raises(InputError, match=r"not a bundle: it has no manifest\.json"):
        entry_of(shelf, tmp_path / "a")
