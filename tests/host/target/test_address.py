"""Addresses of boards, and the command that reaches them."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.host.target.address import BoardAddress, parse_address, ssh_command, start_command


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://board", BoardAddress(host="board")),
        ("ssh://pi@board", BoardAddress(host="board", user="pi")),
        ("ssh://pi@Lab-Board:2222", BoardAddress(host="Lab-Board", user="pi", port=2222)),
        ("ssh://pi@[fe80::1%25eth0]:22", BoardAddress(host="fe80::1%eth0", user="pi", port=22)),
        ("ssh://board/mnt/big disk/", BoardAddress(host="board", folder="/mnt/big disk")),
        ("ssh://board/", BoardAddress(host="board")),
    ],
)
def test_addresses_are_read(text: str, address: BoardAddress) -> None:
    """User, port and folder may be left out; capitals of an alias are kept."""
    assert parse_address(text) == address


def test_an_address_is_shown_as_it_is_written() -> None:
    """Figures name it so that they can be taken again."""
    assert str(parse_address("ssh://pi@board:2222/mnt/disk")) == "ssh://pi@board:2222/mnt/disk"
    assert str(parse_address("ssh://[::1]")) == "ssh://[::1]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("board", "is no address of a board; write ssh://user@board"),
        ("http://board", "is no address of a board"),
        ("ssh://", "is no address of a board"),
        ("ssh://board?x=1", "is no address of a board"),
        ("ssh://board:99999", "Port out of range"),
        ("ssh://pi:secret@board", "a password in an address is refused; use a key"),
        ("ssh://-oProxyCommand=touch@board", "characters that no user name has"),
        ("ssh://-oProxyCommand=touch", "characters that no host name has"),
        ("ssh://%2doProxyCommand", "characters that no host name has"),
        ("ssh://pi@bo;ard", "characters that no host name has"),
        ("ssh://pi@board/../etc", "must be a plain absolute path"),
        ("ssh://pi@board/a%0ab", "must be a plain absolute path"),
    ],
)
def test_attack_addresses_that_hold_more_are_refused(text: str, told: str) -> None:
    """Nothing in an address becomes an option, a command or a secret in a log."""
    with pytest.raises(InputError, match=told) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


def test_keys_of_hosts_are_checked_and_nothing_is_asked() -> None:
    """Whatever the user's configuration says."""
    address = parse_address("ssh://pi@board:2222")

    command = ssh_command(
        address, identity=Path("key file"), config=Path("conf"), remote="echo 'a'"
    )

    assert command[0] == "ssh"
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "RemoteCommand=none"} <= set(command)
    assert command[-3:] == ["--", "board", "echo 'a'"]
    assert command[command.index("-i") + 1] == "key file"
    assert command[command.index("-F") + 1] == "conf"
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-l") + 1] == "pi"


@pytest.mark.parametrize("python", [sys.executable, None])
def test_the_program_that_is_sent_is_run_by_a_shell(python: str | None) -> None:
    """The line is one that a POSIX shell understands; the program reads on where it ended."""
    program = b"import sys; print(__name__, sys.stdin.buffer.read())"

    done = subprocess.run(
        ["/bin/sh", "-c", start_command(python, len(program))],
        input=program + b"rest",
        capture_output=True,
        check=True,
    )

    assert done.stdout == b"__main__ b'rest'\n"


def test_old_pythons_are_passed_over_and_named(tmp_path: Path) -> None:
    """What a board has that is too old is said."""
    for name in ("python3", "python3.11"):
        place = tmp_path / name
        place.write_text("#!/bin/sh\necho 3 9\n")
        place.chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")

    done = subprocess.run(
        ["/bin/sh", "-c", start_command(None, 5)],
        input=b"",
        capture_output=True,
        check=False,
        env={"PATH": str(tmp_path)},
    )

    assert done.returncode == 97
    assert done.stdout == b"onhand-no-python: python3 python3.11\n"


def test_attack_a_python_with_a_command_in_its_name_is_one_word() -> None:
    """The one thing of the user's on the command line is quoted."""
    words = shlex.split(start_command("py'; touch owned; '", 5))

    assert words[-1] == "py'; touch owned; '"
