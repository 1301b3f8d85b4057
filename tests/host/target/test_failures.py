"""What OpenSSH and pip say, as a sentence."""

import errno

import pytest

from onhand.core.errors import EngineError, InputError, ResourceError
from onhand.host.target.address import parse_address
from onhand.host.target.failures import (
    explain_answer,
    explain_command,
    explain_connection,
    explain_pip,
)

BOARD = parse_address("ssh://pi@board")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ssh: connect to host board port 22: No route to host", "there is no way to it"),
        ("ssh: connect to host board port 22: Network is unreachable", "there is no way to it"),
        ("ssh: connect to host board port 22: Connection timed out", "it does not answer"),
        ("Timeout, server board not responding.", "it does not answer"),
        ("ssh: connect to host board port 22: Connection refused", "run, on this port?"),
        ("ssh: Could not resolve hostname board: Name or service not known", "name is not known"),
        ("No ED25519 host key is known for board and you have requested", "is not known here"),
        ("pi@board: Permission denied (publickey,password).", "accepts none of the keys"),
        ("Connection closed by 10.0.0.1 port 22", "closed by the other side"),
        ("conf: line 3: Bad configuration option: x", "conf: line 3: Bad configuration option: x"),
        ("", "closed without a word"),
    ],
)
def test_a_connection_that_fails_is_explained(said: str, told: str) -> None:
    """One sentence, with the board's address and what to do."""
    error = explain_connection(BOARD, said, was_open=False)

    assert str(error).startswith("ssh://pi@board: ")
    assert told in str(error)


def test_a_connection_that_is_lost_says_what_becomes_of_the_work() -> None:
    """The user knows that the next run goes on."""
    error = explain_connection(BOARD, "client_loop: send disconnect: Broken pipe", was_open=True)

    assert "lost in the middle" in str(error)
    assert "used by the next run" in str(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(number: int) -> None:
    """With the way out."""
    told = str(explain_answer(BOARD, "files/x: No space left on device", number))

    assert "the disk is full there" in told
    assert "ssh://pi@board/mnt/disk" in told


def test_other_answers_keep_their_words() -> None:
    """Of the system's errors, and of requests that are refused."""
    assert isinstance(explain_answer(BOARD, "x: Permission denied", errno.EACCES), ResourceError)
    assert isinstance(explain_answer(BOARD, "'../x' is outside the folder", 0), InputError)


@pytest.mark.parametrize(
    ("code", "ended", "line", "kind", "told"),
    [
        (5, "", "onhand bench: no engine can run it", EngineError, "measuring: no engine can run"),
        (2, "", "onhand bench: no variant", InputError, "measuring: no variant"),
        (1, "", "Traceback", EngineError, "measuring: Traceback"),
        (-9, "", "", ResourceError, "killed by signal 9 there: was there enough memory"),
        (-11, "", "", ResourceError, "killed by signal 11 there: it gave no reason"),
        (-9, "out of time", "", ResourceError, "not done within 60 s and was ended"),
    ],
)
def test_a_command_that_fails_is_explained(
    code: int, ended: str, line: str, kind: type[Exception], told: str
) -> None:
    """The board's own error keeps its class, and with it the exit code."""
    error = explain_command(BOARD, "measuring", code=code, ended=ended, lines=[line], limit_s=60.0)

    assert type(error) is kind
    assert told in str(error)


OFFLINE = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'",
    "ERROR: Could not find a version that satisfies the requirement httpx2>=2.10 (from onhand)",
    "ERROR: No matching distribution found for httpx2>=2.10",
)


@pytest.mark.parametrize(
    ("lines", "has_wheels", "told"),
    [
        (OFFLINE, False, "no package index can be reached from there; copy the packages along"),
        (OFFLINE[1:], True, "no httpx2>=2.10 for armv7l and Python 3.11.2 in the folder of"),
        (OFFLINE[1:], False, "no httpx2>=2.10 for armv7l and Python 3.11.2 in the board's package"),
        (["ERROR: [Errno 28] No space left on device"], False, "the disk is full there"),
        (["ERROR: something else"], False, "pip failed there: something else"),
        ([], False, "pip failed there: it gave no reason"),
    ],
)
def test_pip_is_explained(lines: tuple[str, ...], has_wheels: bool, told: str) -> None:
    """An offline board, a missing wheel, a full disk."""
    error = explain_pip(
        BOARD, list(lines), machine="armv7l", python="3.11.2", has_wheels=has_wheels
    )

    assert told in str(error)
