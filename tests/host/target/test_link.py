"""A connection with a board: commands, failures, and that nothing is left running."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.target.conftest import Board, know

from onhand.core.errors import InputError, ResourceError
from onhand.host.target.address import parse_address
from onhand.host.target.link import Link, open_link

SLEEP = [sys.executable, "-c", "import sys, time; print('on', file=sys.stderr); time.sleep(60)"]
# The command ends, what it started does not.
DAUGHTER = [sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '60'])"]


def connect(board: Board, *, python: str | None = sys.executable, limit_s: float = 30.0) -> Link:
    """Connect with a board and say hello."""
    link = open_link(
        parse_address(board.url),
        identity=board.identity,
        config=board.config,
        python=python,
        limit_s=limit_s,
    )
    try:
        link.ask("hello", folder=None)
    except BaseException:
        link.close()
        raise
    return link


@pytest.fixture
def link(board: Board) -> Iterator[Link]:
    """A connection with the board."""
    made = connect(board)
    yield made
    made.close()


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether something becomes so while one can wait for it."""
    until = time.monotonic() + 20
    while not is_so() and time.monotonic() < until:
        time.sleep(0.02)
    return is_so()


def test_words_reach_a_command_as_they_are(link: Link, board: Board) -> None:
    """No shell reads what travels as a request: hostile words are only words."""
    words = ["$(touch owned)", "; touch owned", "'", '"', "a b", "*", "\n", "é", "-n"]
    show = "import sys, json; print(json.dumps(sys.argv[1:]), end='')"

    ran = link.run([sys.executable, "-c", show, *words])

    assert ran.code == 0
    assert json.loads(ran.output) == words
    assert not list(board.home.rglob("owned"))


def test_lines_are_told_as_they_come_and_a_code_is_brought_back(link: Link) -> None:
    """What a command says on its standard error is heard, and how it ended."""
    heard: list[str] = []
    talk = "import sys; print('one', file=sys.stderr); print('two', file=sys.stderr); sys.exit(5)"

    ran = link.run([sys.executable, "-c", talk], on_line=heard.append)

    assert (ran.code, ran.output, heard, ran.lines) == (5, "", ["one", "two"], ["one", "two"])


def test_what_a_command_leaves_behind_is_ended_with_it(link: Link, board: Board) -> None:
    """A process group ends as a whole."""
    before = set(board.running())

    link.run(DAUGHTER)

    assert soon(lambda: set(board.running()) <= before)


def test_a_greeting_of_the_shell_is_passed_over(board: Board) -> None:
    """Profiles that print something are common; what comes before the first answer is not ours."""
    greeting = board.home / "greeting"
    greeting.write_text('Welcome!\n{"a": 1}\n')

    link = connect(board)
    greeting.unlink()

    assert link.run([sys.executable, "-c", "print(7)"]).output == "7\n"
    link.close()


def test_a_command_is_ended_when_its_time_is_up(board: Board) -> None:
    """The board ends it, and says so."""
    link = connect(board, limit_s=2.0)

    ran = link.run(SLEEP)

    assert (ran.code, ran.ended) == (-9, "out of time")
    link.close()
    assert soon(lambda: board.running() == [])


def test_a_command_is_stopped_on_request(link: Link, board: Board) -> None:
    """As Ctrl-C does: what runs is ended, and the board answers on."""
    with pytest.raises(KeyboardInterrupt):
        link.run(SLEEP, on_line=lambda _: signal.raise_signal(signal.SIGINT))
    link.stop()

    assert "whole" in link.ask("state", names=[])
    assert soon(lambda: len(board.running()) <= 2)  # the shell and the program that answers


def test_a_board_that_dies_is_told_in_one_sentence(mortal_board: Board) -> None:
    """Power lost in the middle: an error at once, and nothing of it runs on."""
    link = connect(mortal_board)

    with pytest.raises(ResourceError, match=r"the connection was lost in the middle"):
        link.run(SLEEP, on_line=lambda _: mortal_board.die())
    link.close()

    assert soon(lambda: mortal_board.running() == [])
    with pytest.raises(ResourceError, match="nothing listens there"):
        connect(mortal_board)


def test_closing_ends_what_runs(board: Board) -> None:
    """A caller that goes away leaves nothing running."""
    link = connect(board)

    link.run(SLEEP, on_line=lambda _: link.close())

    assert soon(lambda: board.running() == [])


def test_two_do_not_measure_at_once(link: Link, board: Board) -> None:
    """A second run would disturb the first: it is refused by name."""
    with pytest.raises(InputError, match=r"process [0-9]+ measures there already"):
        connect(board)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "files/../../x", "", "."])
def test_attack_names_outside_the_folder_are_refused_there(link: Link, name: str) -> None:
    """The board keeps to its own folder whatever it is asked for."""
    with pytest.raises(InputError, match="outside the folder"):
        link.ask("put", payload=b"x", name=name, offset=0)


def test_an_unknown_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    """It is never accepted in silence."""
    other = replace(board, config=tmp_path / "config")
    known = know(other.config, "")

    with pytest.raises(ResourceError, match="its host key is not known here; connect once"):
        connect(other)
    assert known.read_text() == ""


def test_a_changed_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    """Another key under a known name is said to be that."""
    other = replace(board, config=tmp_path / "config")
    host = board.config.with_name("known_hosts").read_text().split()[0]
    know(other.config, f"{host} {(board.home / 'user_key.pub').read_text()}")

    with pytest.raises(ResourceError, match="its host key is not the one that is known"):
        connect(other)


def test_a_key_that_is_not_accepted_is_told(board: Board) -> None:
    """No password is asked for."""
    with pytest.raises(ResourceError, match="it accepts none of the keys"):
        connect(replace(board, identity=board.home / "host_key"))


def test_a_missing_python_is_told(board: Board) -> None:
    """One that is named and is not there."""
    with pytest.raises(ResourceError, match=r"no Python of version 3\.11 or later there"):
        connect(board, python="/nowhere/python3; touch owned")
    assert not list(board.home.rglob("owned"))


def test_a_python_is_found_where_none_is_named(board: Board) -> None:
    """The first on the board's path that is new enough."""
    link = connect(board, python=None)

    assert link.run(["sh", "-c", "echo found"]).output == "found\n"
    link.close()
