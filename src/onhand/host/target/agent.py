"""What runs on the board: sent over the connection as one file, it needs Python alone.

Requests come on its standard input, one JSON object in a line, some followed by as many bytes as
they say; answers leave on its standard output, one JSON object in a line. Names of files travel
in these, never in a command line. When its input ends, or nothing was heard for a while, it ends
all that it started, and itself: a lost connection leaves nothing running.
"""

import contextlib
import hashlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["MARK", "SILENCE", "Agent", "facts_of", "main"]

MARK = "onhand-agent-1"
SILENCE = "silence"  # what the thread is called
SILENCE_S = 60.0
OUTPUT_BYTES = 16 * 2**20
LINE_BYTES = 4096
_REQUEST_BYTES = 16 * 2**20
_PIECE_BYTES = 2**20
# Everything that is made here lies below a folder of this name: removing it removes no one else's.
_OWN = "onhand-on-target"
_COMPILERS = ("c++", "g++", "clang++")


def facts_of(folder: Path) -> dict[str, object]:
    """Return what the other side must know of this machine before it sends anything."""
    return {
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "tag": sys.implementation.cache_tag,
        "system": sys.platform,
        "machine": platform.machine(),
        "free_bytes": shutil.disk_usage(folder).free,
        "compiler": next((one for one in _COMPILERS if shutil.which(one)), ""),
        "folder": str(folder),
    }


class Agent:
    """Answers requests; see the module.

    Args:
        requests: where they come from.
        answers: where answers go.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers
        self._root = Path()
        self._waiting: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()
        self._guard = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._ended = ""
        self._is_lost = False
        self._is_done = threading.Event()
        self._heard = time.monotonic()
        self._lock: IO[str] | None = None

    def serve(self) -> None:
        """Answer until the input ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._watch, name=SILENCE, daemon=True).start()
        self._send({"mark": MARK})
        try:
            while (given := self._waiting.get()) is not None:
                self._answer(*given)
        finally:
            self._lose()
            self._is_done.set()
            if self._lock is not None:
                self._lock.close()

    def _listen(self) -> None:
        while line := self._requests.readline(_REQUEST_BYTES):
            self._heard = time.monotonic()
            request = json.loads(line)
            if request["ask"] == "beat":
                continue
            if request["ask"] == "stop":
                self._end("stopped")
                continue
            payload = self._requests.read(request.get("size", 0))
            self._heard = time.monotonic()
            self._waiting.put((request, payload))
        self._lose()
        self._waiting.put(None)

    def _lose(self) -> None:
        self._is_lost = True
        self._end("the connection was lost")

    def _watch(self) -> None:
        while time.monotonic() - self._heard < SILENCE_S:
            if self._is_done.wait(1.0):
                return
        self._lose()
        os._exit(3)

    def _answer(self, request: dict[str, Any], payload: bytes) -> None:
        try:
            answer = getattr(self, "do_" + request["ask"])(request, payload)
        except OSError as error:
            told = f"{error.filename or self._root}: {error.strerror or error}"
            answer = {"error": told, "number": error.errno}
        except ValueError as error:
            answer = {"error": str(error), "number": 0}
        self._send({"id": request["id"], **answer})

    def _send(self, answer: Mapping[str, object]) -> None:
        try:
            self._answers.write(json.dumps(answer).encode() + b"\n")
            self._answers.flush()
        except BrokenPipeError:
            self._lose()

    def _place(self, name: str) -> Path:
        place = self._root / name
        # What is asked for comes from outside, as far as this machine can know.
        if not place.resolve().is_relative_to(self._root.resolve()) or place == self._root:
            raise ValueError(f"{name!r} is outside the folder")
        return place

    def do_hello(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Make the folder, take its lock, and say what this machine is.

        Raises:
            ValueError: if someone else has the lock.
        """
        import fcntl  # not where boards are asked from, which may be Windows

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._root = Path(request["folder"] or cache) / _OWN
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (self._root / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read(20)
            self._lock.close()
            raise ValueError(f"process {owner} measures there already") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        (self._root / "tmp").mkdir(exist_ok=True)
        return facts_of(self._root)

    def do_state(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Say of each file its hash, and of what was begun how far it came."""
        whole: dict[str, str] = {}
        begun: dict[str, int] = {}
        for name in request["names"]:
            place = self._place(name)
            part = place.with_name(place.name + ".part")
            if place.is_file():
                whole[name] = _sha256(place)
            elif part.is_file():
                begun[name] = part.stat().st_size
        return {"whole": whole, "begun": begun}

    def do_put(self, request: dict[str, Any], payload: bytes) -> dict[str, object]:
        """Append a piece to a file that is begun; its first piece begins it anew."""
        place = self._place(request["name"])
        part = place.with_name(place.name + ".part")
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if request["offset"] else "wb") as file:
            file.seek(request["offset"])
            file.write(payload)
        return {}

    def do_finish(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Check a file that is complete, and give it its name."""
        place = self._place(request["name"])
        part = place.with_name(place.name + ".part")
        found = _sha256(part)
        if found != request["sha256"]:
            part.unlink()
            return {"is_whole": False}
        part.replace(place)
        return {"is_whole": True}

    def do_gather(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Make a folder anew, of files that are here under other names."""
        folder = self._place(request["folder"])
        shutil.rmtree(folder, ignore_errors=True)
        for name, source in request["files"].items():
            place = self._place(f"{request['folder']}/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._place(source), place)
            except OSError:  # some file systems have no second names
                shutil.copyfile(self._place(source), place)
        return {}

    def do_clean(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Remove some of what was made, or, without names, all of it."""
        for name in request["names"]:
            shutil.rmtree(self._place(name), ignore_errors=True)
        if not request["names"]:
            shutil.rmtree(self._root)
        return {}

    def do_read(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Return a small text file."""
        with self._place(request["name"]).open(encoding="utf-8") as file:
            return {"text": file.read(OUTPUT_BYTES)}

    def do_run(self, request: dict[str, Any], _: bytes) -> dict[str, object]:
        """Run a command to its end, in a process group of its own.

        Raises:
            ValueError: if no one is there any more who asked for it.
        """
        output = self._root / "tmp" / "output"
        # What libraries keep for themselves is removed with the rest.
        own = {"TMPDIR": str(self._root / "tmp"), "XDG_CACHE_HOME": str(self._root / "cache")}
        environment = {**os.environ, **own, **request["environment"]}
        with output.open("w+b") as out:
            with self._guard:
                if self._is_lost:  # what was asked before must not begin now
                    raise ValueError("the connection was lost")
                self._ended = ""
                self._running = subprocess.Popen(  # noqa: S603 - what this program is for
                    request["command"],
                    cwd=self._root,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            late = threading.Timer(request["limit_s"], self._end, ["out of time"])
            late.start()
            try:
                code = self._follow(self._running, request["id"])
            finally:
                late.cancel()
            out.seek(0)
            text = out.read(OUTPUT_BYTES).decode(errors="replace")
        output.unlink()
        return {"code": code, "output": text, "ended": self._ended}

    def _follow(self, process: subprocess.Popen[bytes], number: int) -> int:
        waiter = threading.Thread(target=self._collect, args=[process], daemon=True)
        waiter.start()
        if process.stderr is not None:
            with process.stderr as lines:
                while line := lines.readline(LINE_BYTES):
                    self._send({"id": number, "line": line.decode(errors="replace").rstrip("\n")})
        waiter.join()
        return process.wait()

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        # Not yet collected, its number stays its own: what it left behind can be ended safely.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._guard:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._running = None
            process.wait()

    def _end(self, why: str) -> None:
        with self._guard:
            if self._running is None:
                return
            self._ended = self._ended or why
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _hang_up(*_: object) -> None:
    raise SystemExit(1)


def main() -> None:
    """Answer whoever is at the standard input and output."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _hang_up)
    # What anything else prints must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        Agent(sys.stdin.buffer, answers).serve()
    finally:
        # A thread may still read: Python's own end would wait for its lock.
        os._exit(0)


if __name__ == "__main__":
    main()
