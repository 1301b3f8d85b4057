"""Blocks on the disk that are damaged, foreign, half there, or not to be had at all."""

import errno
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from tests.device.serving.caches.kept_blocks import SECRET, files, keep, opened, orphans, restored
from tests.device.serving.caches.span_toys import SpanToy

from onhand.core.errors import ResourceError
from onhand.device.serving.caches.chains import Chains
from onhand.device.serving.caches.model_blocks import ModelBlocks
from onhand.device.serving.caches.seals import MacSealer


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of blocks."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "blocks"


def test_attack_other_tenants_find_nothing(folder: Path) -> None:
    """Nor do other models and ways of computing."""
    store = opened(folder)
    keep(store, range(220), way="exact")

    assert restored(store, range(220), way="exact", tenant="b") == 0
    assert restored(store, range(220), way="bf16") == 0
    other = SpanToy(1000, "another model")
    assert ModelBlocks(store=store, way="exact", size=64).restore("a", other, np.arange(220)) == 0
    assert restored(store, range(220), way="exact") == 220
    store.close()


def cut(path: Path, other: Path) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path, other: Path) -> None:
    """A byte too many."""
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path, other: Path) -> None:
    """Nothing is left, as after a loss of power."""
    path.write_bytes(b"")


def turned(path: Path, other: Path) -> None:
    """One bit is another."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def swapped(path: Path, other: Path) -> None:
    """A whole block, valid elsewhere: another tenant's."""
    path.write_bytes(other.read_bytes())


def a_link(path: Path, other: Path) -> None:
    """To a file outside."""
    path.unlink()
    path.symlink_to(other)


def a_folder(path: Path, other: Path) -> None:
    """No file at all."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("attack", [cut, longer, empty, turned, swapped, a_link])
def test_attack_a_damaged_block_is_a_miss(
    folder: Path, attack: Callable[[Path, Path], None]
) -> None:
    """It is removed with what follows it; what comes before it is as good as ever."""
    store = opened(folder)
    keep(store, range(220), tenant="b")
    (others := folder.parent / "others").mkdir()
    theirs = files(folder)[0]
    theirs.rename(others / "theirs")
    mine: list[Path] = []
    for n in (64, 128, 192):
        before = set(files(folder))
        keep(store, range(n))
        mine += set(files(folder)) - before
    attack(mine[1], others / "theirs")

    assert restored(store, range(192)) == 64
    assert store.counts.damaged <= 1
    assert not any(path.is_file() for path in mine[1:])
    keep(store, range(192))
    assert restored(store, range(192)) == 192
    store.close()


def test_attack_what_cannot_be_removed_is_a_miss(folder: Path) -> None:
    """A folder in a block's place; prompts are computed, and no more."""
    store = opened(folder)
    keep(store, range(64))
    a_folder(files(folder)[0], folder)

    assert restored(store, range(64)) == 0
    assert restored(store, range(64)) == 0
    store.close()


def test_attack_an_index_that_lies(folder: Path) -> None:
    """It says of a block that it begins with other tokens: the block itself says which."""
    store = opened(folder)
    keep(store, range(40))
    chains = Chains(SECRET)
    session = SpanToy(100)
    start = chains.start("a", session.span_key, 64)
    with sqlite3.connect(folder / "index.sqlite") as rows:
        forged = chains.tags(start, np.arange(500, 540))
        rows.execute("UPDATE blocks SET tags = ?", (forged.tobytes(),))
    rows.close()

    assert restored(store, range(500, 540)) == 0
    assert store.counts.damaged == 1
    store.close()


def test_attack_files_of_strangers_are_removed(folder: Path) -> None:
    """So is what a killed process left half there; what belongs to nobody's name stays alone."""
    store = opened(folder)
    keep(store, range(220))
    store.close()
    (folder / f"{'0' * 64}.block").write_bytes(b"x")
    (folder / ".writing-abc").write_bytes(b"x")
    files(folder)[1].unlink()

    again = opened(folder)

    assert {path.suffix for path in folder.iterdir()} <= {".block", ".sqlite", ".sqlite-wal"} | {
        ".sqlite-shm"
    }
    assert not (folder / f"{'0' * 64}.block").exists()
    assert again.n_blocks == len(files(folder))
    assert orphans(folder) == 0
    again.close()


@pytest.mark.parametrize("content", [b"", b"nothing", b"SQLite format 3\0" + b"\xff" * 5000])
def test_attack_a_damaged_index_is_begun_anew(folder: Path, content: bytes) -> None:
    """With no blocks: what is on the disk can be computed again."""
    store = opened(folder)
    keep(store, range(220))
    store.close()
    for suffix in ("-wal", "-shm"):
        (folder / f"index.sqlite{suffix}").unlink(missing_ok=True)
    (folder / "index.sqlite").write_bytes(content)

    again = opened(folder)

    assert again.n_blocks == len(files(folder)) == 0
    keep(again, range(220))
    assert restored(again, range(220)) == 220
    again.close()


def test_only_its_owner_may_read_it(folder: Path) -> None:
    """Folder, files and index."""
    store = opened(folder)
    keep(store, range(64))

    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    store.close()


def test_no_text_is_in_the_index(folder: Path) -> None:
    """Its tags and names come from a secret: who has the same tokens cannot make them."""
    store = opened(folder)
    keep(store, range(220))
    store.close()
    content = (folder / "index.sqlite").read_bytes()

    for width in ("<u2", "<u4", "<i8"):
        assert np.arange(8, dtype=width).tobytes() not in content


def test_a_vault_may_seal(folder: Path) -> None:
    """Bytes in, bytes out, each for its place; another vault's blocks are misses."""

    class Reversed(MacSealer):
        """A seal that nobody would call secret."""

        def seal(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self, content: bytes, *, place: bytes
        ) -> bytes:
            return super().seal(content[::-1], place=place)

        def unseal(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self, sealed: bytes | memoryview, *, place: bytes
        ) -> memoryview:
            return memoryview(bytes(super().unseal(sealed, place=place))[::-1])

    store = opened(folder, sealer=Reversed(SECRET))
    keep(store, range(220))
    assert restored(store, range(220)) == 220
    store.close()

    plain = opened(folder)

    assert restored(plain, range(220)) == 0
    plain.close()


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is half there, and once there is room again it goes on."""
    store = opened(folder)

    def full(*args: object, **given: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkstemp", full)
        keep(store, range(220))

    assert (store.n_blocks, store.counts.skipped) == (0, 1)
    keep(store, range(220))
    assert restored(store, range(220)) == 220
    store.close()


def test_the_last_of_the_disk_is_left_to_others(folder: Path) -> None:
    """However much may be kept."""
    store = opened(folder, free_bytes=lambda: 2**27)
    keep(store, range(220))

    assert (store.n_blocks, store.counts.skipped) == (0, 1)
    store.close()


def test_writing_never_keeps_an_answer_waiting(folder: Path) -> None:
    """What comes while much waits is not kept; forks are closed."""
    may_go = threading.Event()

    class Slow(MacSealer):
        """Waits."""

        def seal(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self, content: bytes, *, place: bytes
        ) -> bytes:
            may_go.wait(20)
            return super().seal(content, place=place)

    made: list[SpanToy] = []

    class Counted(SpanToy):
        """Its forks are known."""

        def fork(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self,
        ) -> SpanToy:
            made.append(super().fork())
            return made[-1]

    store = opened(folder, sealer=Slow(SECRET))
    for first in range(20):
        session = Counted(1000)
        session.tokens = [first, *range(99)]
        ModelBlocks(store=store, way="", size=64).keep("a", session, np.array(session.tokens))

    assert store.counts.skipped >= 11
    assert store.n_waiting == len(made) == 20 - store.counts.skipped
    may_go.set()
    store.close()
    assert all(fork.is_closed for fork in made)
    again = opened(folder)
    assert again.n_blocks == 2 * len(made)
    again.close()


def test_a_closed_store_keeps_and_finds_nothing(folder: Path) -> None:
    """And is closed twice."""
    store = opened(folder)
    keep(store, range(220))
    store.close()
    store.close()

    keep(store, range(300))
    assert restored(store, range(220)) == 0
    assert store.n_bytes == store.n_blocks == 0


def test_a_place_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="blocks cannot be kept there"):
        opened(tmp_path / "file")


ENDLESS = """
import sys
import numpy as np
from pathlib import Path
from tests.device.serving.caches.span_toys import SpanToy
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.model_blocks import ModelBlocks
store = BlockStore(Path(sys.argv[1]), secret=b"s" * 32, most_bytes=60_000)
for first in range(10_000):
    session = SpanToy(1000)
    session.tokens = [first % 50, *range(300)]
    ModelBlocks(store=store, way="", size=64).keep("a", session, np.array(session.tokens))
    store.flush()
    print(first, flush=True)
"""


@pytest.mark.parametrize("n_lines", [1, 20])
def test_kill_leaves_a_readable_store(folder: Path, n_lines: int) -> None:
    """At any moment: what is there is right, and files and index agree."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert process.stdout is not None
    for _ in range(n_lines):
        assert process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()

    store = opened(folder, most_bytes=60_000)

    assert store.n_blocks == len(files(folder)) > 0
    assert store.n_bytes <= 60_000
    assert orphans(folder) == 0
    assert max(restored(store, [first, *range(300)]) for first in range(50)) == 301
    assert store.counts.damaged == 0
    store.close()
