"""Requests of mixed kinds for `benchmarks.soak`, drawn from a seed, and clients that leave."""

import asyncio
import base64
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np

__all__ = ["KINDS", "Requests", "Tally", "make_networks"]

_POOL: Final = 40  # commands that are asked again and again
_SCHEMA: Final = {
    "type": "object",
    "properties": {"say": {"type": "string", "maxLength": 12}},
    "required": ["say"],
    "additionalProperties": False,
}
_WORDS: Final = json.dumps({
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "light": 1, "door": 2, "open": 3},
        "unk_token": "[UNK]",
    },
}).encode()

Kind = Callable[["Requests"], tuple[str, dict[str, Any]]]


@dataclass(slots=True)
class Tally:
    """What became of requests.

    Attributes:
        whole: kind -> answers that came to their end.
        left: kind -> clients that left before.
        refused: kind and status -> refusals.
        wrong: sentences about what should not be.
        repeated: a request that draws nothing -> its first answer.
    """

    whole: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    repeated: dict[str, str] = field(default_factory=dict)

    @property
    def n_whole(self) -> int:
        """Answers that came to their end."""
        return sum(self.whole.values())

    @property
    def n_left(self) -> int:
        """Clients that left before."""
        return sum(self.left.values())


class Requests:
    """Draws requests, sends them, and leaves some of them at random points."""

    def __init__(
        self, url: str, commands: Sequence[str], *, seed: int, leaving: float, n_at_once: int
    ) -> None:
        """Start with none.

        Args:
            url: of the server.
            commands: texts to ask.
            seed: of all that is drawn.
            leaving: share of the clients that leave.
            n_at_once: clients at once.
        """
        self.random = random.Random(seed)  # noqa: S311 (no secret)
        self.commands = commands
        self.picture = _picture(seed)
        self.tally = Tally()
        self._leaving = leaving
        self._places = asyncio.Semaphore(n_at_once)
        limits = httpx2.Limits(max_connections=2 * n_at_once, max_keepalive_connections=n_at_once)
        self._client = httpx2.AsyncClient(base_url=url, timeout=120, limits=limits)

    async def run(self, n: int, *, between: Callable[[int], None]) -> None:
        """Send requests, a bounded number of them at once.

        Args:
            n: how many.
            between: called with the number of those that ended, after each.
        """
        n_ended = 0

        async def one(kind: str) -> None:
            nonlocal n_ended
            try:
                await self._one(kind)
            finally:
                self._places.release()
                n_ended += 1
                between(n_ended)

        async with self._client, asyncio.TaskGroup() as tasks:
            for kind in self.random.choices(tuple(KINDS), k=n):
                await self._places.acquire()
                tasks.create_task(one(kind))

    async def _one(self, kind: str) -> None:
        path, body = KINDS[kind](self)
        work = asyncio.ensure_future(self._answer(path, body))
        patience_s = None
        if self.random.random() < self._leaving:
            patience_s = self.random.expovariate(1 / 0.05)
        done, _ = await asyncio.wait({work}, timeout=patience_s)
        if not done:
            work.cancel()
            with suppress(asyncio.CancelledError, httpx2.HTTPError):
                await work
            _count(self.tally.left, kind)
            return
        status, text = work.result()
        if status == 200:
            _count(self.tally.whole, kind)
            self._check(kind, body, text)
        else:
            _count(self.tally.refused, f"{kind} {status}")
            if status not in {429, 503}:
                self.tally.wrong.append(f"{kind}: {status} {text[:200]}")

    async def _answer(self, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
        if not body.get("stream"):
            reply = await self._client.post(path, json=body)
            return reply.status_code, reply.text
        parts: list[str] = []
        async with self._client.stream("POST", path, json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    parts.append(_delta(json.loads(line[6:])))
        return reply.status_code, "".join(parts)

    def _check(self, kind: str, body: Mapping[str, Any], text: str) -> None:
        if kind == "schema":
            said = json.loads(text)["choices"][0]
            if said["finish_reason"] == "stop" and set(json.loads(_said(said))) != {"say"}:
                self.tally.wrong.append(f"schema: {_said(said)[:200]}")
        if kind in {"cached", "chat_stream"}:
            if kind == "cached":
                text = _said(json.loads(text)["choices"][0])
            key = json.dumps([body["messages"], body["max_tokens"]])
            if self.tally.repeated.setdefault(key, text) != text:
                self.tally.wrong.append(f"{kind}: another answer to the same request")

    def chat(self, *, n_commands: int, **more: object) -> tuple[str, dict[str, Any]]:
        """Draw a conversation of one command among the first ones."""
        said = self.commands[self.random.randrange(n_commands)]
        body = {"model": "house", "messages": [{"role": "user", "content": said}], "temperature": 0}
        return "/v1/chat/completions", body | {"max_tokens": 32} | more


def _any(requests: Requests, **more: object) -> tuple[str, dict[str, Any]]:
    length = {"max_tokens": requests.random.randrange(2, 48)}
    return requests.chat(n_commands=len(requests.commands), **(length | more))


def _completion(requests: Requests) -> tuple[str, dict[str, Any]]:
    said = requests.random.choice(requests.commands)
    body = {"model": "house", "prompt": said, "max_tokens": 16, "temperature": 0.8}
    return "/v1/completions", body | {"stream": requests.random.random() < 0.5}


def _texts(requests: Requests) -> tuple[str, dict[str, Any]]:
    texts = [" ".join(requests.random.choices(["light", "door", "open"], k=3)) for _ in range(4)]
    return "/v1/embeddings", {"model": "words", "input": texts}


def _schema(requests: Requests) -> tuple[str, dict[str, Any]]:
    form = {"type": "json_schema", "json_schema": {"name": "say", "schema": _SCHEMA}}
    return requests.chat(n_commands=len(requests.commands), response_format=form, max_tokens=40)


KINDS: Final[Mapping[str, Kind]] = {
    "chat": _any,
    "chat_stream": lambda requests: requests.chat(n_commands=_POOL, stream=True),
    "cached": lambda requests: requests.chat(n_commands=_POOL),
    "several": lambda requests: _any(
        requests, n=3, temperature=1, seed=requests.random.randrange(99)
    ),
    "scores": lambda requests: _any(requests, logprobs=True, top_logprobs=3),
    "long_stream": lambda requests: _any(requests, stream=True, max_tokens=120, temperature=1),
    "completion": _completion,
    "schema": _schema,
    "embeddings": _texts,
    "classify": lambda requests: (
        "/v1/classify",
        {"model": "pictures", "image": requests.picture},
    ),
}


def make_networks(folder: Path) -> dict[str, Path]:
    """Write two toy networks: vectors of words, and classes of small pictures.

    Returns:
        Name -> bundle.
    """
    from tests.network_bundles import Drawing, Op, classifier, info, pack

    from onhand.core.feed import PictureFeed, TextFeed

    drawn = np.random.default_rng(0)
    mean = Op(
        kind="ReduceMean",
        inputs=["rows"],
        outputs=["y"],
        attributes={"axes": [1], "keepdims": 0},
    )
    words = Drawing(
        ops=[Op(kind="Gather", inputs=["table", "ids"], outputs=["rows"]), mean],
        constants={"table": drawn.standard_normal((4, 64)).astype(np.float32)},
        inputs=(info("ids", None, None, dtype="int64"),),
        outputs=(info("y", None, 64),),
    )
    made = {
        "words": pack(
            folder / "words",
            {"fp32": words},
            task="text-embedding",
            feed=TextFeed(max_tokens=16, ids="ids", mask="", types=""),
            files={"tokenizer.json": _WORDS},
        ),
        "pictures": pack(
            folder / "pictures",
            {"fp32": classifier(drawn)},
            task="image-classification",
            feed=PictureFeed(height=12, width=12),
        ),
    }
    return {name: bundle.root for name, bundle in made.items()}


def _picture(seed: int) -> str:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _delta(event: Mapping[str, Any]) -> str:
    if "error" in event:
        return f"<error {event['error']['code']}>"
    choices = event["choices"]
    if not choices:
        return ""
    return choices[0].get("text") or choices[0].get("delta", {}).get("content") or ""


def _said(choice: Mapping[str, Any]) -> str:
    return str(choice["message"]["content"])


def _count(table: dict[str, int], key: str) -> None:
    table[key] = table.get(key, 0) + 1
