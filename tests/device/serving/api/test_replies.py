"""Event streams: comments while nothing comes, and an end as soon as nobody reads."""

import asyncio
from collections.abc import AsyncGenerator, Callable, MutableMapping
from typing import Any

from onhand.device.serving.api.replies import EventStream

Messages = list[MutableMapping[str, Any]]


async def never() -> MutableMapping[str, Any]:
    """A reader who stays."""
    await asyncio.Event().wait()
    return {}


def sent(
    events: Callable[[], AsyncGenerator[bytes]], *, ping_s: float, slow_s: float = 0.0
) -> Messages:
    """What goes out to a reader who stays, and takes so long for each part."""
    messages: Messages = []

    async def send(message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(slow_s)
        messages.append(message)

    asyncio.run(EventStream(events, ping_s=ping_s)({"type": "http"}, never, send))
    return messages


def test_a_reader_hears_something_while_nothing_comes() -> None:
    """From before the first event to the last; never within one."""
    quiet = asyncio.Event()

    async def events() -> AsyncGenerator[bytes]:
        asyncio.get_running_loop().call_later(0.1, quiet.set)
        await quiet.wait()
        yield b"data: 1\n\n"
        await asyncio.sleep(0.1)
        yield b"data: 2\n\n"

    start, *bodies = sent(events, ping_s=0.02)
    parts = [body["body"] for body in bodies]

    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert set(parts) == {b": ping\n\n", b"data: 1\n\n", b"data: 2\n\n", b""}
    first, second = parts.index(b"data: 1\n\n"), parts.index(b"data: 2\n\n")
    assert first >= 1
    assert second > first + 1
    assert parts[second + 1 :] == [b""]
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]


def test_who_hears_enough_is_not_told_more() -> None:
    """Events alone, in their order."""

    async def events() -> AsyncGenerator[bytes]:
        for number in range(3):
            yield b"%d" % number

    _, *bodies = sent(events, ping_s=60)

    assert [body["body"] for body in bodies] == [b"0", b"1", b"2", b""]


def test_a_reader_who_takes_nothing_is_sent_no_comments() -> None:
    """They would pile up behind what it has not taken yet."""

    async def events() -> AsyncGenerator[bytes]:
        yield b"1"
        yield b"2"

    start, *bodies = sent(events, ping_s=0.001, slow_s=0.02)

    assert start["type"] == "http.response.start"
    assert len(bodies) <= 5


def test_events_are_closed_when_their_reader_leaves() -> None:
    """Nothing is computed for nobody, and nothing of it is left running."""
    closed: list[str] = []

    async def events() -> AsyncGenerator[bytes]:
        try:
            yield b"1"
            await asyncio.Event().wait()
        finally:
            closed.append("events")

    async def run() -> int:
        began = asyncio.Event()

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                began.set()

        async def leaves() -> MutableMapping[str, Any]:
            await began.wait()
            return {"type": "http.disconnect"}

        await EventStream(events, ping_s=60)({"type": "http"}, leaves, send)
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
    assert closed == ["events"]
