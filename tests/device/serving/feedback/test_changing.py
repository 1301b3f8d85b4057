"""A learned version takes over in a server: at once where it can, and no stream is dropped."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.device.learning.test_in_use import teach
from tests.device.serving.feedback.teaching import FixedLoaded, Teaching, learning_bundle
from tests.device.serving.models.shelves import ask

from onhand.core.errors import InputError
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.versions import Versions
from onhand.device.serving.asks import Ending, Piece
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.shelved import ShelvedModel
from onhand.device.serving.models.versions import Entry
from onhand.device.serving.settings import ModelSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle that can learn."""
    return learning_bundle(tmp_path / "toy").root


@pytest.fixture
def versions(root: Path, home: Path) -> Versions:
    """What was learned of it: nothing yet."""
    return open_versions(root, home)


@pytest.fixture(params=[False, True], ids=["adapts", "opens again"])
def teaching(request: pytest.FixtureRequest) -> Teaching:
    """An engine that takes adapters while it runs, and one that does not."""
    return Teaching(FixedLoaded) if request.param else Teaching()


@pytest.fixture
def shelf(teaching: Teaching, home: Path) -> Iterator[Shelf]:
    """A shelf whose worker is the test."""
    made = Shelf(
        ShelfSettings(watch_s=0.0),
        memory_bytes=2**30,
        home=home,
        open_model=teaching,
        resident=lambda: 0,
        has_thread=False,
    )
    yield made
    made.close()


def entry_of(shelf: Shelf, root: Path, *, version: str = "current") -> Entry:
    """The bundle on the shelf."""
    return shelf.add(ModelSettings(bundle=str(root), name="toy", version=version))


def work(shelf: Shelf) -> None:
    """Do all that is to be done."""
    while shelf.work():
        pass


def says(shelf: Shelf, entry: Entry) -> tuple[str, str]:
    """What the model says, and the fingerprint of what said it."""

    async def ask_it() -> tuple[str, str]:
        model = ShelvedModel(shelf, entry)
        task = asyncio.ensure_future(_answer(model))
        while not task.done():
            await asyncio.sleep(0)
            work(shelf)
        return await task

    return asyncio.run(ask_it())


async def _answer(model: ShelvedModel) -> tuple[str, str]:
    text, fingerprint = "", ""
    async with aclosing(model.answer(ask())) as parts:
        async for part in parts:
            if isinstance(part, Piece):
                text += part.text
            else:
                assert isinstance(part, Ending)
                fingerprint = part.fingerprint
    return text, fingerprint


def test_the_version_in_use_answers(shelf: Shelf, root: Path, versions: Versions) -> None:
    """Opened for the first time after it was learned."""
    teach(versions, 0.25)
    entry = entry_of(shelf, root)

    assert says(shelf, entry)[0] == "learned b"
    assert entry.version.learned.number == 1


def test_a_new_version_takes_over_and_goes_back(
    shelf: Shelf, root: Path, versions: Versions, teaching: Teaching
) -> None:
    """Each has a fingerprint of its own, the same whenever it answers, for caches to go by."""
    entry = entry_of(shelf, root)
    seen = [says(shelf, entry)]
    for change in (
        lambda: teach(versions, 0.25),
        lambda: teach(versions, 0.5, parent=1),
        versions.rollback,
        lambda: versions.rollback(0),
    ):
        change()
        assert shelf.look(entry)
        work(shelf)
        seen.append(says(shelf, entry))
        assert not shelf.look(entry)

    assert [text for text, _ in seen] == ["base", "learned b", "learned c", "learned b", "base"]
    prints = [print_ for _, print_ in seen]
    assert prints[1] == prints[3]
    assert prints[0] == prints[4]
    assert len(set(prints)) == 3
    assert prints[-1] == ShelvedModel(shelf, entry).fingerprint
    assert len(teaching.loaded) == (5 if teaching.kind is FixedLoaded else 1)


def test_what_runs_ends_on_its_own_version(
    shelf: Shelf, root: Path, versions: Versions, teaching: Teaching
) -> None:
    """A stream that has begun goes on while another version takes over, and says whose it was."""
    entry = entry_of(shelf, root)
    as_built = says(shelf, entry)

    async def swap_meanwhile() -> tuple[tuple[str, str], tuple[str, str]]:
        model = ShelvedModel(shelf, entry)
        teaching.steps.clear()
        n_before = len(teaching.loaded[-1].sessions)
        running = asyncio.ensure_future(_answer(model))
        while not any(one.tokens for one in teaching.loaded[-1].sessions[n_before:]):
            await asyncio.sleep(0.001)
        teach(versions, 0.25)
        shelf.look(entry)
        work(shelf)
        teaching.steps.set()
        later = asyncio.ensure_future(_answer(model))
        while not (running.done() and later.done()):
            await asyncio.sleep(0.001)
            work(shelf)
        return await running, await later

    running, later = asyncio.run(swap_meanwhile())

    assert running == as_built
    assert later[0] == "learned b"
    assert later[1] != as_built[1]


def test_nothing_remembered_is_shared_between_versions(
    shelf: Shelf, root: Path, versions: Versions, teaching: Teaching
) -> None:
    """Sessions that ended are forgotten: what they hold was computed with another version."""
    entry = entry_of(shelf, root)
    long = ask(prompt="a" * 30 + "<open>")

    async def text_of(model: ShelvedModel) -> str:
        return "".join([part.text async for part in model.answer(long) if isinstance(part, Piece)])

    async def ask_it() -> str:
        task = asyncio.ensure_future(text_of(ShelvedModel(shelf, entry)))
        while not task.done():
            await asyncio.sleep(0)
            work(shelf)
        return await task

    assert asyncio.run(ask_it()) == "base"
    teach(versions, 0.25)
    shelf.look(entry)
    work(shelf)

    assert asyncio.run(ask_it()) == "learned b"
    assert asyncio.run(ask_it()) == "learned b"


@pytest.mark.parametrize(("version", "text"), [("base", "base"), ("1", "learned b")])
def test_a_version_can_be_pinned(
    shelf: Shelf, root: Path, versions: Versions, version: str, text: str
) -> None:
    """Whatever is learned later, that one answers."""
    teach(versions, 0.25)
    entry = entry_of(shelf, root, version=version)
    teach(versions, 0.5, parent=1)
    shelf.look(entry)
    work(shelf)

    assert says(shelf, entry)[0] == text


def test_a_version_that_is_not_there_is_refused(shelf: Shelf, root: Path) -> None:
    """When the settings are read, and not at the first request."""
    with pytest.raises(InputError, match="no version 4"):
        entry_of(shelf, root, version="4")


def test_a_damaged_version_gives_way_and_is_said(
    shelf: Shelf, root: Path, versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    """The server answers with the nearest sound one."""
    teach(versions, 0.25)
    teach(versions, 0.5, parent=1)
    (versions.folder / "versions" / "0002" / "tensors.safetensors").write_bytes(b"x")

    assert says(shelf, entry_of(shelf, root))[0] == "learned b"
    assert "version 2 is damaged and not used" in caplog.text


def test_a_version_that_cannot_be_read_changes_nothing(
    shelf: Shelf, root: Path, versions: Versions
) -> None:
    """A pointer that was damaged meanwhile: what answers is what can be trusted."""
    entry = entry_of(shelf, root)
    says(shelf, entry)
    teach(versions, 0.25)
    (versions.folder / "current.json").write_bytes(b"{")
    shelf.look(entry)
    work(shelf)

    assert says(shelf, entry)[0] == "base"


@pytest.mark.parametrize("wrong", ["", "newest", "0", "-1", "1.5"])
def test_settings_name_a_version(wrong: str) -> None:
    """current, base or a number."""
    with pytest.raises(InputError, match="must be current, base or a number"):
        ModelSettings(bundle="a", version=wrong)
