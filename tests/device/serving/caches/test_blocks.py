"""Blocks on the disk: found by their beginning, within bounds, by their owner, or not at all."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.device.serving.caches.span_toys import SpanToy

from onhand.core.errors import ResourceError
from onhand.device.serving.caches.block_index import ROW_BYTES
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.chains import Chains
from onhand.device.serving.caches.model_blocks import ModelBlocks
from onhand.device.serving.caches.seals import MacSealer

SECRET = b"s" * 32
LEAST = 16


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of blocks."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "blocks"


def opened(folder: Path, **given: object) -> BlockStore:
    settings: dict[str, object] = {"secret": SECRET, "most_bytes": 2**20, **given}
    return BlockStore(folder, **settings)  # type: ignore[arg-type] # as given


def keep(store: BlockStore, tokens: list[int] | range, *, tenant: str = "a", way: str = "") -> None:
    """A conversation ended that remembers these tokens; wait until it is written."""
    session = SpanToy(10_000)
    session.tokens = list(tokens)
    ModelBlocks(store=store, way=way, size=64).keep(
        tenant, session, np.array(session.tokens, dtype=np.int64)
    )
    store.flush()


def restored(
    store: BlockStore,
    tokens: list[int] | range,
    *,
    tenant: str = "a",
    way: str = "",
    known: int = 0,
) -> int:
    """How many tokens a session knows that knew some; they are the right ones."""
    session = SpanToy(10_000)
    session.tokens = list(tokens[:known])
    row = np.array(tokens, dtype=np.int64)
    gained = ModelBlocks(store=store, way=way, size=64).restore(tenant, session, row)
    assert session.tokens == list(tokens[: session.length])
    assert gained == session.length - known
    return session.length


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".block")


def test_a_conversation_outlives_the_process(folder: Path) -> None:
    """All of it, also the end that fills no block."""
    store = opened(folder)
    keep(store, range(220))
    store.close()

    again = opened(folder)

    assert restored(again, range(500)) == 220
    assert again.counts.hits == 1
    assert again.counts.restored_tokens == 220
    again.close()


def test_a_prompt_parts_within_a_block(folder: Path) -> None:
    """The tokens before it parts are found, of the nearest of several."""
    store = opened(folder)
    keep(store, [*range(100), 7, 7, 7])
    keep(store, [*range(110), 8, 8])
    keep(store, [*range(90), 9])

    assert restored(store, range(300)) == 110
    assert restored(store, [*range(95), 1, 1]) == 95
    store.close()


def test_what_memory_knows_is_not_read(folder: Path) -> None:
    """Blocks go on where the session ends; where they know little more, nothing is done."""
    store = opened(folder)
    keep(store, range(220))

    assert restored(store, range(300), known=70) == 220
    assert restored(store, range(300), known=210) == 210
    assert restored(store, range(220), known=220) == 220
    assert store.counts.hits == 1
    assert store.counts.misses == 0
    store.close()


def test_a_block_beyond_the_context_is_left_out(folder: Path) -> None:
    """A smaller session takes the blocks that fit."""
    store = opened(folder)
    keep(store, range(220))
    session = SpanToy(150)

    ModelBlocks(store=store, way="", size=64).restore("a", session, np.arange(149))

    assert session.tokens == list(range(128))
    store.close()


def test_an_end_is_replaced_by_what_it_became(folder: Path) -> None:
    """One file each for the block and its longer end; nothing is there twice."""
    store = opened(folder)
    for n in (90, 100, 128, 128, 150):
        keep(store, range(n))

    assert store.n_blocks == len(files(folder)) == 3
    assert store.counts.written == 5
    keep(store, range(140))  # the beginning of what is there
    assert store.counts.written == 5
    store.close()


def test_the_latest_are_read_before_anybody_asks(folder: Path) -> None:
    """Within their bytes, beginnings first; each is given up when it is used."""
    store = opened(folder)
    keep(store, range(192))
    keep(store, range(1000, 1192))
    sizes = {path.stat().st_size for path in files(folder)}
    store.close()

    again = opened(folder, warm_bytes=2 * (max(sizes) + ROW_BYTES))
    again.flush()
    keep(again, range(5000, 5100))  # the thread has warmed up by then
    held = again.n_warm_bytes

    assert 0 < held <= 2 * max(sizes)
    assert restored(again, range(192)) == 192
    assert again.n_warm_bytes == held
    assert restored(again, range(1000, 1192)) == 192
    assert again.n_warm_bytes == 0
    again.close()


def test_few_tokens_are_not_worth_a_file(folder: Path) -> None:
    """Neither to write nor to read."""
    store = opened(folder)
    keep(store, range(LEAST - 1))
    assert store.n_blocks == 0

    keep(store, range(LEAST))

    assert restored(store, range(LEAST)) == LEAST
    assert restored(store, [*range(LEAST - 1), 99]) == 0
    assert store.counts.misses == 1
    store.close()


Talks = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 200), st.lists(st.integers(0, 1), max_size=80)),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(talks=Talks, asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 280)), max_size=5))
def test_the_longest_beginning_is_found(
    talks: list[tuple[int, int, list[int]]], asked: list[tuple[int, int]]
) -> None:
    """As comparing with every conversation does; each goes on from a part of an earlier one."""
    said: list[list[int]] = [[i % 7 for i in range(200)]]
    for of, n, more in talks:
        said.append(said[of % len(said)][:n] + more)
    with tempfile.TemporaryDirectory() as place:
        store = opened(Path(place))
        for talk in said[1:]:
            keep(store, talk)
        for of, n in asked:
            prompt = said[of % len(said)][:n] + [5] * 20
            expected = max((_shared(_kept(talk), prompt) for talk in said[1:]), default=0)

            assert restored(store, prompt) == (expected if expected >= LEAST else 0)
        store.close()


def _kept(talk: list[int]) -> list[int]:
    end = len(talk) % 64
    return talk if end >= LEAST else talk[: len(talk) - end]


def _shared(some: list[int], others: list[int]) -> int:
    n = min(len(some), len(others))
    return next((i for i in range(n) if some[i] != others[i]), n)


def test_the_longest_unused_goes(folder: Path) -> None:
    """From its end on; what was read last stays."""
    store = opened(folder, most_bytes=6 * 1750)  # a block here takes some 1,700 bytes
    keep(store, range(128))
    keep(store, range(1000, 1128))
    assert restored(store, range(128)) == 128

    keep(store, range(2000, 2192))

    assert restored(store, range(2000, 2192)) == 192
    assert restored(store, range(128)) == 128
    assert restored(store, range(1000, 1128)) == 64
    assert store.counts.evicted == 1
    store.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), max_size=10),
    most=st.integers(0, 9000),
)
def test_the_budget_holds(lengths: list[tuple[int, int]], most: int) -> None:
    """Whatever comes; and no block is without those before it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = opened(folder, most_bytes=most)
        for first, n in lengths:
            keep(store, [first, *range(n)])
            on_disk = sum(path.stat().st_size for path in files(folder))

            assert on_disk + ROW_BYTES * store.n_blocks == store.n_bytes <= most
            assert _orphans(folder) == 0
        store.close()
        smaller = opened(folder, most_bytes=most // 2)
        assert smaller.n_bytes <= most // 2
        assert _orphans(folder) == 0
        smaller.close()


def _orphans(folder: Path) -> int:
    with sqlite3.connect(folder / "index.sqlite") as rows:
        asked = (
            "SELECT count(*) FROM blocks WHERE place > 0 AND parent NOT IN (SELECT key FROM blocks)"
        )
        found = int(rows.execute(asked).fetchone()[0])
    rows.close()
    return found


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
    assert _orphans(folder) == 0
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
    assert _orphans(folder) == 0
    assert max(restored(store, [first, *range(300)]) for first in range(50)) == 301
    assert store.counts.damaged == 0
    store.close()
