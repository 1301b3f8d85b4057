"""Where a board is, and the command that reaches it: the system's own OpenSSH."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from onhand.core.errors import InputError

__all__ = ["BoardAddress", "parse_address", "ssh_command"]

CONNECT_S = 15
_ALIVE_S, _ALIVE_TIMES = 5, 4
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,253}|[0-9a-fA-F:]+(%[A-Za-z0-9._-]+)?")
_FORM = "write ssh://user@board, ssh://user@board:2222 or ssh://user@board/folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardAddress:
    """A board as OpenSSH knows it.

    Attributes:
        host: its name, its address, or an alias in the user's configuration of OpenSSH.
        user: None for what that configuration says.
        port: None likewise.
        folder: absolute, on the board, in which to work; None for the user's cache there.
    """

    host: str
    user: str | None = None
    port: int | None = None
    folder: str | None = None

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{user}{host}{port}{self.folder or ''}"


def parse_address(text: str) -> BoardAddress:
    """Read an address.

    Args:
        text: as in "ssh://user@board:2222/mnt/disk"; user, port and folder may be left out.

    Returns:
        The address; nothing in it can be taken for an option or a command.

    Raises:
        InputError: if it is of another form.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"--on {text!r}: {error}; {_FORM}") from error
    if parts.scheme != "ssh" or not host or parts.query or parts.fragment:
        raise InputError(f"--on {text!r} is no address of a board; {_FORM}")
    if parts.password is not None:
        raise InputError(f"--on {parts.hostname}: a password in an address is refused; use a key")
    user = None if parts.username is None else unquote(parts.username)
    if user is not None and not _USER.fullmatch(user):
        raise InputError(f"--on: the user {user!r} has characters that no user name has; {_FORM}")
    # Aliases of the configuration tell capitals apart, which `hostname` does not.
    spelled = re.search(re.escape(host), parts.netloc.rpartition("@")[2], re.IGNORECASE)
    host = unquote(spelled[0] if spelled else host)
    if not _HOST.fullmatch(host):
        raise InputError(f"--on: the host {host!r} has characters that no host name has; {_FORM}")
    folder = unquote(parts.path).rstrip("/") or None
    if folder is not None and (not folder.isprintable() or ".." in folder.split("/")):
        raise InputError(f"--on: the folder {folder!r} must be a plain absolute path")
    return BoardAddress(host=host, user=user, port=port, folder=folder)


def ssh_command(
    address: BoardAddress, *, identity: Path | None, config: Path | None, remote: str
) -> list[str]:
    """Return the command line that runs something on a board without ever asking a question.

    Host keys must be known: what OpenSSH would ask about, or accept, is an error here.

    Args:
        address: the board's.
        identity: a file with a private key, or None for those that OpenSSH finds.
        config: a configuration of OpenSSH, or None for the user's.
        remote: what the board's shell runs.

    Returns:
        The arguments, the program first.
    """
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": str(_ALIVE_S),
        "ServerAliveCountMax": str(_ALIVE_TIMES),
        "RemoteCommand": "none",
        "ControlMaster": "no",
        "ClearAllForwardings": "yes",
        "LogLevel": "ERROR",
    }
    command = ["ssh", "-T", "-a", "-x"]
    command += [] if config is None else ["-F", str(config)]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    command += [] if identity is None else ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
    command += [] if address.port is None else ["-p", str(address.port)]
    command += [] if address.user is None else ["-l", address.user]
    return [*command, "--", address.host, remote]


def start_command(python: str | None, agent_bytes: int) -> str:
    """Return the line for the board's shell that starts the program sent after it.

    Args:
        python: a Python on the board, or None to look for one.
        agent_bytes: length of that program.

    Returns:
        The line; any shell that knows single quotes runs it.
    """
    code = f'import sys; exec(compile(sys.stdin.buffer.read({agent_bytes}), "agent", "exec"))'
    names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"]
    script = (
        'for p in "$@"; do v=$("$p" -c "import sys; print(*sys.version_info[:2])" 2>/dev/null)'
        ' || continue; case "$v" in "3 11"|"3 1"[2-9]|"3 "[2-9]?) exec "$p" -c "$c";; esac; '
        'seen="$seen $p"; done; echo "onhand-no-python:$seen"; exit 97'
    )
    words = [
        "sh",
        "-c",
        f"c={shlex.quote(code)}; {script}",
        "onhand",
        *([python] if python else names),
    ]
    return "exec " + " ".join(shlex.quote(word) for word in words)
