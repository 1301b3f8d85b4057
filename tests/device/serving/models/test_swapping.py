"""Other variants and other versions of a bundle take over; see `test_shelf` for the rest."""

import asyncio
from pathlib import Path

import pytest
from tests.device.serving.models.shelves import (
    Clock,
    Openings,
    answered,
    ask,
    bundle_saying,
    entry_of,
    says,
    shelf_of,
    swap,
)

from onhand.core.errors import InputError
from onhand.device.serving.asks import Ending, Piece
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.shelved import ShelvedModel, look_soon, shelved, variant_of
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
    assert (other.name, other.fingerprint != models["a"].fingerprint) == (
        "a:other",
        True,
    )  # a model that answers in text
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
        model.govern_variant("other")  # again and again

    assert (before, entry.place().facts.variant) == ("float", "other")
    assert openings.made == ["a:float", "a:other"]
    with pytest.raises(InputError, match="no variant 'int4' here; there are float, other"):
        model.prefer_variant("int4")
    model.govern_variant("other")
    assert entry.place().facts.variant == "other"
    assert len(model.governables()) == 2
    model.govern_variant(None)  # it is open still
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


def test_who_asks_for_another_version_hears_that_there_is_none(
    tmp_path: Path, openings: Openings
) -> None:
    """Nothing at its place, or what cannot be used; the version that answers stays."""
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a", says="yes")
    model = ShelvedModel(shelf, entry)
    says(shelf, entry)
    assert not model.reload()

    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(RefusedRequest, match="there is no bundle at the place of a") as missing:
        model.reload()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text("{}")
    with pytest.raises(RefusedRequest, match="cannot be used: see the log") as unusable:
        model.reload()

    assert {missing.value.refusal.status, unusable.value.refusal.status} == {409}
    assert says(shelf, entry) == "yes"
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
        model.govern_variant(None)  # it does not keep the new one from coming
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
