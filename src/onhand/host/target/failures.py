"""What OpenSSH and pip say when something is wrong, as one sentence that says what to do."""

import errno
import re

from onhand.core.errors import (
    BudgetExceeded,
    BundleCorrupt,
    EngineError,
    InputError,
    OnhandError,
    ResourceError,
)
from onhand.host.target.address import BoardAddress

__all__ = ["explain_answer", "explain_command", "explain_connection", "explain_pip"]

# What OpenSSH writes -> what a person does about it; the first that matches decides.
_CONNECTION = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known: someone may be in between, or the board was "
        "set up anew; compare its fingerprint, then remove the old key with ssh-keygen -R",
    ),
    (
        r"Host key verification failed|host key is known",
        "its host key is not known here; connect once with ssh, compare the fingerprint, and "
        "accept it",
    ),
    (
        r"Permission denied \(",
        "it accepts none of the keys (no password is ever asked for); name one with --identity, "
        "add it to ssh-agent, or copy it there with ssh-copy-id",
    ),
    (r"Could not resolve hostname|Name or service not known", "its name is not known"),
    (r"Connection refused", "nothing listens there: does its SSH server run, on this port?"),
    (
        r"No route to host|Network is unreachable|Host is down",
        "there is no way to it: is it on, and in this network",
    ),
    (
        r"timed out|Timeout, server|not responding",
        "it does not answer: is it on, and in this network",
    ),
    (r"Too many authentication failures", "too many keys were offered; name one with --identity"),
    (
        r"Connection (?:to .* )?(?:closed|reset)|Broken pipe",
        "the connection was closed by the other side",
    ),
)
_BY_CODE: dict[int, type[OnhandError]] = {
    2: InputError,
    3: BundleCorrupt,
    4: BudgetExceeded,
    5: EngineError,
    6: ResourceError,
}


def explain_connection(address: BoardAddress, said: str, *, was_open: bool) -> ResourceError:
    """Say why a connection could not be made, or was lost.

    Args:
        address: of the board.
        said: what `ssh` wrote on its standard error.
        was_open: whether the board had answered before.

    Returns:
        The error, to be raised.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = next((told for form, told in _CONNECTION if re.search(form, said)), None)
    if found is None:
        found = lines[-1].rstrip(".") if lines else "the connection was closed without a word"
    if was_open:
        return ResourceError(
            f"{address}: the connection was lost in the middle ({found}); what ran there is ended "
            f"by the board, and what was copied is used by the next run"
        )
    return ResourceError(f"{address}: {found}")


def explain_answer(address: BoardAddress, told: str, number: int) -> OnhandError:
    """Say why the board could not do what it was asked.

    Args:
        address: of the board.
        told: its words.
        number: the system's number of the error, or 0.

    Returns:
        The error, to be raised.
    """
    if number in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return ResourceError(
            f"{address}: the disk is full there ({told}); make room, or name a folder on another "
            f"disk, as in {address}/mnt/disk"
            if address.folder is None
            else f"{address}: the disk is full there ({told}); make room, or name another folder"
        )
    if number:
        return ResourceError(f"{address}: {told}")
    return InputError(f"{address}: {told}")


def explain_command(
    address: BoardAddress, what: str, *, code: int, ended: str, lines: list[str], limit_s: float
) -> OnhandError:
    """Say why a command on the board failed.

    Args:
        address: of the board.
        what: what the command does.
        code: its exit code, below 0 for a signal.
        ended: why the board's side ended it, or "".
        lines: the last ones of its standard error.
        limit_s: seconds that it was given.

    Returns:
        The error, of the class that the command's own error had.
    """
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it gave no reason")
    if ended == "out of time":
        return ResourceError(
            f"{address}: {what} was not done within {limit_s:.0f} s and was ended; give it more "
            f"with --timeout"
        )
    if code < 0:
        hint = "was there enough memory" if code == -9 else said
        return ResourceError(f"{address}: {what} was killed by signal {-code} there: {hint}")
    said = re.sub(r"^onhand( [a-z]+)?: ", "", said)
    return _BY_CODE.get(code, EngineError)(f"{address}: {what}: {said}")


def explain_pip(
    address: BoardAddress, lines: list[str], *, machine: str, python: str, has_wheels: bool
) -> OnhandError:
    """Say why pip could not install the runtime.

    Args:
        address: of the board.
        lines: what pip wrote on its standard error.
        machine: the board's processor architecture.
        python: the version of its Python.
        has_wheels: whether wheels were copied along.

    Returns:
        The error, to be raised.
    """
    said = "\n".join(lines)
    if re.search(r"No space left|Disk quota", said):
        return explain_answer(address, "while packages were installed", errno.ENOSPC)
    missing = re.search(r"No matching distribution found for ([^\s(]+)", said)
    is_cut_off = re.search(
        r"NewConnectionError|ConnectTimeoutError|NameResolutionError|ProxyError|Max retries", said
    )
    if is_cut_off and not has_wheels:
        return ResourceError(
            f"{address}: no package index can be reached from there; copy the packages along: "
            f"fill a folder with `pip download`, and name it with --wheels"
        )
    if missing:
        where = "in the folder of --wheels" if has_wheels else "in the board's package index"
        return ResourceError(
            f"{address}: there is no {missing[1]} for {machine} and Python {python} {where}; "
            f"add its wheel to a folder and name that with --wheels"
        )
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    last = errors[-1].removeprefix("ERROR: ") if errors else "it gave no reason"
    return ResourceError(f"{address}: pip failed there: {last}")
