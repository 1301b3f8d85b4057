"""An audit log that many threads and event loops write to.

A record is handed to the system before whoever waits for it goes on: a process that is killed
afterwards loses nothing. The system takes a record in some microseconds, so whoever has one writes
it there and then; handing it to a thread and back costs far more. But where the disk is being
waited for, a write took long, or somebody else writes, a thread of the log's own does it, so that
no event loop stands still; all that wait for it go out in one write. What the system has is seen on
the disk, and a head is signed, by another thread.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import InputError, OnhandError, ResourceError
from onhand.device.audit.chain import Chain, ChainBusy, Event
from onhand.device.audit.elsewhere import KeptElsewhere, kept_elsewhere
from onhand.device.audit.heads import Head, append_head, signed_line
from onhand.device.audit.keys import VAULT_CHAINS, AuditKeys
from onhand.device.audit.settings import AuditSettings

__all__ = ["AuditCounts", "AuditLog", "open_audit"]

_LOG = logging.getLogger("onhand.serving")
_MOST_CHAINS: Final = 16
_MOST_HEADS: Final = 1000
_AGAIN_S: Final = 1.0
_CLOSE_S: Final = 10.0
_PRUNE_S: Final = 60.0
# Longer than Python may let a thread wait for its turn, so that it speaks of the disk.
_LONG_S: Final = 0.008
_CAUTIOUS_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """What happened so far.

    Attributes:
        written: records.
        lost: those that could not be written.
        writes: to the system; records of one moment share one.
        heads: signed and kept.
        heads_failed: that could not be kept.
        handed_over: records that the log's own thread wrote, as the disk was or seemed busy.
    """

    written: int = 0
    lost: int = 0
    writes: int = 0
    heads: int = 0
    heads_failed: int = 0
    handed_over: int = 0


_COUNTS: Final = tuple(field.name for field in fields(AuditCounts))


class AuditLog:
    """May be shared between threads.

    Attributes:
        settings: how it is kept.
        keys: of codes, heads and bodies.
        failure: why nothing can be written at the moment; "" where it can.
    """

    def __init__(
        self,
        chain: Chain,
        heads: Path,
        keys: AuditKeys,
        settings: AuditSettings,
        *,
        clock: Callable[[], float] = time.perf_counter,
        elsewhere: KeptElsewhere | None = None,
    ) -> None:
        """Take a chain over, and start the threads; the first record says that it begins.

        Args:
            chain: closed by `close`.
            heads: the file of its heads.
            keys: of codes, heads and bodies.
            settings: how it is kept.
            clock: seconds that only grow, of how long a write took.
            elsewhere: keeps the last heads as well; None for nobody.

        Raises:
            ResourceError: if nothing can be written.
        """
        self.settings, self.keys = settings, keys
        self.failure = ""
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._clock = clock
        self._cautious_until_s = -math.inf  # when a write took long just now
        self._is_syncing = False
        self._chain, self._heads, self._elsewhere = chain, heads, elsewhere
        self._change = threading.Condition()
        self._writing = threading.Lock()  # what was lost, and why
        self._counting = threading.Lock()
        self._waiting: list[tuple[Event, Future[None]]] = []
        self._lost = 0  # since the last record that was written
        self._is_closing = False
        self._signed = 0
        self._pruned_s = 0.0
        try:
            chain.append([("start", {"log": chain.log, "key": keys.public.hex()})])
            self._checkpoint()
        except OSError as error:
            chain.close()
            raise ResourceError(f"the audit log cannot be written: {error}") from error
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("onhand-audit", self._work), ("onhand-heads", self._watch))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def counts(self) -> AuditCounts:
        """What happened so far."""
        with self._counting:
            return AuditCounts(**self._counts)

    @property
    def is_refusing(self) -> bool:
        """Whether requests are refused, as nothing can be written."""
        return bool(self.failure) and self.settings.when_unwritable == "refuse"

    def record(self, facts: Mapping[str, Any], *, kind: str = "request") -> Future[None]:
        """Write what happened, soon.

        Args:
            facts: what JSON can hold.
            kind: of the record.

        Returns:
            Done when the system has it. It fails with `ResourceError` where it cannot be written
            and requests are refused then.
        """
        done: Future[None] = Future()
        # Whoever waits may go away, but what happened is written all the same.
        done.set_running_or_notify_cancel()
        one = ((kind, facts), done)
        if self._may_write_now() and self._writing.acquire(blocking=False):
            try:
                is_written = self._append([one[0]])
            finally:
                self._writing.release()
            self._tell([one], is_written=is_written)
            return done
        with self._change:
            if self._is_closing:
                done.set_exception(ResourceError("the audit log is closed"))
                return done
            self._waiting.append(one)
            self._change.notify()
        return done

    def _may_write_now(self) -> bool:
        """Whether a write seems to take no time, and nobody was here before."""
        if self._is_closing or self._is_syncing or self._waiting or self.failure:
            return False
        return self._clock() >= self._cautious_until_s

    def close(self) -> None:
        """Write what waits, the end, and a last head; safe to call twice."""
        with self._change:
            if self._is_closing:
                return
            self._is_closing = True
            self._change.notify()
        self._wake.set()
        for thread in self._threads:
            thread.join(_CLOSE_S)
        with suppress(OSError):
            self._chain.append([("end", {})])
            self._checkpoint()
        self._chain.close()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._is_closing:
                    self._change.wait()
                group, self._waiting = self._waiting, []
                if not group:
                    return
            with self._writing:
                is_written = self._append([event for event, _ in group])
            self._count("handed_over", len(group))
            self._tell(group, is_written=is_written)

    def _tell(self, group: Sequence[tuple[Event, Future[None]]], *, is_written: bool) -> None:
        for _, done in group:
            if is_written or self.settings.when_unwritable == "serve":
                done.set_result(None)
            else:
                done.set_exception(ResourceError("the audit log cannot be written"))
        if self._chain.count - self._signed >= self.settings.head_records:
            self._wake.set()

    def _append(self, events: Sequence[Event]) -> bool:
        """Write records, and before them what was lost; say whether that was possible.

        `_writing` is held meanwhile.
        """
        lost = {"records": self._lost, "reason": self.failure}
        begun_s = self._clock()
        try:
            self._chain.append([("lost", lost), *events] if self.failure else events)
        except OSError as error:
            self._fail(error.strerror or str(error), len(events))
            return False
        ended_s = self._clock()
        if ended_s - begun_s > _LONG_S:
            self._cautious_until_s = ended_s + _CAUTIOUS_S
        self._recover()
        self._count("written", len(events))
        self._count("writes")
        return True

    def _fail(self, reason: str, n: int) -> None:
        if not self.failure:
            what = "refused" if self.settings.when_unwritable == "refuse" else "served without"
            _LOG.error("the audit log cannot be written, requests are %s: %s", what, reason)
        self.failure = reason
        self._lost += n
        self._count("lost", n)

    def _recover(self) -> None:
        if self.failure:
            _LOG.warning("the audit log is written again; %d records are lost", self._lost)
        self.failure, self._lost = "", 0

    def _watch(self) -> None:
        while True:
            self._wake.wait(_AGAIN_S if self.failure else self.settings.head_s)
            self._wake.clear()
            if self._is_closing:
                return
            if self.failure:  # nobody else may come any more
                with self._writing:
                    self._append([])
            # What the system writes to the disk just now it may not let anybody change meanwhile.
            self._is_syncing = True
            try:
                self._checkpoint()
                self._prune()
            except OSError as error:
                _LOG.warning("the audit log's head could not be kept: %s", error)
                self._count("heads_failed")
            finally:
                self._is_syncing = False

    def _checkpoint(self) -> None:
        count, digest = self._chain.sync()
        if count == self._signed:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = Head(log=self._chain.log, count=count, hash=digest, time=now)
        line = signed_line(head, self.keys)
        append_head(self._heads, line, most=_MOST_HEADS)
        self._signed = count
        self._keep_elsewhere(line)
        self._count("heads")

    def _keep_elsewhere(self, line: bytes) -> None:
        if self._elsewhere is None:
            return
        try:
            self._elsewhere.keep(self._heads.stem, line)
        except OnhandError as error:
            # As where the disk of the vault's key was taken out once it is open.
            _LOG.warning("the audit log's head is kept in one place alone: %s", error)
            self._count("heads_failed")

    def _count(self, name: str, n: int = 1) -> None:
        with self._counting:
            self._counts[name] += n

    def _prune(self) -> None:
        if time.monotonic() - self._pruned_s < _PRUNE_S and self._pruned_s:
            return
        self._pruned_s = time.monotonic()
        keep_s = self.settings.keep_days * 86_400
        if old := self._chain.prune(keep_s=keep_s, most_bytes=self.settings.most_bytes):
            # What says that they go is safe before they do.
            self._checkpoint()
            for path in old:
                path.unlink(missing_ok=True)


def open_audit(
    settings: AuditSettings,
    home: Path,
    keys: AuditKeys,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AuditLog:
    """Open the audit log of a state folder.

    Each process that writes at the same time has a chain of its own.

    Args:
        settings: how it is kept.
        home: the state folder.
        keys: of codes, heads and bodies.
        now: the time in UTC.

    Returns:
        The log; close it.

    Raises:
        InputError: if its files are damaged, or too many processes write.
        ResourceError: if it cannot be written.
    """
    folder, heads = settings.folders(home)
    busy: ChainBusy | None = None
    for number in range(1, _MOST_CHAINS + 1):
        place = folder / f"{keys.chains}{number}"
        try:
            chain = Chain(place, keys.code, segment_bytes=settings.segment_bytes, now=now)
        except OSError as error:
            raise ResourceError(f"{place}: the audit log cannot be written: {error}") from error
        except ChainBusy as error:
            busy = error
            continue
        elsewhere = kept_elsewhere(home) if keys.chains == VAULT_CHAINS else None
        file = heads / f"{place.name}.heads"
        return AuditLog(chain, file, keys, settings, elsewhere=elsewhere)
    raise InputError(f"{folder}: {_MOST_CHAINS} processes write there already") from busy
