"""Requests with tools that are damaged, wrong or a burden, by the official client."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.device.serving.tool_serving import ASK, TOOLS, chat, client_for
from tests.device.tools.families import TEMPLATES, Scripted


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Of a model that says nothing, for requests that are refused."""
    with client_for(tmp_path_factory.mktemp("silent"), Scripted("")) as found:
        yield found


def damaged(arguments: object) -> list[dict[str, object]]:
    """A history with calls that something became of."""
    call = {"id": "x", "type": "function", "function": {"name": "lamp", "arguments": arguments}}
    return [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": None},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "lost", "content": [{"type": "text", "text": "lit"}]},
        ASK,
    ]


@pytest.mark.parametrize("family", TEMPLATES)
def test_attack_a_damaged_history_can_go_on(tmp_path: Path, family: str) -> None:
    """Never an error of the server, nor a refusal."""
    with client_for(tmp_path, Scripted("fine", "fine"), family=family) as client:
        answers = [
            chat(client, messages=damaged(arguments), tools=tools).choices[0].message.content
            for arguments in ("", '{"room": "ha', "on", None, {"room": "hall"})
            for tools in (TOOLS, [])
        ]

    assert answers == ["fine"] * 10


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"tools": "lamp"}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": [TOOLS[0]] * 2}, "two functions named 'lamp'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}, "function.x"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "door"}}}, "'door'"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x"}}}, "mode"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tool_calls[0].function.name"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
    ],
)
def test_what_is_wrong_is_named(silent: openai.OpenAI, more: dict[str, object], where: str) -> None:
    """In one sentence, whole and streamed alike."""
    asked: dict[str, object] = {"messages": [ASK], "tools": TOOLS}
    for stream in (False, True):
        body = asked | more | {"stream": stream}
        with pytest.raises(openai.BadRequestError) as refused:
            silent.post("/chat/completions", body=body, cast_to=object)

        message = refused.value.body["message"]  # type: ignore[index]
        assert where in message
        assert "\n" not in message


def nested(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"type": "object"}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner}}
    return inner


WIDE = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}}
BLOWN = {
    "type": "object",
    "allOf": [
        {"anyOf": [{"properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(4)]}
        for i in range(12)
    ],
}


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (nested(60), "nests over 32 deep"),
        (WIDE, "2048 entries"),
        ({"type": "object", "properties": {"a": {"enum": ["x" * 40_000]}}}, "letters"),
        (BLOWN, "too large"),
        ({"type": "array"}, "type object"),
        ([], "an object"),
        ({"type": "object", "properties": {"a": {"type": "no"}}}, "Invalid type"),
        ({"type": "object", "$ref": "http://example.org/x"}, "cannot be followed"),
        ({"type": "object", "not": {"required": ["a"]}}, "not"),
    ],
)
def test_attack_a_schema_that_is_a_burden_is_refused(
    silent: openai.OpenAI, parameters: object, why: str
) -> None:
    """Before anything is computed, by one sentence that says why."""
    tool = {"name": "lamp", "parameters": parameters, "strict": True}
    with pytest.raises(openai.BadRequestError) as refused:
        chat(silent, tools=[{"type": "function", "function": tool}], stream=True)

    message = refused.value.body["message"]  # type: ignore[index]
    assert message.startswith("tools[0].function.parameters: ")
    assert why in message
    assert "\n" not in message


def test_attack_there_is_an_end_of_tools(silent: openai.OpenAI) -> None:
    """In number, and in what all their schemas take."""
    many = [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]
    large = {"type": "object", "properties": {"a": {"enum": ["x" * 30_000]}}}
    heavy = [
        {"type": "function", "function": {"name": f"f{i}", "parameters": large}} for i in range(5)
    ]

    with pytest.raises(openai.BadRequestError, match="at most 128"):
        chat(silent, tools=many)
    with pytest.raises(openai.BadRequestError, match="letters together"):
        chat(silent, tools=heavy)
