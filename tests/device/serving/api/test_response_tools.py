"""Tools in the newer route, by the official client: items, events, and turns as it keeps them."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.device.serving.tool_serving import CALL, FLAT_TOOLS, client_for
from tests.device.tools.families import Scripted, tokenizer_of

OTHER = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'


def respond(client: openai.OpenAI, **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "toy", "input": "lights", "tools": FLAT_TOOLS}
    return client.responses.create(**(asked | more))


def test_calls_are_items_of_their_own(tmp_path: Path) -> None:
    """Texts and calls in the order in which they came, and what was asked is repeated."""
    with client_for(tmp_path, Scripted(f"Both. {CALL}\n{OTHER}")) as client:
        answer = respond(client)
        single = respond(client, parallel_tool_calls=False)
    message, lamp, time = answer.output

    assert (message.type, answer.output_text) == ("message", "Both.")
    assert (lamp.type, lamp.name, lamp.status) == ("function_call", "lamp", "completed")
    assert json.loads(lamp.arguments) == {"room": "hall", "on": True}
    assert (time.name, time.arguments) == ("time", "{}")
    assert lamp.call_id != time.call_id
    assert len({item.id for item in answer.output}) == 3
    assert answer.status == "completed"
    assert answer.tool_choice == "auto"
    assert answer.parallel_tool_calls
    assert [tool.name for tool in answer.tools] == ["lamp", "time"]
    assert [item.type for item in single.output] == ["message", "function_call"]
    assert not single.parallel_tool_calls


def test_streamed_items(tmp_path: Path) -> None:
    """Each is added, told in pieces and done; the numbers have no gap."""
    with client_for(tmp_path, Scripted(f"Both. {CALL}\n{OTHER}")) as client:
        events = list(respond(client, stream=True))
    kinds = [event.type for event in events]
    shown = [kind for i, kind in enumerate(kinds) if not i or kinds[i - 1] != kind]

    assert [event.sequence_number for event in events] == list(range(len(events)))
    call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert shown == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        *call,
        *call,
        "response.completed",
    ]
    pieces = [one for one in events if one.type == "response.function_call_arguments.delta"]
    done = [one for one in events if one.type == "response.function_call_arguments.done"]
    assert len(pieces) > 5
    for end in done:
        told = "".join(one.delta for one in pieces if one.item_id == end.item_id)
        assert told == end.arguments
    final = events[-1].response
    added = [one.item.id for one in events if one.type == "response.output_item.added"]
    assert [item.id for item in final.output] == added
    assert [one.output_index for one in done] == [1, 2]


def test_the_clients_own_stream_puts_items_together(tmp_path: Path) -> None:
    """Its accumulated response is the one that a whole answer is."""
    with (
        client_for(tmp_path, Scripted(CALL)) as client,
        client.responses.stream(model="toy", input="lights", tools=FLAT_TOOLS) as stream,
    ):
        list(stream)
        final = stream.get_final_response()

    assert [item.type for item in final.output] == ["function_call"]


def test_a_second_turn_with_results(tmp_path: Path) -> None:
    """The output goes back as input, with what came of the call."""
    with client_for(tmp_path, Scripted(f"Yes. {CALL}", "It is on.")) as client:
        first = respond(client)
        call = first.output[1]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "lit"}
        parts = result | {"output": [{"type": "input_text", "text": "lit"}]}
        asked = [{"role": "user", "content": "lights"}, *first.output]
        answers = [respond(client, input=[*asked, end]).output_text for end in (result, parts)]

    assert answers == ["It is on."] * 2


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "time"},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "time"}],
        },
    ],
)
def test_a_named_tool_is_called(tmp_path: Path, choice: dict[str, object]) -> None:
    """In the form of this route; the answer repeats it."""
    with client_for(tmp_path, Scripted("no")) as client:
        answer = respond(client, tool_choice=choice, parallel_tool_calls=False)

    assert [item.name for item in answer.output] == ["time"]
    assert answer.tool_choice.type == choice["type"]


def test_attack_a_streamed_call_that_was_cut_off_says_so(tmp_path: Path) -> None:
    """Its arguments are never done."""
    n_tokens = len(tokenizer_of().encode_template(CALL)) - 20
    with client_for(tmp_path, Scripted(CALL)) as client:
        events = list(respond(client, stream=True, max_output_tokens=n_tokens))

    assert "response.function_call_arguments.done" not in {event.type for event in events}
    assert events[-1].type == "response.incomplete"
    assert events[-2].item.status == "incomplete"
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "function", "name": "door"}}, "tool_choice.name"),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": 5}]}, "input[0].output"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, more: dict[str, object], where: str) -> None:
    """By its place."""
    with client_for(tmp_path, Scripted("")) as client, pytest.raises(openai.BadRequestError) as got:
        respond(client, **more)

    assert where in str(got.value)
