"""`onhand serve` in a process of its own, and a client that times what comes over loopback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

__all__ = ["Server", "Streamed", "counter", "streamed", "wait_until_ready"]

START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer as it came.

    Attributes:
        ttft_s: from sending the request to the first event with text.
        whole_s: to the last.
        text: all of it.
        prompt_tokens: as the server counted.
        cached_tokens: those of them that it did not compute.
        answer_tokens: likewise.
    """

    ttft_s: float
    whole_s: float
    text: str
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int


class Server:
    """`onhand serve`, from its start until it takes requests; kill it, or use a `with` block."""

    def __init__(
        self,
        bundle: Path,
        home: Path,
        *,
        cache: Mapping[str, int],
        model: Mapping[str, int | str],
        audit: Mapping[str, int | str] | None = None,
        token: str = "",
    ) -> None:
        """Start it, and wait until it is ready.

        Args:
            bundle: what it serves.
            home: its state folder.
            cache: `[cache]` of its settings.
            model: `[[model]]` of its settings, beside the bundle.
            audit: `[audit]` of its settings; None for the usual.
            token: of a key of its state folder; "" for a server that asks for none.
        """
        home.mkdir(parents=True, exist_ok=True)
        config = home / "serve.toml"
        tables: Mapping[str, Mapping[str, int | str]] = {
            "[log]": {"requests": False},
            "[access]": {"open": not token},
            "[cache]": cache,
            "[audit]": audit or {},
            "[[model]]": {"bundle": str(bundle.resolve()), **model},
        }
        config.write_text("".join(_toml(name, table) for name, table in tables.items()))
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "onhand",
                "serve",
                *(() if token else ("--open",)),
                *("--config", str(config), "--port", "0"),
            ],
            env=os.environ | {"ONHAND_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.process.stdout is None:
            raise RuntimeError("a server has a pipe")
        self.url = self.process.stdout.readline().strip().removesuffix("/v1")
        if not self.url:
            raise RuntimeError(f"onhand serve ended with status {self.process.wait()}")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx2.Client(base_url=self.url, headers=self.headers, timeout=600)
        wait_until_ready(self.client, "/ready")

    def kill(self) -> None:
        """End it by SIGKILL: nothing of it runs any more."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.kill()


def wait_until_ready(client: httpx2.Client, path: str) -> None:
    """Ask until a server says that it takes requests."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if client.get(path).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"{client.base_url} is not ready after {START_S} s")


def streamed(client: httpx2.Client, asked: Mapping[str, object]) -> Streamed:
    """Ask greedily, and time the stream.

    Args:
        client: of a server that speaks OpenAI's API.
        asked: `messages` or `prompt`, and all else that the answer depends on.

    Returns:
        What came.
    """
    path = "/v1/chat/completions" if "messages" in asked else "/v1/completions"
    body = {
        **asked,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun_s = time.perf_counter()
    first_s = 0.0
    parts: list[str] = []
    usage: Mapping[str, Any] = {}
    cached = 0
    with client.stream("POST", path, json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if text := "".join(_text(choice) for choice in event.get("choices", ())):
                first_s = first_s or time.perf_counter()
                parts.append(text)
            usage = event.get("usage") or usage
            cached = (event.get("timings") or {}).get("cache_n", cached)  # as llama.cpp says it
    ended_s = time.perf_counter()
    details = usage.get("prompt_tokens_details") or {}
    return Streamed(
        ttft_s=(first_s or ended_s) - begun_s,
        whole_s=ended_s - begun_s,
        text="".join(parts),
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        cached_tokens=int(details.get("cached_tokens") or cached),
        answer_tokens=int(usage.get("completion_tokens", 0)),
    )


def counter(client: httpx2.Client, name: str) -> float:
    """Return a figure of `/metrics`."""
    found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"there is no {name} in /metrics")
    return float(found[1])


def _text(choice: Mapping[str, Any]) -> str:
    return str(choice.get("text") or (choice.get("delta") or {}).get("content") or "")


def _toml(name: str, table: Mapping[str, int | str]) -> str:
    lines: Sequence[str] = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join([name, *lines, ""])
