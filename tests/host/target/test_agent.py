"""The program that runs on a board, here in this process: requests in, answers out."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onhand.host.target.agent import MARK, SILENCE, Agent


class Talk:
    """The other side of an agent that serves in a thread."""

    def __init__(self) -> None:
        self._theirs, mine = os.pipe()
        answers, self._out = os.pipe()
        self._requests = os.fdopen(mine, "wb")
        self._answers = os.fdopen(answers, "rb")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.mark = self.next()["mark"]

    def _serve(self) -> None:
        with os.fdopen(self._theirs, "rb") as requests, os.fdopen(self._out, "wb") as answers:
            Agent(requests, answers).serve()

    def next(self) -> dict[str, Any]:
        """The next answer."""
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def ask(self, what: str, payload: bytes = b"", **values: object) -> dict[str, Any]:
        """Ask, and return the answer."""
        request = {"id": 1, "ask": what, "size": len(payload), **values}
        self._requests.write(json.dumps(request).encode() + b"\n" + payload)
        self._requests.flush()
        return self.next()

    def close(self) -> None:
        """Hang up; the agent ends."""
        self._requests.close()
        self._thread.join(30)
        self._answers.close()
        assert not self._thread.is_alive()


@pytest.fixture
def talk() -> Iterator[Talk]:
    """A conversation with an agent."""
    made = Talk()
    yield made
    made.close()


def test_files_are_put_checked_gathered_and_read(talk: Talk, tmp_path: Path) -> None:
    """As a bundle is copied; all of it goes away at the end."""
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    own = tmp_path / "onhand-on-target"

    assert talk.mark == MARK
    assert talk.ask("hello", folder=str(tmp_path))["folder"] == str(own)
    assert "error" not in talk.ask("put", b"ab", name="files/x", offset=0)
    assert talk.ask("state", names=["files/x"])["begun"] == {"files/x": 2}
    talk.ask("put", b"c", name="files/x", offset=2)
    assert talk.ask("finish", name="files/x", sha256=sha256)["is_whole"] is True
    assert talk.ask("state", names=["files/x", "y"])["whole"] == {"files/x": sha256}
    talk.ask("gather", folder="bundles/b", files={"deep/z": "files/x"})
    assert talk.ask("read", name="bundles/b/deep/z")["text"] == "abc"
    talk.ask("put", b"other", name="files/w", offset=0)
    assert talk.ask("finish", name="files/w", sha256=sha256)["is_whole"] is False
    talk.ask("clean", names=["files"])
    assert not (own / "files").exists()
    talk.ask("clean", names=[])
    assert not own.exists()


def test_a_command_runs_and_is_told(talk: Talk, tmp_path: Path) -> None:
    """Its lines as they come, its output and code at the end, in an environment of its own."""
    talk.ask("hello", folder=str(tmp_path))
    code = "import os, sys; print('said', file=sys.stderr); print(os.environ['A']); sys.exit(3)"
    command = [sys.executable, "-c", code]

    line = talk.ask("run", command=command, environment={"A": "b"}, limit_s=60)
    done = talk.next()

    assert line == {"id": 1, "line": "said"}
    assert done == {"id": 1, "code": 3, "output": "b\n", "ended": ""}


def test_a_command_that_is_not_there_is_an_answer(talk: Talk, tmp_path: Path) -> None:
    """With the system's words."""
    talk.ask("hello", folder=str(tmp_path))

    answer = talk.ask("run", command=["/nowhere/x"], environment={}, limit_s=60)

    assert "No such file" in answer["error"]


def test_what_runs_too_long_is_ended(talk: Talk, tmp_path: Path) -> None:
    """By a signal, and it is said why."""
    talk.ask("hello", folder=str(tmp_path))

    answer = talk.ask("run", command=["sleep", "60"], environment={}, limit_s=0.1)

    assert (answer["code"], answer["ended"]) == (-9, "out of time")


def test_who_hangs_up_ends_what_runs(tmp_path: Path) -> None:
    """The agent ends with its input, and the command with it."""
    talk = Talk()
    talk.ask("hello", folder=str(tmp_path))
    code = "import sys, time; print(file=sys.stderr); time.sleep(60)"
    talk.ask("run", command=[sys.executable, "-c", code], environment={}, limit_s=60)

    talk.close()


def test_an_agent_that_has_ended_watches_no_more() -> None:
    """A minute of silence ends an agent that still serves, and no process that once had one."""
    talk = Talk()
    watchers = [one for one in threading.enumerate() if one.name == SILENCE]
    assert watchers

    talk.close()

    for one in watchers:
        one.join(10)
        assert not one.is_alive()


def test_two_agents_do_not_share_a_folder(talk: Talk, tmp_path: Path) -> None:
    """The second is told who was first."""
    talk.ask("hello", folder=str(tmp_path))
    other = Talk()

    answer = other.ask("hello", folder=str(tmp_path))
    other.close()

    assert answer["error"] == f"process {os.getpid()} measures there already"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ""])
def test_attack_a_name_outside_is_refused(talk: Talk, tmp_path: Path, name: str) -> None:
    """Nothing is written."""
    talk.ask("hello", folder=str(tmp_path))

    assert "is outside the folder" in talk.ask("put", b"x", name=name, offset=0)["error"]
