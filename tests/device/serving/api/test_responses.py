"""The newer route, by the official client: whole, streamed, and refused."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.device.serving.served import client_of, fake_model, serving
from tests.device.test_generate import saying


@pytest.fixture
def client(tmp_path: Path) -> Iterator[openai.OpenAI]:
    """Of a model that says one sentence."""
    with (
        serving(fake_model(tmp_path, saying("it is on 灯!"))) as served,
        client_of(served) as found,
    ):
        yield found


def test_a_whole_answer(client: openai.OpenAI) -> None:
    """Text, state and counts; instructions come before the question."""
    answer = client.responses.create(model="toy", input="lamp", instructions="be short")

    assert answer.output_text == "it is on 灯!"
    assert answer.status == "completed"
    assert answer.instructions == "be short"
    assert answer.usage is not None
    assert answer.usage.input_tokens == len("s:be short;u:lamp;") + 1
    assert answer.usage.output_tokens == len("it is on 灯!".encode()) + 1


def test_a_conversation_in_parts(client: openai.OpenAI) -> None:
    """Turns as the client keeps them, an answer among them."""
    answer = client.responses.create(
        model="toy",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"role": "assistant", "content": "b"},
            {"type": "message", "role": "user", "content": "c"},
        ],
        max_output_tokens=4,
    )

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.input_tokens == len("u:a;a:b;u:c;") + 1


def test_a_stream(client: openai.OpenAI) -> None:
    """Numbered events from created to completed, the text in pieces."""
    events = list(client.responses.create(model="toy", input="lamp", stream=True))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == "it is on 灯!"
    assert len(pieces) > 5
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "it is on 灯!"


@pytest.mark.parametrize(
    "asked",
    [
        {"previous_response_id": "resp_1"},
        {"store": True},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"input": []},
        {"input": [{"type": "reasoning", "content": "x"}]},
        {"text": {"format": {"type": "xml"}}},
    ],
)
def test_what_needs_a_memory_or_a_tool_is_refused(
    client: openai.OpenAI, asked: dict[str, object]
) -> None:
    """By the field's name."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/responses", body={"input": "lamp"} | asked, cast_to=object)

    assert next(iter(asked)) in str(refused.value)
