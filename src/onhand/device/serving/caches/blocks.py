"""What conversations remember, in blocks on the disk: a prompt's beginning outlives the process.

    FOLDER/index.sqlite   which blocks there are
    FOLDER/HEX.block      one block: its tokens and the engine's bytes for them, sealed

Blocks are found by a chain of hashes over the tokens (`chains`), so a prompt finds the longest
beginning that any conversation of its tenant had, and within the block where the two part, the
tokens before that. They are read when a prompt comes, and written by a thread of the store's own.
"""

import contextlib
import logging
import queue
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import ContextOverflow, InputError, OnhandError, ResourceError
from onhand.device.engines.span_session import SpanSession
from onhand.device.serving.caches.block_counts import BlockCounts
from onhand.device.serving.caches.block_files import BlockFiles, Room
from onhand.device.serving.caches.block_index import ROW_BYTES, BlockIndex
from onhand.device.serving.caches.chains import Chains, Link, Tags, n_shared
from onhand.device.serving.caches.seals import MacSealer, Sealer
from onhand.device.serving.caches.warm_blocks import WarmBlocks

__all__ = ["BlockStore"]

_LOG = logging.getLogger("onhand.serving")
# Fewer are computed as soon as they are read, and not worth a file.
_LEAST_TOKENS: Final = 16
# Conversations that wait to be written; what comes beyond is not kept this time.
_MOST_WAITING: Final = 8
# Of the disk, left to everybody else.
_SPARE_BYTES: Final = 256 * 2**20
_CLOSE_S: Final = 10.0
_READERS: Final = 4
# Blocks that are read before the one that is loaded.
_AHEAD: Final = 3


@dataclass(frozen=True, slots=True)
class _Job:
    start: bytes
    tokens: TokenArray
    size: int
    session: SpanSession  # the job's own, closed when it is done


class BlockStore:
    """Blocks in one folder, within a number of bytes. May be shared between threads.

    Where the disk fails, prompts are computed and nothing else happens. Several processes may use
    one folder.

    Attributes:
        chains: names blocks.
        warm: the latest blocks, in memory.
    """

    def __init__(
        self,
        folder: Path,
        *,
        secret: bytes,
        most_bytes: int,
        warm_bytes: int = 0,
        sealer: Sealer | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        """Open the folder, remove what does not belong to it, and start its thread.

        Args:
            folder: made if it is missing.
            secret: of `onhand.device.serving.secret.server_secret`.
            most_bytes: of all blocks; the longest unused goes first.
            warm_bytes: in memory, of the latest blocks, which are read as soon as the store is
                open; each is given up when it is asked for.
            sealer: how files are sealed; None for a code of their contents alone.
            free_bytes: what the disk has left; None asks the system.

        Raises:
            ResourceError: if the folder cannot be used.
        """
        self.chains = Chains(secret)
        self._counts = BlockCounts()
        self._counting = threading.Lock()
        self._most_bytes = most_bytes
        self.warm = WarmBlocks(warm_bytes)
        self._free_bytes = free_bytes or (lambda: shutil.disk_usage(folder).free)
        try:
            self._files = BlockFiles(folder, sealer or MacSealer(secret))
            self._index = BlockIndex(folder / "index.sqlite")
            self._clean()
        except (OSError, sqlite3.Error) as error:
            raise ResourceError(f"{folder}: blocks cannot be kept there: {error}") from error
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MOST_WAITING)
        self._is_closed = False
        self._reader = ThreadPoolExecutor(_READERS, thread_name_prefix="onhand-blocks-read")
        self._touching: set[Future[None]] = set()
        self._writer = threading.Thread(target=self._work, name="onhand-blocks", daemon=True)
        self._writer.start()

    @property
    def counts(self) -> BlockCounts:
        """What happened so far."""
        return self._counts

    @property
    def n_bytes(self) -> int:
        """What blocks take, their rows in the index included."""
        return self._asked(lambda: self._index.n_bytes)

    @property
    def n_blocks(self) -> int:
        """Blocks that are kept."""
        return self._asked(lambda: self._index.n_blocks)

    @property
    def n_waiting(self) -> int:
        """Conversations that are not written yet."""
        return self._jobs.unfinished_tasks

    def restore(self, start: bytes, session: SpanSession, tokens: TokenArray, *, size: int) -> int:
        """Let a session remember more of a prompt's beginning, as far as blocks are there.

        Args:
            start: of the tenant's chains.
            session: it remembers the first `length` of `tokens`, and is nobody else's meanwhile;
                what it remembers in a part of a block may be replaced by the whole block.
            tokens: (T,) int64, the beginning that may be remembered.
            size: tokens of a block.

        Returns:
            How many tokens it remembers more than before.
        """
        before = session.length
        if self._is_closed or tokens.size - before < _LEAST_TOKENS:
            return 0
        try:
            links, total = self._found(start, tokens, size)
            if total - before >= _LEAST_TOKENS:
                self._read(links, session, total)
        except (OSError, sqlite3.Error, OnhandError, RuntimeError) as error:
            # The last where another thread closes the store meanwhile.
            _LOG.warning("blocks could not be read: %s", error)
        gained = session.length - before
        if gained > 0:
            self._count(hits=1, restored_tokens=gained)
        elif before == 0:
            self._count(misses=1)
        return gained

    def keep(self, start: bytes, session: SpanSession, tokens: TokenArray, *, size: int) -> None:
        """Write what a session remembers, soon, as far as it is not there yet.

        Args:
            start: of the tenant's chains.
            session: the caller's; a fork of it is written.
            tokens: (T,) int64, all that it remembers.
            size: tokens of a block.
        """
        if self._is_closed or tokens.size < _LEAST_TOKENS:
            return
        try:
            if self._is_kept(start, tokens, size):
                return
        except sqlite3.Error:
            return
        if self._jobs.full():
            self._count(skipped=1)
            return
        job = _Job(start, np.array(tokens), size, session.fork())
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            job.session.close()
            self._count(skipped=1)

    def flush(self) -> None:
        """Wait until everything that was to be kept is written, and what was read is marked."""
        self._jobs.join()
        wait(self._touching.copy())

    def close(self) -> None:
        """Write what waits, for some seconds at most, and close; safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(queue.Full):  # a disk that hangs
                self._jobs.put(None, timeout=_CLOSE_S)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._writer.join(_CLOSE_S)
        self.warm.clear()
        self._index.close()

    # Reading.

    def _found(self, start: bytes, tokens: TokenArray, size: int) -> tuple[list[Link], int]:
        """Return the blocks to read, and how many tokens of them are the prompt's."""
        links: list[Link] = []
        for link in self.chains.links(start, tokens, size):
            if not self._index.has(link.key):
                nearest = self._nearest(link)
                if nearest is not None:
                    key, n = nearest
                    links.append(Link(key, link.parent, link.begin, link.tokens[:n]))
                break
            links.append(link)
        return links, links[-1].end if links else 0

    def _nearest(self, link: Link) -> tuple[bytes, int] | None:
        """Return the block that shares most tokens with one that is not there, and how many."""
        children = self._index.children(link.parent)
        if not children:
            return None
        wanted = self.chains.tags(link.parent, link.tokens)
        shared, key = max(
            ((n_shared(wanted, tags), key) for key, tags in children), key=itemgetter(0)
        )
        return (key, shared) if shared else None

    def _read(self, links: Sequence[Link], session: SpanSession, total: int) -> None:
        wanted = [link for link in links if link.end > session.length]
        # Some blocks are read and checked by other threads while one is loaded.
        coming = deque(
            (self._begun(link.key, room), room)
            for link, room in zip(wanted, [Room() for _ in range(_AHEAD)], strict=False)
        )
        for i, link in enumerate(wanted):
            try:
                reading, room = coming.popleft()
                known, span = reading.result()
                if not np.array_equal(known[: link.tokens.size], link.tokens):
                    raise InputError("a block's tokens are others")
                session.rewind(link.begin)
                session.load_span(span)
                if i + _AHEAD < len(wanted):  # into the room that is free now
                    key = wanted[i + _AHEAD].key
                    coming.append((self._begun(key, room), room))
            except ContextOverflow:
                break  # a block that goes on beyond what this session may remember
            except FileNotFoundError:
                self._remove(link.key)  # by another process, or by hand
                break
            except InputError as error:
                _LOG.warning("a block is damaged, and removed: %s", error)
                self._count(damaged=1)
                self._remove(link.key)
                break
        session.rewind(min(session.length, total))
        # Nobody waits for it: it only says what goes last.
        touching = self._reader.submit(self._touch, [link.key for link in links])
        self._touching.add(touching)
        touching.add_done_callback(self._touching.discard)

    def _touch(self, keys: Sequence[bytes]) -> None:
        with contextlib.suppress(sqlite3.Error, ValueError):  # closed meanwhile
            self._index.touch(keys)

    def _begun(self, key: bytes, room: Room) -> Future[tuple[TokenArray, memoryview]]:
        warm = self.warm.pop(key)
        if warm is None:
            return self._reader.submit(self._files.read, key, room)
        found: Future[tuple[TokenArray, memoryview]] = Future()
        found.set_result((warm.tokens, warm.span))
        return found

    # Writing.

    def _work(self) -> None:
        with contextlib.suppress(OSError, sqlite3.Error, OnhandError):
            # Where one is damaged, whoever asks for it will say so.
            self.warm.fill(self._index, self._files, is_closed=lambda: self._is_closed)
        while (job := self._jobs.get()) is not None:
            try:
                self._write(job)
            except (OSError, sqlite3.Error, OnhandError) as error:
                self._count(skipped=1)
                _LOG.warning("blocks could not be written: %s", error)
            finally:
                job.session.close()
                self._jobs.task_done()
        self._jobs.task_done()

    def _write(self, job: _Job) -> None:
        links = list(self.chains.links(job.start, job.tokens, job.size))
        now = self._index.touch(link.key for link in links)
        for link in links:
            if self._index.has(link.key):
                continue
            tags = self.chains.tags(link.parent, link.tokens)
            children = self._index.children(link.parent)
            if _needs_no_block(tags, children):
                return
            span = job.session.save_span(link.begin, link.end)
            sealed = self._files.sealed(link.key, link.tokens, span)
            if not self._make_room(len(sealed), now):
                self._count(skipped=1)
                return
            self._files.write(link.key, sealed)
            self._index.add(link, tags, size=len(sealed), used=now)
            self._count(written=1)
            for key, others in children:
                if others.size < tags.size and n_shared(tags, others) == others.size:
                    self._remove(key)  # it was this one's beginning

    def _make_room(self, size: int, now: int) -> bool:
        """Remove the longest unused until a file fits; False if it cannot, or must not."""
        needed = size + ROW_BYTES
        if needed > self._most_bytes or self._free_bytes() < size + _SPARE_BYTES:
            return False
        while self._index.n_bytes + needed > self._most_bytes:
            # Never what was used this time: it is what the new block hangs on.
            key = self._index.oldest(before=now)
            if key is None:
                return False
            self._forget(key)
            self._count(evicted=1)
        return True

    def _is_kept(self, start: bytes, tokens: TokenArray, size: int) -> bool:
        for link in self.chains.links(start, tokens, size):
            if not self._index.has(link.key):
                tags = self.chains.tags(link.parent, link.tokens)
                return _needs_no_block(tags, self._index.children(link.parent))
        return True

    def _remove(self, key: bytes) -> None:
        """Remove a block and those after it, which nothing leads to any more."""
        for lost in self._index.below(key):
            self._forget(lost)

    def _forget(self, key: bytes) -> None:
        self.warm.pop(key)
        self._files.remove(key)
        self._index.remove(key)

    def _clean(self) -> None:
        """Make files and index agree, and keep within what may be kept."""
        keys = self._index.keys()
        for key in keys - self._files.clean(keys):
            self._remove(key)
        while self._index.n_bytes > self._most_bytes:
            oldest = self._index.oldest()
            if oldest is None:
                return
            self._forget(oldest)

    def _count(self, **more: int) -> None:
        with self._counting:
            now = {name: getattr(self._counts, name) + n for name, n in more.items()}
            self._counts = replace(self._counts, **now)

    def _asked(self, figure: Callable[[], int]) -> int:
        try:
            return figure()
        except sqlite3.Error:
            return 0


def _needs_no_block(tags: Tags, children: Sequence[tuple[bytes, Tags]]) -> bool:
    """Say whether the end of a conversation is too short, or the beginning of what is there."""
    if tags.size < _LEAST_TOKENS:
        return True
    return any(n_shared(tags, others) == tags.size for _, others in children)
