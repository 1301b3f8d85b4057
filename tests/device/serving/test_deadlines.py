"""An answer that is of no use any more is not computed."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import openai
import pytest
from tests.device.serving.served import client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing

from onhand.device.serving.deadlines import HEADER, deadline_of, in_time, until
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.settings import NetworkSettings, ServeSettings

ASKED = [{"role": "user", "content": "lamp"}]


@pytest.mark.parametrize(
    ("given", "most_s", "deadline_s"),
    [(None, 0, None), (None, 5, 105), ("2500", 0, 102.5), ("2500", 1, 101), ("500", 1, 100.5)],
)
def test_the_sooner_end_counts(given: str | None, most_s: float, deadline_s: float | None) -> None:
    """Of what the client says and the server grants."""
    assert deadline_of(given, most_s=most_s, now_s=100) == deadline_s


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "86400001", "\uff19"])
def test_a_header_that_is_no_time_is_refused(given: str) -> None:
    """By its name."""
    with pytest.raises(RefusedRequest, match=HEADER):
        deadline_of(given, most_s=0, now_s=0)


def test_what_comes_in_time_is_passed_on_and_the_rest_is_closed() -> None:
    """The work ends with the deadline, not after it."""
    closed = []

    async def parts() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    seen: list[int] = []

    async def read() -> None:
        async for part in until(parts(), asyncio.get_running_loop().time() + 0.05):
            seen.append(part)

    with pytest.raises(RefusedRequest, match="deadline"):
        asyncio.run(read())
    assert seen == [1, 2]
    assert closed == [True]


def test_a_timeout_of_the_work_itself_stays_one() -> None:
    """It is no deadline of the client's."""

    async def work() -> None:
        raise TimeoutError("a disk")

    with pytest.raises(TimeoutError, match="a disk"):
        asyncio.run(in_time(work(), None))


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_takes_too_long_frees_its_place(tmp_path: Path, is_stream: bool) -> None:
    """The client is told, and nothing runs on."""
    loaded = FakeLoaded(mixing, context=10**6)
    model = fake_model(tmp_path, loaded=loaded, context=10**6)
    with serving(model) as served, client_of(served) as client:
        asked = {"model": "toy", "messages": ASKED, "stream": is_stream}
        reply = httpx2.post(f"{served.url}/v1/chat/completions", json=asked, headers={HEADER: "60"})
        after = client.chat.completions.create(model="toy", messages=ASKED, max_tokens=2)  # type: ignore[arg-type]

        assert reply.status_code == (200 if is_stream else 504)
        assert "deadline_exceeded" in reply.text
        assert after.usage is not None
        assert served.state.n_active == 0


def test_the_server_may_set_an_end_of_its_own(tmp_path: Path) -> None:
    """Where a client says nothing."""
    loaded = FakeLoaded(mixing, context=10**6)
    model = fake_model(tmp_path, loaded=loaded, context=10**6)
    settings = ServeSettings(server=NetworkSettings(deadline_s=0.05))
    with (
        serving(model, settings=settings) as served,
        client_of(served) as client,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        client.chat.completions.create(model="toy", messages=ASKED)  # type: ignore[arg-type]

    assert refused.value.status_code == 504
