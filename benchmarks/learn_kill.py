"""`kill -9` at random moments of a device that learns: what was promised is there afterwards.

    python -m benchmarks.learn_kill [--rounds 1000] [--seed 0] [--most-promises 24]
        [--most-ms 20] [--home DIR] [--most-s SECONDS] [--json] [--out FILE.json]

Each round a process opens what the one before left, accepts feedback and learns from it, in steps
that end in versions, and is killed by SIGKILL 0 to `--most-ms` milliseconds after 0 to
`--most-promises` things that it said it had done (through a pipe: an example accepted, a step, a
version). All that it said is then held against the disk: every accepted example in the journal, no
step older than the last one said, no version or pointer damaged.

With `--home` the device's folder stays, and the same command goes on where `--most-s` ended it.

The model is small, so that most of the time goes into what could break: writing. SIGKILL leaves
what was handed to the system; that a loss of power does no more is for `fsync`, and for the tests
that cut every file at every byte. Processes are forked, which Windows has not.
"""

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.learn_kill_work import JOURNAL, N_STEPS, versions_in, work
from benchmarks.telling import tell
from onhand.device.learning.durable import Generations
from onhand.device.learning.journal import read_journal

__all__ = ["Found", "keep_found", "kill_rounds", "main", "recall_found"]

_FOUND = "found.json"


@dataclass(slots=True)
class Found:
    """What was promised, and what was there.

    Attributes:
        kills: so far.
        duration_s: that they took.
        promised: examples that were accepted, by all processes.
        said: the last step that was said, by session.
        version: the last version that was said to be in use.
        n_steps: steps that were said.
        lost_examples: promised ones that were not in the journal after some kill.
        most_lost_steps: that a kill cost, of those that were said.
        corrupt_versions: damaged versions or pointers, after all kills together.
        corrupt_states: states of trainings that were damaged, likewise.
        lost_versions: kills after which an older version was in use than was said.
        notes: of damage, that processes found themselves.
        kills_in_steps: kills that left a training in the middle.
        lived_s: how long each process lived.
    """

    kills: int = 0
    duration_s: float = 0.0
    promised: list[str] = field(default_factory=list)
    said: dict[int, int] = field(default_factory=dict)
    version: int = 0
    n_steps: int = 0
    lost_examples: int = 0
    most_lost_steps: int = 0
    corrupt_versions: int = 0
    corrupt_states: int = 0
    lost_versions: int = 0
    notes: int = 0
    kills_in_steps: int = 0
    lived_s: list[float] = field(default_factory=list)


def kill_rounds(
    home: Path,
    *,
    rounds: int,
    seed: int,
    most_promises: int = 24,
    most_s: float = 0.02,
    found: Found | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Found:
    """Kill a process again and again, and look at what it leaves.

    Args:
        home: an empty folder, or the one of an earlier call; what is learned stays there.
        rounds: kills, those of earlier calls included.
        seed: decides when, and what is learned.
        most_promises: that a process makes at most before its moment is drawn.
        most_s: seconds that it lives on after them, at most.
        found: by an earlier call, which goes on; None to begin.
        is_over: asked before each kill: whether to leave the rest for another call.
    """
    if sys.platform == "win32":
        raise SystemExit("this benchmark forks processes, which this system does not")
    found = Found() if found is None else found
    while found.kills < rounds and not is_over():
        begun = time.perf_counter()
        draws = np.random.default_rng([seed, found.kills])
        told = _one(
            home,
            seed=seed * 1_000_003 + found.kills,
            promises=int(draws.integers(most_promises + 1)),
            lives_s=float(draws.uniform(0, most_s)),
            found=found,
        )
        _hear(told, found)
        _check(home, found)
        found.kills += 1
        found.duration_s += time.perf_counter() - begun
    return found


def keep_found(home: Path, found: Found, settings: Mapping[str, object]) -> None:
    """Write what was found beside what the device keeps, for a later call."""
    table = {"found": asdict(found), "settings": dict(settings)}
    draft = home / f"{_FOUND}.part"
    draft.write_text(json.dumps(table), encoding="utf-8")
    draft.replace(home / _FOUND)


def recall_found(home: Path, settings: Mapping[str, object]) -> Found | None:
    """Return what an earlier call found; None where there was none.

    Raises:
        SystemExit: if it had other settings.
    """
    if not (home / _FOUND).exists():
        return None
    table = json.loads((home / _FOUND).read_text(encoding="utf-8"))
    if table["settings"] != dict(settings):
        raise SystemExit(f"{home}: was begun with {table['settings']}; take another folder")
    kept = table["found"]
    return Found(**{**kept, "said": {int(key): value for key, value in kept["said"].items()}})


def _one(home: Path, *, seed: int, promises: int, lives_s: float, found: Found) -> str:
    """Let a process work for a while, kill it, and return all that it said."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(home, writer, seed)
        finally:
            os._exit(1)
    os.close(writer)
    begun = time.perf_counter()
    with os.fdopen(reader, "rb") as pipe:
        told = [pipe.readline() for _ in range(promises)]
        time.sleep(lives_s)
        os.kill(child, signal.SIGKILL)
        told.append(pipe.read())
    _, status = os.waitpid(child, 0)
    said = b"".join(told).decode()
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the process ended by itself, see above; it had said {said[-300:]!r}")
    found.lived_s.append(time.perf_counter() - begun)
    return said


def _hear(told: str, found: Found) -> None:
    for line in told.splitlines():
        kind, *words = line.split()
        if kind == "accepted":
            found.promised.append(words[0])
        elif kind == "step":
            found.said[int(words[0])] = int(words[1])
            found.n_steps += 1
        elif kind == "version":
            found.version = int(words[0])
        elif kind == "notes":
            found.notes += int(words[0])


def _check(home: Path, found: Found) -> None:
    """Hold the disk against what was said."""
    there = [json.loads(record)["id"] for record in read_journal(home / JOURNAL)]
    known = set(there)
    found.lost_examples += sum(name not in known for name in found.promised)
    # What is there and was not said is as good: the process died between the two.
    found.promised = there
    versions = versions_in(home)
    standing = versions.current()
    found.corrupt_versions += len(versions.damaged()) + len(standing.passed_over)
    found.lost_versions += standing.number < found.version
    found.version = standing.number
    folder = home / "learned" / "training" / f"{standing.number:06d}"
    saved, notes = Generations(folder).read()
    found.corrupt_states += len(notes)
    said = found.said.get(standing.number, 0)
    if saved is None:
        found.most_lost_steps = max(found.most_lost_steps, said)
        return
    step = min(saved.number, N_STEPS)
    found.kills_in_steps += 0 < step < N_STEPS
    found.most_lost_steps = max(found.most_lost_steps, said - step)


def main() -> None:
    """Run the benchmark; print the values, as JSON with --json."""
    given = _arguments()
    settings = {name: getattr(given, name) for name in ("most_ms", "most_promises", "seed")}
    end_s = time.monotonic() + given.most_s
    folder = Path(tempfile.mkdtemp()) if given.home is None else given.home
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = kill_rounds(
            folder,
            rounds=given.rounds,
            seed=given.seed,
            most_promises=given.most_promises,
            most_s=given.most_ms / 1000,
            found=recall_found(folder, settings),
            is_over=lambda: time.monotonic() >= end_s,
        )
        if given.home is not None:
            keep_found(folder, found, settings)
    finally:
        if given.home is None:
            shutil.rmtree(folder, ignore_errors=True)
    if found.kills < given.rounds:
        print(f"{found.kills} of {given.rounds} kills; the same command goes on")
        return
    words = [
        f"{name} {getattr(given, name[2:].replace('-', '_'))}"
        for name in ("--rounds", "--seed", "--most-promises", "--most-ms")
    ]
    results: dict[str, object] = {
        "accepted_examples": len(found.promised),
        "command": " ".join(["python -m benchmarks.learn_kill", *words]),
        "corrupt_states": found.corrupt_states,
        "corrupt_versions": found.corrupt_versions,
        "duration_s": found.duration_s,
        "kills": found.kills,
        "kills_in_steps": found.kills_in_steps,
        "lost_accepted_examples": found.lost_examples,
        "lost_versions": found.lost_versions,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "median_life_s": statistics.median(found.lived_s),
        "most_lost_steps": found.most_lost_steps,
        "notes_of_damage": found.notes,
        "steps": found.n_steps,
        "torch_imported": "torch" in sys.modules,
        "versions": found.version,
    }
    tell(results, as_json=given.json, out=given.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-promises", type=int, default=24)
    parser.add_argument("--most-ms", type=float, default=20.0, help="that it lives on after them")
    parser.add_argument("--home", type=Path, help="the device's folder, to go on in later")
    parser.add_argument(
        "--most-s", type=float, default=math.inf, help="ends then; with --home to go on later"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/learn_kill.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
