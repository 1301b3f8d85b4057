"""One connection to a board: requests and answers with the program that was sent there."""

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json
from onhand.host.target import agent
from onhand.host.target.address import BoardAddress, ssh_command, start_command
from onhand.host.target.failures import explain_answer, explain_connection

__all__ = ["Link", "Ran", "open_link"]

_BEAT_S: Final = 5.0
_END_S: Final = 10.0
_CLEAN_S: Final = 120.0
_LINE_BYTES: Final = 64 * 2**20
_NOISE_LINES: Final = 1000
_KEPT_LINES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command on the board did.

    Attributes:
        code: its exit code, below 0 for a signal.
        output: what it wrote on its standard output.
        lines: the last ones of its standard error.
        ended: why the board's side ended it, or "".
    """

    code: int
    output: str
    lines: list[str]
    ended: str


class Link:
    """A connection; used from one thread. Closing it ends all that runs on the board.

    Args:
        command: what reaches the board and runs the program that is sent first.
        address: of the board, for messages.
        limit_s: seconds that everything together may take.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        address: BoardAddress,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.limit_s = limit_s
        self._clock = clock
        self._until = clock() + limit_s
        self._number = 0
        self._was_open = False
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            # A session of its own: Ctrl-C is ours to handle, and no one can be asked anything.
            self._process = subprocess.Popen(  # noqa: S603 - an argument list, checked parts
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                start_new_session=True,
            )
        except OSError as error:
            self._complaints.close()
            raise InputError(f"{command[0]} cannot be started: {error.strerror}") from error
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self, program: bytes) -> None:
        """Send the program that answers, and wait until it does.

        Args:
            program: of the length that the command expects.

        Raises:
            ResourceError: if the board cannot be reached, or has no Python that can run it.
        """
        self._write(program)
        noise: list[str] = []
        while not self._was_open:
            line = self._next()
            # Profiles of shells greet: what comes before the mark is not ours.
            noise.append(line.decode(errors="replace").strip())
            if "onhand-no-python:" in noise[-1]:
                seen = noise[-1].partition(":")[2].strip()
                raise ResourceError(
                    f"{self.address}: no Python of version 3.11 or later there"
                    f"{f' (older ones: {seen})' if seen else ''}; install one, or name it with "
                    f"--python"
                )
            if len(noise) > _NOISE_LINES:
                raise ResourceError(f"{self.address}: its shell writes without end")
            self._was_open = agent.MARK in noise[-1] and noise[-1].startswith("{")
        threading.Thread(target=self._beat, daemon=True).start()

    def ask(
        self,
        what: str,
        *,
        payload: bytes = b"",
        on_line: Callable[[str], None] | None = None,
        **values: object,
    ) -> Mapping[str, object]:
        """Ask for something and wait for the answer.

        Args:
            what: a request that the board's program knows.
            payload: bytes that belong to it.
            on_line: told of each line that a running command writes on its standard error.
            **values: what else belongs to the request.

        Returns:
            The answer.

        Raises:
            InputError: if the board refuses the request.
            ResourceError: if it fails there, the connection is lost, or time is up.
        """
        self._number += 1
        request = {"id": self._number, "ask": what, "size": len(payload), **values}
        self._write(json.dumps(request).encode() + b"\n" + payload)
        while True:
            answer = self._parsed(self._next())
            if answer.get("id") != self._number:
                continue  # of a request that was given up
            if "line" in answer:
                if on_line is not None:
                    on_line(str(answer["line"]))
                continue
            self._check(answer)
            return answer

    def run(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Ran:
        """Run a command on the board to its end.

        Args:
            command: the program and its arguments; no shell reads them.
            environment: variables beside those of the board.
            on_line: told of each line of its standard error.

        Returns:
            What it did; it may have failed.

        Raises:
            InputError: if the answer is of another form.
            ResourceError: if it cannot be started, the connection is lost, or time is up.
        """
        lines: deque[str] = deque(maxlen=_KEPT_LINES)

        def keep(line: str) -> None:
            lines.append(line)
            if on_line is not None:
                on_line(line)

        left = max(1.0, self._until - self._clock())
        # The board's clock ends it, this side's only where the board does not answer.
        self._until += _END_S
        answer = self.ask(
            "run",
            on_line=keep,
            command=list(command),
            environment=dict(environment or {}),
            limit_s=left,
        )
        self._until -= _END_S
        code, output, ended = (answer.get(key) for key in ("code", "output", "ended"))
        if type(code) is not int or not isinstance(output, str) or not isinstance(ended, str):
            raise InputError(f"{self.address}: its answer has no code, output and reason")
        return Ran(code=code, output=output, lines=list(lines), ended=ended)

    def stop(self) -> None:
        """End what runs on the board; what is asked next is answered all the same."""
        self._write(b'{"ask": "stop"}\n')

    def clean(self) -> None:
        """Remove all that was made on the board, in a time of its own.

        Raises:
            InputError: if the board refuses.
            ResourceError: if it fails there, the connection is lost, or time is up.
        """
        self._until = self._clock() + _CLEAN_S
        self.ask("clean", names=[])

    def close(self) -> None:
        """End the connection, and with it all that runs on the board."""
        self._closing.set()
        # It may have been lost before.
        with self._guard, contextlib.suppress(OSError):
            cast(IO[bytes], self._process.stdin).close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def _write(self, content: bytes) -> None:
        stream = cast(IO[bytes], self._process.stdin)
        with self._guard:
            try:
                stream.write(content)
                stream.flush()
            except (OSError, ValueError):
                return  # why is in what it wrote, which is read where an answer is missing

    def _beat(self) -> None:
        while not self._closing.wait(_BEAT_S):
            self._write(b'{"ask": "beat"}\n')

    def _listen(self) -> None:
        stream = cast(IO[bytes], self._process.stdout)
        with stream:
            while line := stream.readline(_LINE_BYTES):
                self._answers.put(line)
        self._answers.put(b"")

    def _next(self) -> bytes:
        try:
            line = self._answers.get(timeout=max(0.0, self._until - self._clock()))
        except queue.Empty as error:
            raise ResourceError(
                f"{self.address}: not done within {self.limit_s:.0f} s; give it more with --timeout"
            ) from error
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read(2**20).decode(errors="replace")
            raise explain_connection(self.address, said, was_open=self._was_open)
        return line

    def _check(self, answer: Mapping[str, object]) -> None:
        if "error" in answer:
            number = answer.get("number")
            told = str(answer["error"])
            raise explain_answer(self.address, told, number if type(number) is int else 0)

    def _parsed(self, line: bytes) -> Mapping[str, object]:
        try:
            answer = parse_json(line)
        except InputError as error:
            raise InputError(f"{self.address}: its answer is {error}") from error
        if not isinstance(answer, dict):
            raise InputError(f"{self.address}: its answer is not a JSON object")
        return answer


def open_link(
    address: BoardAddress,
    *,
    identity: Path | None = None,
    config: Path | None = None,
    python: str | None = None,
    limit_s: float,
) -> Link:
    """Connect with a board.

    Args:
        address: the board's.
        identity: a file with a private key, or None for those that OpenSSH finds.
        config: a configuration of OpenSSH, or None for the user's.
        python: a Python on the board, or None to look for one.
        limit_s: seconds that everything together may take.

    Returns:
        The connection; the caller closes it.

    Raises:
        InputError: if `ssh` is not installed here.
        ResourceError: if the board cannot be reached, or has no Python.
    """
    program = Path(agent.__file__).read_bytes()
    remote = start_command(python, len(program))
    command = ssh_command(address, identity=identity, config=config, remote=remote)
    link = Link(command, address=address, limit_s=limit_s)
    try:
        link.begin(program)
    except BaseException:
        link.close()
        raise
    return link
