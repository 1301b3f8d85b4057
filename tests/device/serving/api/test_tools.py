"""Tools by the official client, unchanged: whole, streamed, over several turns, and refused."""

import json
from pathlib import Path

import httpx2
import openai
import pydantic
import pytest
from tests.device.serving.served import serving
from tests.device.serving.tool_serving import (
    ASK,
    CALL,
    FLAT_TOOLS,
    TOOLS,
    chat,
    client_for,
    model_of,
)
from tests.device.tools.families import (
    Drawing,
    Scripted,
    tokenizer_of,
)

from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.state import ServerState

SAYS = {
    "hermes": CALL,
    "plain": CALL,
    "mistral": '[TOOL_CALLS] [{"name": "lamp", "arguments": {"room": "hall", "on": true}}]',
    "phi": '<|tool_call|>[{"name": "lamp", "arguments": {"room": "hall", "on": true}}]'
    "<|/tool_call|>",
    "llama": '<|python_tag|>{"name": "lamp", "parameters": {"room": "hall", "on": true}}',
}


@pytest.mark.parametrize("family", SAYS)
def test_a_call_of_each_family(tmp_path: Path, family: str) -> None:
    """Name, arguments and reason; markers that are tokens of their own are no text."""
    with client_for(tmp_path, Scripted(SAYS[family]), family=family) as client:
        answer = chat(client)
    (call,) = answer.choices[0].message.tool_calls

    assert (call.type, call.function.name) == ("function", "lamp")
    assert json.loads(call.function.arguments) == {"room": "hall", "on": True}
    assert call.id.startswith("call_")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert answer.usage.completion_tokens == len(tokenizer_of().encode_template(SAYS[family])) + 1


@pytest.mark.parametrize("family", SAYS)
def test_a_streamed_call(tmp_path: Path, family: str) -> None:
    """Text before it, then its name, then its arguments in pieces, then the reason."""
    said = SAYS[family] if family == "llama" else f"One moment. {SAYS[family]}"
    with client_for(tmp_path, Scripted(said), family=family) as client:
        chunks = list(chat(client, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]

    text = "".join(delta.content or "" for delta in deltas)
    assert text == ("" if family == "llama" else "One moment.")
    assert {call.index for call in calls} == {0}
    assert calls[0].function.name == "lamp"
    assert calls[0].id
    assert all(call.id is None and call.function.name is None for call in calls[1:])
    assert len(calls) > 5
    arguments = "".join(call.function.arguments for call in calls)
    assert json.loads(arguments) == {"room": "hall", "on": True}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_several_calls_and_text(tmp_path: Path) -> None:
    """Each with an index and an id of its own."""
    other = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    with client_for(tmp_path, Scripted(f"Both. {CALL}\n{other}")) as client:
        answer = chat(client)
        streamed = [
            call
            for chunk in chat(client, stream=True)
            for call in chunk.choices[0].delta.tool_calls or ()
        ]
        single = chat(client, parallel_tool_calls=False)
    calls = answer.choices[0].message.tool_calls

    assert answer.choices[0].message.content == "Both."
    assert [call.function.name for call in calls] == ["lamp", "time"]
    assert len({call.id for call in calls}) == 2
    assert [call.index for call in streamed if call.id] == [0, 1]
    assert [one.function.name for one in single.choices[0].message.tool_calls] == ["lamp"]
    assert single.choices[0].finish_reason == "tool_calls"


def test_the_clients_own_stream_puts_a_call_together(tmp_path: Path) -> None:
    """Its events are those that it expects."""
    with (
        client_for(tmp_path, Scripted(CALL)) as client,
        client.chat.completions.stream(model="toy", messages=[ASK], tools=TOOLS) as stream,  # type: ignore[list-item]
    ):
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.tool_calls
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["on"] is True


@pytest.mark.parametrize("family", SAYS)
def test_a_second_turn_with_results(tmp_path: Path, family: str) -> None:
    """What the client was given goes back as it is; the model answers where it reads the result."""
    with client_for(tmp_path, Scripted(SAYS[family], "It is on."), family=family) as client:
        first = chat(client).choices[0].message
        result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "lit"}
        history = [ASK, first.model_dump(exclude_none=True), result]
        answer = chat(client, messages=history)
        as_is = chat(client, messages=[ASK, first, result])

    assert answer.choices[0].message.content == as_is.choices[0].message.content == "It is on."
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("family", SAYS)
def test_required_makes_any_model_call(tmp_path: Path, family: str) -> None:
    """Random weights call a tool, with arguments that follow its schema."""
    with client_for(tmp_path, Drawing(), family=family) as client:
        answer = chat(
            client,
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=1,
            seed=1,
            max_tokens=900,
        )
    (call,) = answer.choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)

    assert answer.choices[0].finish_reason == "tool_calls"
    if call.function.name == "time":
        assert arguments == {}
    else:
        assert call.function.name == "lamp"
        assert arguments["room"] in {"hall", "kitchen"}
        assert isinstance(arguments["on"], bool)


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "time"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "time"}}],
            },
        },
    ],
)
def test_a_named_tool_is_called(tmp_path: Path, choice: dict[str, object]) -> None:
    """That one and no other, by a model that wants none; streamed as well."""
    with client_for(tmp_path, Scripted("I would rather not.")) as client:
        answer = chat(client, tool_choice=choice, parallel_tool_calls=False)
        chunks = list(chat(client, tool_choice=choice, parallel_tool_calls=False, stream=True))

    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["time"]
    names = [
        call.function.name
        for chunk in chunks
        for call in chunk.choices[0].delta.tool_calls or ()
        if call.function.name
    ]
    assert names == ["time"]


def test_none_calls_nothing(tmp_path: Path) -> None:
    """What looks like a call is text, and the model is told of no tools."""
    loaded = Scripted(CALL)
    with client_for(tmp_path, loaded) as client:
        answer = chat(client, tool_choice="none")
        allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]}
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        other = chat(client, tool_choice=choice, max_tokens=400)

    assert answer.choices[0].message.content == CALL
    assert answer.choices[0].message.tool_calls is None
    assert answer.usage.prompt_tokens == len("u:lights;") + 1
    assert {c.function.name for c in other.choices[0].message.tool_calls or ()} <= {"time"}


def test_attack_a_call_that_was_cut_off_is_no_whole_one(tmp_path: Path) -> None:
    """The reason says so, and a whole answer holds no half-made arguments."""
    n_tokens = len(tokenizer_of().encode_template(CALL)) - 20
    with client_for(tmp_path, Scripted(CALL)) as client:
        answer = chat(client, max_tokens=n_tokens)
        chunks = list(chat(client, max_tokens=n_tokens, stream=True))
        response = client.responses.create(
            model="toy", input="lights", tools=FLAT_TOOLS, max_output_tokens=n_tokens
        )

    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None
    assert chunks[-1].choices[0].finish_reason == "length"
    assert response.status == "incomplete"
    assert [item.status for item in response.output] == ["incomplete"]  # type: ignore[union-attr]


def test_the_same_request_gets_the_same_calls(tmp_path: Path) -> None:
    """From the cache, with their ids, whole and streamed; other tools are another request."""
    state = ServerState(
        [model_of(tmp_path, Scripted(f"so {CALL}"))], exact=ExactCache(None, most_bytes=100_000)
    )
    asked = {"model": "toy", "messages": [ASK], "tools": TOOLS}
    with serving(state=state) as served:
        url = f"{served.url}/v1/chat/completions"
        first, again = (httpx2.post(url, json=asked) for _ in range(2))
        stream = httpx2.post(url, json=asked | {"stream": True})
        others = [
            httpx2.post(url, json=asked | more)
            for more in (
                {"tools": TOOLS[:1]},
                {"tool_choice": "required"},
                {"tool_choice": "none"},
                {"parallel_tool_calls": False},
            )
        ]
        replayed = httpx2.post(url, json=asked)
        counts = httpx2.get(f"{served.url}/metrics").text

    message = first.json()["choices"][0]["message"]
    assert [one.headers["x-cache"] for one in (first, again, stream)] == ["miss", "exact", "exact"]
    assert {one.headers["x-cache"] for one in others} == {"miss"}
    for same in (again, replayed):
        assert same.json()["choices"][0]["message"] == message
        assert same.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert message["tool_calls"][0]["id"] in stream.text
    assert message["content"] == "so"
    assert float(counts.partition("\nonhand_tool_calls_total ")[2].split()[0]) >= 4


class Lamp(pydantic.BaseModel):
    """Turn a lamp on or off."""

    on: bool


class Report(pydantic.BaseModel):
    """How it went."""

    fine: bool


def test_parse_reads_calls_into_models(tmp_path: Path) -> None:
    """The client's helpers work as they are, with strict tools."""
    with client_for(tmp_path, Drawing(seed=3)) as client:
        chatted = client.chat.completions.parse(
            model="toy",
            messages=[ASK],  # type: ignore[list-item]
            tools=[openai.pydantic_function_tool(Lamp)],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=900,
        )
        responded = client.responses.parse(
            model="toy",
            input="lights",
            tools=[openai.pydantic_function_tool(Lamp)],
            tool_choice="required",
            parallel_tool_calls=False,
        )
    assert chatted.choices[0].message.tool_calls is not None
    parsed = chatted.choices[0].message.tool_calls[0].function.parsed_arguments

    assert isinstance(parsed, Lamp)
    assert responded.output[0].type == "function_call"
    assert isinstance(responded.output[0].parsed_arguments, Lamp)


def test_a_format_and_tools_go_together(tmp_path: Path) -> None:
    """An answer that calls nothing follows the format."""
    with client_for(tmp_path, Scripted('{"fine": true}', CALL)) as client:
        parsed = client.chat.completions.parse(
            model="toy",
            messages=[ASK],  # type: ignore[list-item]
            tools=[openai.pydantic_function_tool(Lamp)],
            response_format=Report,
        )

    assert parsed.choices[0].message.parsed == Report(fine=True)
