"""A build killed at random moments and resumed: the same bytes as one that nobody disturbed.

    python -m benchmarks.resume [--kills 20] [--source DIR] [--out FILE.json]

Builds a model once in one go, takes the time, then builds it again under another name: each time
the process is killed with SIGKILL after a random time and started again with `--resume`, until it
has been killed so often. Moments are drawn from the time until the last matrix is finished. Where
a run finished nothing more, as when only the proof is left, one more moment is drawn from all of
the time, and the build goes on to its end, is compared and begun anew. Every file but the report
must be the same.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

SOURCE = Path("examples/house_assistant/model")
TEXT = Path("examples/house_assistant/data/calibration.txt")
OPTIONS = ["--preset", "good", "--variants", "int4,int8", "--no-original", "--threads", "2"]


def main() -> None:
    """Run the benchmark and say whether the bytes are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/resume.json"))
    given = parser.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as scratch:
        shelf = Path(scratch)
        started = time.perf_counter()
        first = run(given.source, shelf / "whole", resume=False)
        working = watch(shelf / "whole.building", first, started)
        seconds = time.perf_counter() - started
        expected = hashes(shelf / "whole")
        print(f"one go: {working:.1f} of {seconds:.1f} s to the last matrix", flush=True)
        moments: list[dict[str, object]] = []
        same, before = 0, ""
        while len(moments) < given.kills:
            proving = before != "" and before == finished(shelf)
            before = finished(shelf)
            moment = chance.uniform(0.5, seconds if proving else working)
            process = run(given.source, shelf / "killed", resume=True)
            if is_killed(process, moment):
                moments.append({"after_s": moment, "finished": finished(shelf)})
                print(f"killed after {moment:.1f} s: {finished(shelf)}", flush=True)
                if not (proving or (shelf / "killed").exists()):
                    continue
                finish(given.source, shelf)
            elif process.returncode:
                sys.exit(f"a resumed build ended with status {process.returncode}")
            same, before = same + check(shelf, expected), ""
        finish(given.source, shelf)
        same += check(shelf, expected)
    print(f"{given.kills} kills, {same} whole builds, all of them the same bytes")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "command": " ".join(["python -m benchmarks.resume", *sys.argv[1:]]),
        "one_go_s": seconds,
        "kills": moments,
        "whole_builds": same,
        "same_bytes": True,
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def run(source: Path, out: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    """Start a build."""
    command = [sys.executable, "-m", "onhand", "build", str(source), "-o", str(out)]
    return subprocess.Popen(
        [*command, *OPTIONS, "--calibrate", str(TEXT), *(["--resume"] if resume else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(out.parent / "home")},
    )


def watch(work: Path, process: "subprocess.Popen[bytes]", started: float) -> float:
    """Wait for a build to end; return the seconds until its last matrix was finished."""
    count, moment = 0, 0.0
    while process.poll() is None:
        if (found := len(list(work.glob("matrices/*/*.npz")))) > count:
            count, moment = found, time.perf_counter() - started
        time.sleep(0.02)
    return moment


def is_killed(process: "subprocess.Popen[bytes]", moment: float) -> bool:
    """Kill a build after so many seconds; say whether it was still at work."""
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def finished(shelf: Path) -> str:
    """Say what an interrupted build has kept."""
    work = shelf / "killed.building"
    layers = len(list(work.glob("original/*.npy")))
    matrices = len(list(work.glob("matrices/*/*.npz")))
    return f"{layers} statistics, {matrices} matrices"


def finish(source: Path, shelf: Path) -> None:
    """Resume a killed build to its end.

    One that was killed when the bundle was in its place already is refused, as the name is taken,
    and what it left is removed.
    """
    expected = 2 if (shelf / "killed").exists() else 0
    if (status := run(source, shelf / "killed", resume=True).wait()) != expected:
        sys.exit(f"a resumed build ended with status {status}, expected {expected}")


def check(shelf: Path, expected: dict[str, str]) -> int:
    """Compare a finished build with the one that nobody disturbed, and make room for the next."""
    if (found := hashes(shelf / "killed")) != expected:
        differing = [name for name in expected if found.get(name) != expected[name]]
        sys.exit(f"other bytes in {', '.join(differing)}")
    left = sorted(path.name for path in shelf.iterdir())
    if left != ["home", "killed", "whole"]:
        sys.exit(f"left behind: {left}")
    shutil.rmtree(shelf / "killed")
    return 1


def hashes(bundle: Path) -> dict[str, str]:
    """Return the hash of every file but the report."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.iterdir()
        if not path.name.startswith("report.")
    }


if __name__ == "__main__":
    main()
