"""What went wrong at another server, as errors of ours: whose fault it is, and what helps."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from onhand.core.errors import OnhandError
from onhand.device.serving.refusals import BackendFailed, Refusal, RefusedRequest

__all__ = ["broken", "late", "of_status", "retry_after_s", "unreachable"]

_OF_CALLER: Final = frozenset({400, 413, 422})
_MOST_SHOWN: Final = 500
_MOST_WAIT_S: Final = 3600.0


def unreachable(name: str, reason: str) -> BackendFailed:
    """Return that a server cannot be connected to, or the connection was lost.

    Args:
        name: of the backend.
        reason: what happened.
    """
    message = f"backend {name!r} cannot be reached"
    return BackendFailed(f"{message}: {reason}", _refusal(502, message, "backend_unreachable"))


def late(name: str, what: str, seconds: float) -> BackendFailed:
    """Return that a server did not answer in time.

    Args:
        name: of the backend.
        what: did not come.
        seconds: that it was waited for.
    """
    message = f"backend {name!r} sent no {what} within {seconds:g} s"
    return BackendFailed(message, _refusal(504, message, "backend_timeout"))


def broken(name: str, reason: str) -> BackendFailed:
    """Return that what a server sent is no answer.

    Args:
        name: of the backend.
        reason: what is wrong with it.
    """
    message = f"backend {name!r} sent no valid answer"
    return BackendFailed(f"{message}: {reason}", _refusal(502, message, "backend_broken"))


def of_status(
    name: str,
    status: int,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    env: str = "",
    hidden: Callable[[str], str] = str,
) -> OnhandError:
    """Return what a status other than 200 means.

    Args:
        name: of the backend.
        status: of HTTP.
        body: what came with it, or its beginning.
        headers: likewise.
        env: the variable that holds its key; "" for none.
        hidden: takes keys out of a text.

    Returns:
        `RefusedRequest` where the request is wrong, else `BackendFailed`.
    """
    if status in _OF_CALLER:
        return _refused(name, status, _said(body), hidden)
    if status in {401, 403}:
        key = f"the key in {env}" if env else "requests without a key; set env"
        message = f"backend {name!r} refuses this server's key"
        reason = f"backend {name!r} refuses {key} (status {status})"
        return BackendFailed(reason, _refusal(502, message, "backend_denied"), is_lasting=True)
    if status == 404 or 300 <= status < 400:
        message = f"backend {name!r} does not have the model or path that its settings name"
        reason = f"{message} (status {status})"
        return BackendFailed(reason, _refusal(502, message, "backend_denied"), is_lasting=True)
    wait_s = retry_after_s((headers or {}).get("retry-after"), now=datetime.now(UTC))
    if status in {402, 429, 503}:
        return _busy(name, status, wait_s)
    message = f"backend {name!r} failed"
    return BackendFailed(
        f"{message} (status {status})",
        _refusal(502, message, "backend_failed"),
        retry_after_s=wait_s,
    )


def _refused(
    name: str, status: int, said: Mapping[str, object], hidden: Callable[[str], str]
) -> RefusedRequest:
    message = hidden(str(said.get("message") or "the request was refused"))[:_MOST_SHOWN]
    code, param = said.get("code"), said.get("param")
    return RefusedRequest(
        Refusal(
            status=status,
            message=f"backend {name!r}: {message}",
            code=hidden(code) if isinstance(code, str) else None,
            param=hidden(param) if isinstance(param, str) else None,
        )
    )


def _busy(name: str, status: int, wait_s: float | None) -> BackendFailed:
    message = f"backend {name!r} takes no more requests at present"
    after = {"Retry-After": str(math.ceil(1.0 if wait_s is None else wait_s))}
    shown = 503 if status == 503 else 429
    return BackendFailed(
        f"{message} (status {status})",
        Refusal(status=shown, message=message, code="backend_busy", headers=after),
        is_fault=status == 503 and wait_s is None,
        retry_after_s=wait_s,
    )


def retry_after_s(given: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for.

    Args:
        given: seconds, or a date; None for no header.
        now: the time.

    Returns:
        At most an hour; None for what is neither.
    """
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        try:
            until = parsedate_to_datetime(given)
        except ValueError:
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - now).total_seconds()
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _MOST_WAIT_S)


def _refusal(status: int, message: str, code: str) -> Refusal:
    return Refusal(status=status, message=message, code=code)


def _said(body: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) else {}
