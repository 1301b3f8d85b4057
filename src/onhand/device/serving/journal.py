"""One line for each request: when, who, what kind, how it ended, how long it took. No content.

What people wrote and what they were answered is never in it, nor is a path that this server does
not have, nor a name of a model that it does not serve: they too are what somebody wrote.
"""

import json
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Entry", "Journal", "JsonLines", "PlainLines", "entry_of", "logging_to"]

_LOG: Final = logging.getLogger("onhand.serving.requests")
_LOGGERS: Final = ("onhand", "uvicorn.error")
_FIELDS: Final = "entry"
# Asked every second by pages and monitors, and all the same.
_POLLED: Final = frozenset({"/health", "/metrics", "/ready", "/v1/governor"})


@dataclass(slots=True)
class Entry:
    """What is noted of one request while it is answered.

    Attributes:
        facts: name -> value, in the order in which they come.
    """

    facts: dict[str, str | float] = field(default_factory=dict)

    def note(self, **facts: str | float) -> None:
        """Add facts; none of them may be content."""
        self.facts.update(facts)

    def add(self, **counts: int) -> None:
        """Add to counts."""
        for name, count in counts.items():
            self.facts[name] = int(self.facts.get(name, 0)) + count


def entry_of(scope: "Scope") -> Entry:
    """Return the entry of a request; one that nobody reads where no journal is kept."""
    state = scope.setdefault("state", {})
    found = state.setdefault(_FIELDS, Entry())
    return found if isinstance(found, Entry) else Entry()


class Journal:
    """An ASGI application around another: writes a line when a request has ended."""

    def __init__(
        self,
        app: "ASGIApp",
        *,
        paths: Collection[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            paths: those that it has; others are written as "unknown".
            clock: seconds that only grow.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._clock = clock

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, and write how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = entry_of(scope)
        begun_s = self._clock()
        status = 0  # of a request whose client left before it was answered

        async def sending(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            state, path = scope["state"], scope["path"]
            if tenant := state.get("tenant"):
                entry.note(tenant=str(tenant))
            facts = {
                "method": scope["method"] if scope["method"] in {"GET", "POST"} else "other",
                "path": path if path in self._paths else "unknown",
                "status": status,
                "seconds": round(self._clock() - begun_s, 6),
                **entry.facts,
            }
            level = logging.WARNING if status >= 500 else logging.INFO
            if path in _POLLED and status == 200:
                level = logging.DEBUG
            _LOG.log(level, "request", extra={_FIELDS: facts})


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, and what belongs to it."""

    def format(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, record: logging.LogRecord
    ) -> str:
        """See `logging.Formatter`."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = record.__dict__.get(_FIELDS)
        value: dict[str, object] = {
            "time": when,
            "level": record.levelname.lower(),
            "event": record.getMessage() if facts else "message",
        }
        value |= facts or {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            value["error"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """One line for a person."""

    def format(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, record: logging.LogRecord
    ) -> str:
        """See `logging.Formatter`."""
        when = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        facts = record.__dict__.get(_FIELDS)
        if not facts:
            return f"{when} {super().format(record)}"
        shown = " ".join(f"{name}={value}" for name, value in facts.items())
        return f"{when} {record.getMessage()} {shown}"


def logging_to(stream: TextIO, *, is_json: bool, requests: bool) -> logging.Handler:
    """Write what this package and its HTTP server log to a stream, instead of wherever it went.

    Args:
        stream: where lines go.
        is_json: whether for programs.
        requests: whether each request gets a line.

    Returns:
        The handler, already in use.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if is_json else PlainLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "onhand" else logging.WARNING)
    _LOG.setLevel(logging.INFO if requests else logging.CRITICAL)
    return handler
