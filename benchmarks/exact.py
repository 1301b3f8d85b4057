"""The same request again: what an answer from the exact cache takes, and how much less that is.

    python -m benchmarks.exact [--bundle DIR] [--questions 20] [--rounds 5] [--json]
        [--out FILE.json]

Without --bundle the house assistant is built in int4. Questions are asked over loopback of a server
in a process of its own, each once uncached and then `rounds` times from the cache, by one client
that keeps its connection; and of the same routes within one process, where no socket is between:
that is what the server itself takes. Medians; spread is the interquartile range.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from onhand.device.access.doorkeeper import Admission
from onhand.device.access.scopes import EVERYTHING
from onhand.device.serving.app import make_routes
from onhand.device.serving.assembling import opened_state
from onhand.device.serving.settings import ANONYMOUS, ModelSettings, ServeSettings

__all__ = ["main"]

_MODEL = Path(__file__).parents[1] / "examples" / "house_assistant" / "model"
_PATH = "/v1/completions"  # which every bundle answers, with a chat template or without
_ROOMS = ("kitchen", "bedroom", "hallway", "study", "bathroom")
_DOINGS = ("turn on the light in the {}", "close the blinds in the {}", "dim the lamp in the {}")
Samples = dict[str, list[float]]  # "uncached" and "hit" -> seconds


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    questions = [
        f"{_DOINGS[i % len(_DOINGS)].format(_ROOMS[i % len(_ROOMS)])}, please, {i} times"
        for i in range(given.questions)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bundle = given.bundle or _build(place)
        with _server(bundle, place / "over") as url, httpx2.Client(timeout=120) as client:
            over = _measured(lambda body: _over(client, url, body), questions, given.rounds)
        within = asyncio.run(_within(bundle, place / "within", questions, given.rounds))
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.exact", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "questions": len(questions),
        "rounds": given.rounds,
        "loopback": _summary(over),
        "in_server": _summary(within),
    }
    for name in ("loopback", "in_server"):
        results[f"{name}_hit_p50_s"] = results[name]["hit"]["p50_s"]
        results[f"{name}_uncached_over_hit"] = results[name]["uncached_over_hit"]
    keys = [key for key, value in results.items() if isinstance(value, int | float)]
    lines = [f"{key}: {results[key]:.6g}" for key in keys]
    print(json.dumps(results, indent=1) if given.json else "\n".join(lines))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="a language model's bundle")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/exact.json"))
    return parser.parse_args()


def _build(place: Path) -> Path:
    bundle = place / "house-assistant"
    words = ["build", str(_MODEL), "-o", str(bundle), "--bits", "4", "--method", "rtn", "--json"]
    subprocess.run(
        [sys.executable, "-m", "onhand", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(place / "home")},
    )
    return bundle


@contextmanager
def _server(bundle: Path, home: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "onhand", "serve", str(bundle), "--port", "0", "--open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"ONHAND_HOME": str(home)},
    )
    try:
        if process.stdout is None or not (line := process.stdout.readline()):
            raise RuntimeError(f"the server ended with status {process.wait()}")
        yield line.strip().removesuffix("/v1")
    finally:
        process.terminate()
        process.wait()


def _body(question: str) -> dict[str, object]:
    return {"prompt": question, "max_tokens": 64, "temperature": 0}


def _measured(
    ask: Callable[[str], tuple[str, float]], questions: Sequence[str], rounds: int
) -> Samples:
    """Ask each question once for its answer and then from the cache; the first warms up.

    Raises:
        RuntimeError: if an answer does not come from where it should.
    """
    found: Samples = {"uncached": [], "hit": []}
    ask("a question to begin with")
    for kind, n in (("uncached", 1), ("hit", rounds)):
        for _ in range(n):
            for question in questions:
                cache, taken_s = ask(question)
                if cache != {"uncached": "miss", "hit": "exact"}[kind]:
                    raise RuntimeError(f"{kind}: x-cache is {cache}")
                found[kind].append(taken_s)
    return found


def _over(client: httpx2.Client, url: str, question: str) -> tuple[str, float]:
    begun = time.perf_counter()
    response = client.post(url + _PATH, json=_body(question))
    taken_s = time.perf_counter() - begun
    response.raise_for_status()
    return response.headers["x-cache"], taken_s


async def _within(bundle: Path, home: Path, questions: Sequence[str], rounds: int) -> Samples:
    settings = ServeSettings(models=(ModelSettings(bundle=str(bundle)),))
    with opened_state(settings, home=home, told=lambda _: None) as state:
        routes = make_routes(state, settings)
        found: Samples = {"uncached": [], "hit": []}
        await _call(routes, "a question to begin with")
        for kind, n in (("uncached", 1), ("hit", rounds)):
            for _ in range(n):
                for question in questions:
                    found[kind].append(await _call(routes, question))
    return found


async def _call(routes: Any, question: str) -> float:
    content = json.dumps(_body(question)).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": _PATH,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": {
            "tenant": ANONYMOUS,
            "admission": Admission(tenant=ANONYMOUS, grant=EVERYTHING),
        },
    }
    left = asyncio.Event()
    parts = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, object]:
        if parts:
            return parts.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(f"status {message['status']}")

    begun = time.perf_counter()
    await routes(scope, receive, send)
    return time.perf_counter() - begun


def _summary(samples: Samples) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, seconds in samples.items():
        low, middle, high, slow = np.quantile(seconds, (0.25, 0.5, 0.75, 0.95)).tolist()
        found[kind] = {
            "p50_s": middle,
            "p95_s": slow,
            "spread_s": high - low,
            "samples": len(seconds),
        }
    found["uncached_over_hit"] = found["uncached"]["p50_s"] / found["hit"]["p50_s"]
    return found


if __name__ == "__main__":
    main()
