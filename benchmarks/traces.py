"""Recorded arrivals replayed against `onhand serve`, with and without its prefix caches.

    python -m benchmarks.traces [--requests 300] [--rate R] [--traces mooncake,azure]
        [--shape smollm2-135m] [--bundle DIR] [--memory-bytes N] [--blocks-bytes N]
        [--llama-server FILE] [--anew] [--json] [--out FILE.json]

The first requests of `mooncake-trace` and `azure-llm-trace` (ONHAND_ASSETS), each block of 512
tokens made 16 of its own (words drawn by the block's hash), answers shorter likewise, stretched in
time to 2 requests a second on average (Azure's, which are shorter, to 5), or to `--rate`. Requests
are sent when they are due, whatever still runs, each as a greedy stream. Servers run one after the
other, each in a process of its own and with nothing remembered: ours with its prefix caches
(sessions in memory, blocks on the disk), without any, and llama.cpp's server on the same weights
with as many bytes of cache and as many slots. The cache of whole answers is off.

"ideal" is the share of prompt tokens that an endless cache finds, "ideal_lru" one of the bytes
given that forgets the longest unused, both as if each request ended before the next. Azure's trace
does not say what requests share: nothing here, so it shows what caches cost that find nothing.

The whole run takes about twelve minutes. What each server did is kept in a file beside `--out` as
soon as it has ended: a run that was stopped goes on from there, unless `--anew` says otherwise.

llama.cpp's server comes with the source of its Python package:

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36, unpack it, and
    cmake -S vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release
    cmake --build build -t llama-server

`--llama-server` or the variable LLAMA_SERVER names it; where it is not there it is left out, and a
sentence says so.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.served import Server, Streamed, streamed, wait_until_ready
from benchmarks.sessions import ASSETS, build
from benchmarks.shapes import SHAPES
from benchmarks.trace_data import (
    BLOCK,
    Arrival,
    at_rate,
    best_hit_rate,
    read_azure,
    read_mooncake,
)
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.progress import Quiet
from onhand.device.text_files import read_text_files
from onhand.device.threads import usable_threads
from onhand.host.export.gguf import export_gguf

__all__ = ["main"]

SLOTS = 8
RATES: Mapping[str, float] = {"mooncake": 2.0, "azure": 5.0}
_TRACES: Mapping[str, Callable[[int], list[Arrival]]] = {
    "mooncake": lambda n: read_mooncake(ASSETS / "mooncake-trace/conversation_trace.jsonl", n),
    "azure": lambda n: read_azure(ASSETS / "azure-llm-trace/AzureLLMInferenceTrace_conv.csv", n),
}


def main() -> None:
    """Run the benchmark; print a table, or with --json all values."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given, Path(scratch))
    results = {
        "command": " ".join(["python -m benchmarks.traces", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "requests": given.requests,
        "requests_per_s": {name: rate_of(name, given) for name in given.traces},
        "memory_bytes": given.memory_bytes,
        "blocks_bytes": given.blocks_bytes,
        **found,
    }
    print(json.dumps(results, indent=1) if given.json else table(found))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    Ended(given).forget()


def rate_of(trace: str, given: argparse.Namespace) -> float:
    """Return requests a second."""
    return float(given.rate or RATES[trace])


class Ended:
    """What servers did before this run was stopped, and what they do in it; in a file."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Read the file, if it is of a run like this one."""
        self._path = given.out.with_suffix(".partial.json")
        names = ("requests", "rate", "shape", "memory_bytes", "blocks_bytes")
        self._like = {name: getattr(given, name) for name in names}
        self._like["bundle"] = given.bundle.name if given.bundle else ""
        self._arms: dict[str, dict[str, object]] = {}
        if given.anew or not self._path.is_file():
            return
        kept = json.loads(self._path.read_text())
        if kept["like"] == self._like:
            self._arms = kept["arms"]

    def get(self, arm: str, run: Callable[[], dict[str, object]]) -> dict[str, object]:
        """Return what a server did, now or before."""
        if arm in self._arms:
            print(f"{arm}: done before", file=sys.stderr)
            return self._arms[arm]
        begun_s = time.monotonic()
        found = self._arms[arm] = run()
        print(
            f"{arm}: {time.monotonic() - begun_s:.0f} s, hit rate {found['hit_rate']:.1%}, "
            f"first token {found['ttft_p50_s']:.3f} s",
            file=sys.stderr,
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"like": self._like, "arms": self._arms}) + "\n")
        return found

    def forget(self) -> None:
        """Remove the file: the whole run is written."""
        self._path.unlink(missing_ok=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second, of all traces")
    parser.add_argument(
        "--traces", type=lambda text: text.split(","), default=list(_TRACES), help="which"
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--bundle", type=Path, help="an int4 bundle, instead of a shape")
    parser.add_argument("--memory-bytes", type=int, default=2**28)
    parser.add_argument("--blocks-bytes", type=int, default=2**30)
    llama = os.environ.get("LLAMA_SERVER", "build/llama-server")
    parser.add_argument("--llama-server", type=Path, default=Path(llama))
    parser.add_argument("--anew", action="store_true", help="begin anew where a run was stopped")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/traces.json"))
    return parser.parse_args()


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Replay every trace against every server; return the figures of each."""
    folder = given.bundle or build(given.shape, scratch)
    bundle = read_bundle(folder)
    decoder = bundle.manifest.decoder
    words = _words(bundle)
    most_bytes = given.memory_bytes + given.blocks_bytes
    most_tokens = most_bytes // (2 * decoder.kv_values_per_token)
    skipped: list[str] = []
    gguf = scratch / "model.gguf"
    if given.llama_server.is_file():
        export_gguf(bundle, bundle.variant(None)[0], gguf, progress=Quiet())
    else:
        skipped.append(f"llama.cpp's server is left out: {given.llama_server} is absent")
    found: dict[str, object] = {"skipped": skipped}
    ended = Ended(given)
    for name in given.traces:
        whole = _TRACES[name](given.requests)
        fitting = [one for one in whole if _size(one) <= decoder.context]
        if len(fitting) < len(whole):
            skipped.append(f"{name}: {len(whole) - len(fitting)} requests are beyond the context")
        arrivals = at_rate(fitting, rate_of(name, given))
        print(f"{name}: {len(arrivals)} requests in {arrivals[-1].at_s:.0f} s", file=sys.stderr)
        figures: dict[str, object] = {
            "requests": len(arrivals),
            "prompt_tokens": sum(BLOCK * len(one.blocks) for one in arrivals),
            "ideal": best_hit_rate(arrivals, most_tokens=None),
            "ideal_lru": best_hit_rate(arrivals, most_tokens=most_tokens),
        }
        asked = [_asked(one, words) for one in arrivals]
        for way, size in (("onhand", 1), ("onhand_without_caches", 0)):
            home = scratch / f"{name}-{way}"
            ours = partial(_ours, given, folder, home, size=size, arrivals=arrivals, asked=asked)
            figures[way] = ended.get(f"{name}/{way}", ours)
        if gguf.exists():
            theirs = partial(
                _theirs, given, gguf, context=decoder.context, arrivals=arrivals, asked=asked
            )
            try:
                figures["llama.cpp"] = ended.get(f"{name}/llama.cpp", theirs)
            except (httpx2.HTTPError, RuntimeError) as error:
                # As with a tokenizer that a GGUF file cannot hold.
                skipped.append(f"{name}: llama.cpp's server is left out, it ended: {error}")
        found[name] = figures
    return found


def _ours(
    given: argparse.Namespace,
    folder: Path,
    home: Path,
    *,
    size: int,
    arrivals: Sequence[Arrival],
    asked: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    """Replay a trace against our server, with its caches (size 1) or without (size 0)."""
    cache = {"exact_bytes": 0, "blocks_bytes": size * given.blocks_bytes}
    settings: Mapping[str, int | str] = {
        "name": "model",
        "prefix_cache_bytes": size * given.memory_bytes,
        "max_active": SLOTS,
        "max_waiting": len(arrivals),
    }
    with Server(folder, home, cache=cache, model=settings) as server:
        return replayed(server.client, arrivals, asked)


def _theirs(
    given: argparse.Namespace,
    gguf: Path,
    *,
    context: int,
    arrivals: Sequence[Arrival],
    asked: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    """Replay a trace against llama.cpp's server."""
    with _llama(given, gguf, context, given.memory_bytes + given.blocks_bytes) as client:
        return replayed(client, arrivals, asked)


def replayed(
    client: httpx2.Client, arrivals: Sequence[Arrival], asked: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """Send requests when they are due; return the figures of their answers."""
    streamed(client, {"prompt": "Something else entirely.", "max_tokens": 4})
    begun_s = time.monotonic()

    def send(number: int) -> Streamed | str:
        try:
            return streamed(client, asked[number])
        except httpx2.HTTPError as error:
            return f"{type(error).__name__}: {error}"[:200]

    with ThreadPoolExecutor(len(arrivals)) as pool:
        running = []
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, arrival.at_s - (time.monotonic() - begun_s)))
            running.append(pool.submit(send, number))
        ended = [one.result() for one in running]
    whole_s = time.monotonic() - begun_s
    answers = [one for one in ended if isinstance(one, Streamed)]
    failed = [one for one in ended if isinstance(one, str)]
    n_prompt = sum(one.prompt_tokens for one in answers)
    waits = [one.ttft_s for one in answers] or [0.0]
    return {
        "hit_rate": sum(one.cached_tokens for one in answers) / max(1, n_prompt),
        "prompt_tokens": n_prompt,
        "ttft_p50_s": float(np.percentile(waits, 50)),
        "ttft_p95_s": float(np.percentile(waits, 95)),
        "whole_s": whole_s,
        "failed": len(failed),
        "failures": failed[:3],
        "ttft_s": [round(wait, 5) for wait in waits],
    }


def table(found: Mapping[str, object]) -> str:
    """Return the figures as lines for people."""
    lines = [str(sentence) for sentence in _list(found["skipped"])]
    for trace, figures in found.items():
        if not isinstance(figures, dict):
            continue
        ideal = f"ideal {figures['ideal']:.1%}, of this size {figures['ideal_lru']:.1%}"
        lines.append(f"{trace}: {figures['requests']} requests; {ideal}")
        for way, one in figures.items():
            if isinstance(one, dict):
                waits = f"p50 {one['ttft_p50_s']:.3f} s, p95 {one['ttft_p95_s']:.3f} s"
                lines.append(
                    f"  {way}: hit rate {one['hit_rate']:.1%}, first token {waits}, "
                    f"{one['failed']} failed"
                )
    return "\n".join(lines)


@contextmanager
def _llama(
    given: argparse.Namespace, gguf: Path, context: int, most_bytes: int
) -> Iterator[httpx2.Client]:
    """Start llama.cpp's server, with as many slots and bytes as ours has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    threads = str(usable_threads())
    words = ["-m", str(gguf), "--host", "127.0.0.1", "--port", str(port), "-t", threads]
    words += ["-tb", threads, "-np", str(SLOTS), "-c", str(context * SLOTS)]
    words += ["--cache-ram", str(most_bytes // 2**20)]
    process = subprocess.Popen(
        [str(given.llama_server), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_until_ready(client, "/health")
            yield client
    finally:
        process.kill()
        process.wait()


def _words(bundle: Bundle) -> list[str]:
    """Return words that are one token each, wherever they stand."""
    tokenizer = read_text_files(bundle).tokenizer
    vocabulary = json.loads(bundle.path("tokenizer.json").read_bytes())["model"]["vocab"]
    spaced = [word.replace("Ġ", " ") for word in sorted(vocabulary) if word.startswith("Ġ")]
    plain = [word for word in spaced if word[1:].isascii() and word[1:].isalpha()]
    return [word for word in plain if len(tokenizer.encode_plain(word + word)) == 2]


def _asked(arrival: Arrival, words: Sequence[str]) -> Mapping[str, object]:
    text = []
    for name in arrival.blocks:
        drawn = np.random.default_rng(name).integers(0, len(words), BLOCK)
        text += [words[i] for i in drawn]
    return {"prompt": "".join(text), "max_tokens": arrival.n_answer}


def _size(arrival: Arrival) -> int:
    return BLOCK * len(arrival.blocks) + arrival.n_answer


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


if __name__ == "__main__":
    main()
