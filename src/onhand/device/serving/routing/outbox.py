"""Requests that are answered later: kept on disk until they were, each one once.

    CREATE TABLE requests (seq, id, tenant, lane, key, digest, body, state, attempts,
                           created_s, expires_s, due_s, ended_s, status, answer)

A request is on disk before its client is told so, and marked as being sent before it is. Where the
process dies between sending and noting the answer, it is sent again with the same id: the other
side can tell that it is the same. Requests of one lane are sent in their order, one at a time.
"""

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from onhand.core.errors import ResourceError
from onhand.device.serving.refusals import Refusal, RefusedRequest
from onhand.device.vault.cells import PLAIN, Cells

__all__ = ["ROW_BYTES", "Deferred", "Outbox", "State"]

State = Literal["waiting", "sending", "done", "failed", "expired"]
"""waiting: to be sent. sending: was sent, no answer yet. done: answered. failed: refused for good.
expired: not answered in time."""

_LOCKED_S: Final = 0.5
ROW_BYTES: Final = 512  # of a request, beside its body and its answer
_FIELDS: Final = (
    "id, tenant, lane, key, body, state, attempts, created_s, expires_s, due_s, status, answer"
)
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, lane TEXT NOT NULL,
    key TEXT NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, created_s REAL NOT NULL, expires_s REAL NOT NULL,
    due_s REAL NOT NULL, ended_s REAL, status INTEGER, answer BLOB,
    UNIQUE (tenant, key)
)
"""
_OPEN: Final = "state IN ('waiting', 'sending')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """One request that is answered later.

    Attributes:
        id: what it is asked for by; and what the other side knows it by, at every attempt.
        tenant: whose it is.
        lane: requests of one lane are sent in their order.
        key: the client's idempotency key; `id` where it gave none.
        body: what was asked; empty once it has ended.
        state: how far it is.
        attempts: how often it was sent.
        created_s: when it was kept, in seconds since 1970.
        expires_s: when it is of no use any more.
        due_s: when it may be sent, or sent again.
        status: of HTTP, of the answer; None while there is none.
        answer: its JSON; empty while there is none.
    """

    id: str
    tenant: str
    lane: str
    key: str
    body: bytes
    state: State
    attempts: int
    created_s: float
    expires_s: float
    due_s: float
    status: int | None
    answer: bytes


class Outbox:
    """Requests in one file of SQLite; safe to share between threads.

    Nothing in it is ever lost to make room: where it is full, a new request is refused.
    """

    def __init__(
        self, path: Path, *, most_bytes: int, most_waiting: int, cells: Cells = PLAIN
    ) -> None:
        """Open the file; what was being sent when it was left is to be sent again.

        Args:
            path: its place; made if it is missing.
            most_bytes: of all requests and answers.
            most_waiting: requests of one tenant that have not ended.
            cells: how requests and answers are kept: sealed, where there is a vault.

        Raises:
            ResourceError: if it cannot be read or written, or is damaged: requests that were
                promised an answer are not thrown away in silence.
        """
        self._path = path
        self._cells = cells
        self._most_bytes = most_bytes
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Before SQLite makes it by the usual rights: what was asked is its owner's alone.
            path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{path}: the outbox cannot be made: {error.strerror}") from error
        self._rows = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_LOCKED_S
        )
        try:
            with self._work() as rows:
                # Two that send the same requests would send each of them twice.
                rows.execute("PRAGMA locking_mode = EXCLUSIVE")
                rows.execute("PRAGMA journal_mode = WAL")
                # A request that its client was promised survives a loss of power.
                rows.execute("PRAGMA synchronous = FULL")
                rows.execute("PRAGMA journal_size_limit = 4194304")
                rows.execute(_TABLE)
                rows.execute("CREATE INDEX IF NOT EXISTS by_lane ON requests (state, lane, seq)")
                rows.execute("UPDATE requests SET state = 'waiting' WHERE state = 'sending'")
        except ResourceError:
            self._rows.close()
            raise

    def put(
        self,
        body: bytes,
        *,
        tenant: str,
        lane: str,
        key: str,
        now_s: float,
        keep_s: float,
        name: str = "",
    ) -> tuple[Deferred, bool]:
        """Keep a request; the same one again is the one that is there.

        Args:
            body: what is asked.
            tenant: whose it is.
            lane: requests of one lane are sent in their order.
            key: the client's idempotency key; "" for none.
            now_s: seconds since 1970.
            keep_s: seconds after which it is of no use any more.
            name: its id, where other servers were asked under it already; "" for a new one.

        Returns:
            request: as it is now; of an earlier one with this key perhaps with its answer.
            is_new: whether it was not there before.

        Raises:
            RefusedRequest: if the outbox is full, or the key belongs to another request.
            ResourceError: if it cannot be written.
        """
        digest = self._digest(body)
        name = name or secrets.token_hex(16)
        sealed = self._cells.put(body, _place(name, "body"))
        with self._work() as rows:
            if key and (found := self._of_key(rows, tenant, key, digest)) is not None:
                return found, False
            self._check_room(rows, tenant, len(sealed))
            rows.execute(
                "INSERT INTO requests (id, tenant, lane, key, digest, body, state, created_s, "
                "expires_s, due_s) VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?)",
                (name, tenant, lane, key or name, digest, sealed, now_s, now_s + keep_s, now_s),
            )
            return self._one(rows, name), True

    def known(self, body: bytes, *, tenant: str, key: str) -> Deferred | None:
        """Return a request that is there already.

        Args:
            body: what is asked.
            tenant: whose it is.
            key: the client's idempotency key.

        Raises:
            RefusedRequest: if the key belongs to another request.
        """
        with self._work() as rows:
            return self._of_key(rows, tenant, key, self._digest(body))

    def next(self, now_s: float, *, busy: Collection[str] = ()) -> Deferred | None:
        """Return the request to send now: the oldest of those that are the first of their lane.

        Args:
            now_s: seconds since 1970.
            busy: lanes of which one is being sent already.
        """
        with self._work() as rows:
            found = rows.execute(
                f"SELECT {_FIELDS} FROM requests WHERE seq IN "  # noqa: S608 (constants alone)
                f"(SELECT min(seq) FROM requests WHERE {_OPEN} GROUP BY lane) "
                "AND due_s <= ? AND expires_s > ? ORDER BY seq",
                (now_s, now_s),
            )
            return next((one for one in map(self._deferred, found) if one.lane not in busy), None)

    def next_due_s(self) -> float | None:
        """Return when the next request may be sent or expires; None where none waits."""
        with self._work() as rows:
            row = rows.execute(
                f"SELECT min(min(due_s, expires_s)) FROM requests WHERE {_OPEN}"  # noqa: S608
            ).fetchone()
        return None if row[0] is None else float(row[0])

    def begin(self, name: str) -> None:
        """Note, before it is sent, that a request is being sent."""
        self._set(name, "state = 'sending', attempts = attempts + 1", ())

    def again(self, name: str, *, due_s: float) -> None:
        """Note that a request was not answered, and when to send it again."""
        self._set(name, "state = 'waiting', due_s = ?", (due_s,))

    def end(self, name: str, *, status: int, answer: bytes, now_s: float) -> None:
        """Note a request's answer, or that it was refused for good.

        Args:
            name: its id.
            status: of HTTP; from 400 on it has failed.
            answer: the JSON to give its client.
            now_s: seconds since 1970.
        """
        state: State = "done" if status < 400 else "failed"
        sealed = self._cells.put(answer, _place(name, "answer"))
        self._set(
            name,
            "state = ?, status = ?, answer = ?, ended_s = ?, body = x''",
            (state, status, sealed, now_s),
        )

    def tidy(self, now_s: float, *, kept_s: float) -> int:
        """Give up what is of no use any more, and forget answers that nobody fetched.

        Args:
            now_s: seconds since 1970.
            kept_s: seconds for which an ended request is kept.

        Returns:
            Requests that expired now.
        """
        with self._work() as rows:
            n = rows.execute(
                "UPDATE requests SET state = 'expired', ended_s = ?, body = x'' "  # noqa: S608
                f"WHERE {_OPEN} AND expires_s <= ?",
                (now_s, now_s),
            ).rowcount
            rows.execute("DELETE FROM requests WHERE ended_s <= ?", (now_s - kept_s,))
            return n

    def find(self, name: str, *, tenant: str) -> Deferred | None:
        """Return a tenant's request by its id; None for one that is not there, or not its own."""
        with self._work() as rows:
            row = rows.execute(
                f"SELECT {_FIELDS} FROM requests WHERE id = ? AND tenant = ?",  # noqa: S608
                (name, tenant),
            ).fetchone()
        return None if row is None else self._deferred(row)

    def listed(self, *, tenant: str, most: int = 1000) -> list[Deferred]:
        """Return a tenant's requests, the oldest first, without bodies and answers."""
        light = _FIELDS.replace("body,", "x'',").replace("status, answer", "status, x''")
        with self._work() as rows:
            found = rows.execute(
                f"SELECT {light} FROM requests WHERE tenant = ? "  # noqa: S608
                "ORDER BY seq LIMIT ?",
                (tenant, most),
            )
            return [self._deferred(row) for row in found]

    def remove(self, name: str, *, tenant: str) -> bool:
        """Forget a tenant's request, answered or not; say whether it was there."""
        with self._work() as rows:
            gone = rows.execute("DELETE FROM requests WHERE id = ? AND tenant = ?", (name, tenant))
            return gone.rowcount > 0

    def counts(self) -> dict[str, int]:
        """Return how many requests there are in each state."""
        with self._work() as rows:
            found = rows.execute("SELECT state, count(*) FROM requests GROUP BY state")
            return {str(state): int(n) for state, n in found}

    def n_bytes(self) -> int:
        """Return what all requests and answers take."""
        with self._work() as rows:
            return _n_bytes(rows)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._rows.close()

    def _check_room(self, rows: sqlite3.Connection, tenant: str, size: int) -> None:
        if _n_bytes(rows) + size + ROW_BYTES > self._most_bytes:
            message = f"the outbox holds at most {self._most_bytes} bytes, and is full"
            raise RefusedRequest(Refusal(status=507, message=message, code="outbox_full"))
        waiting = rows.execute(
            f"SELECT count(*) FROM requests WHERE tenant = ? AND {_OPEN}",  # noqa: S608
            (tenant,),
        ).fetchone()[0]
        if waiting >= self._most_waiting:
            message = f"{waiting} requests wait already, as many as may; fetch or delete some"
            headers = {"Retry-After": "60"}
            raise RefusedRequest(
                Refusal(status=429, message=message, code="outbox_busy", headers=headers)
            )

    def _set(self, name: str, change: str, values: Sequence[object]) -> None:
        with self._work() as rows:
            rows.execute(
                f"UPDATE requests SET {change} WHERE id = ?",  # noqa: S608 (constants alone)
                (*values, name),
            )

    def _of_key(
        self, rows: sqlite3.Connection, tenant: str, key: str, digest: bytes
    ) -> Deferred | None:
        query = "SELECT id, digest FROM requests WHERE tenant = ? AND key = ?"
        found = rows.execute(query, (tenant, key)).fetchone()
        if found is None:
            return None
        if found[1] != digest:
            raise RefusedRequest(_another())
        return self._one(rows, found[0])

    def _one(self, rows: sqlite3.Connection, name: str) -> Deferred:
        query = f"SELECT {_FIELDS} FROM requests WHERE id = ?"  # noqa: S608 (constants alone)
        return self._deferred(rows.execute(query, (name,)).fetchone())

    def _digest(self, body: bytes) -> bytes:
        return self._cells.name(hashlib.sha256(body).digest())

    def _deferred(self, row: Sequence[object]) -> Deferred:
        table = dict(zip(_FIELDS.split(", "), row, strict=True))
        for column in ("body", "answer"):
            table[column] = self._opened(str(table["id"]), column, table[column])
        return Deferred(**table)  # type: ignore[arg-type]

    def _opened(self, name: str, column: str, kept: object) -> bytes:
        if not isinstance(kept, bytes) or not kept:
            return b""
        try:
            return self._cells.get(kept, _place(name, column))
        except ValueError as error:
            raise ResourceError(f"{self._path}: request {name}: {error}") from error

    @contextmanager
    def _work(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._rows
            except sqlite3.Error as error:
                if "locked" in str(error):
                    raise ResourceError(
                        f"{self._path}: another server sends from this outbox; give this one a "
                        f"state folder of its own, or no outbox: [outbox] most_bytes = 0"
                    ) from error
                raise ResourceError(f"{self._path}: the outbox failed: {error}") from error


def _n_bytes(rows: sqlite3.Connection) -> int:
    size = f"sum(length(body) + coalesce(length(answer), 0) + {ROW_BYTES})"
    return int(rows.execute(f"SELECT coalesce({size}, 0) FROM requests").fetchone()[0])  # noqa: S608


def _place(name: str, column: str) -> bytes:
    return f"requests {name} {column}".encode()


def _another() -> Refusal:
    message = "this idempotency key belongs to another request; give each request its own"
    return Refusal(status=422, message=message, code="idempotency_key", param="Idempotency-Key")
