"""What it costs that a bundle is sealed: the time from a new process to its first token.

    python -m benchmarks.sealed_open [--shape qwen2.5-0.5b] [--bits 8] [--runs 5]
        [--engine native] [--bundle DIR] [--json] [--out FILE.json]

A bundle of random weights is built, or one is given, and sealed for a vault that is made for it.
Then new processes open the plain and the sealed one in turn, each after its files were read once,
so that the disk is not what differs; a process says how long opening took (every file is checked,
and of the sealed one decrypted), how long until the first token, and its highest memory.

`extra_open_s` is the difference of the medians; `is_within` whether it is at most 1.5 s.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from onhand.core.bundle import read_bundle
from onhand.core.sealed_header import parse_recipient
from onhand.core.sealed_writing import seal_bundle
from onhand.device.threads import usable_threads
from onhand.device.vault.recipients import recipient_of
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import init_vault, open_vault

__all__ = ["main"]

MOST_EXTRA_S = 1.5
CHILD = """
import json, resource, sys, time
from pathlib import Path
begun = time.perf_counter()
import numpy as np
from onhand.core.unsealing import unsealing
from onhand.core.bundle import verifying_bundle
from onhand.device.engines.named import named_engine
from onhand.device.vault.recipients import DeviceUnsealer
root, home, engine, threads = sys.argv[1:]
imported = time.perf_counter()
with unsealing(DeviceUnsealer(lambda: Path(home))):
    with verifying_bundle(Path(root)) as bundle:
        variant = bundle.manifest.default_variant
        loaded = named_engine(engine).open(bundle, variant=variant, threads=int(threads))
opened = time.perf_counter()
session = loaded.session(context=16)
loaded.step([(session, np.array([1, 2, 3], dtype=np.int64))])
first = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"open_s": opened - imported, "first_token_s": first - imported,
                  "peak_bytes": peak}))
"""


def main() -> None:
    """Run the benchmark; print the values, as JSON with --json."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given, Path(scratch))
    results = {
        "command": " ".join(["python -m benchmarks.sealed_open", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        **found,
    }
    if given.out is not None:
        given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if given.json:
        print(json.dumps(results, indent=1))
        return
    for name, value in results.items():
        if not isinstance(value, list):
            print(f"{name}: {value}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--bits", type=int, default=8, choices=(4, 8))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--engine", default="native")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Open a plain and a sealed bundle in turn, each in new processes.

    Args:
        given: the options.
        scratch: where bundles may be made.

    Returns:
        The values, raw ones included.
    """
    root = given.bundle or _built(given.shape, given.bits, scratch)
    home = scratch / "home"
    init_vault(home, kind="key-file", place=str(scratch / "key"), asking=Asking({}))
    vault = open_vault(home)
    if vault is None:
        raise SystemExit("the vault is not there")
    seal_bundle(root, scratch / "sealed", [parse_recipient(recipient_of(vault))])
    places = {"plain": root, "sealed": scratch / "sealed"}
    taken: dict[str, list[Mapping[str, float]]] = {name: [] for name in places}
    for turn in range(given.runs + 1):
        for name, place in places.items():
            one = _opened(place, home, given.engine)
            if turn:  # the first brings the files into memory
                taken[name].append(one)
    found: dict[str, object] = {"size_bytes": read_bundle(root).size_bytes(), "raw": [taken]}
    for name, runs in taken.items():
        for key in ("open_s", "first_token_s", "peak_bytes"):
            values = [run[key] for run in runs]
            found[f"{name}_{key}"] = statistics.median(values)
            found[f"{name}_{key}_spread"] = max(values) - min(values)
    extra = [statistics.median(run["open_s"] for run in taken[name]) for name in taken]
    found["extra_open_s"] = extra[1] - extra[0]
    found["is_within"] = extra[1] - extra[0] <= MOST_EXTRA_S
    return found


def _built(shape: str, bits: int, scratch: Path) -> Path:
    from benchmarks.sessions import build

    (scratch / "made").mkdir()
    return build(shape, scratch / "made", bits=bits)


def _opened(root: Path, home: Path, engine: str) -> Mapping[str, float]:
    command = [sys.executable, "-c", CHILD, str(root), str(home), engine, str(usable_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
