"""Requests without what is personal in them."""

import asyncio
import json
from typing import Any

import pytest

from onhand.core.errors import InputError
from onhand.device.privacy.bodies import veiled
from onhand.device.privacy.detectors import find_all
from onhand.device.privacy.spans import Found
from onhand.device.privacy.veil import Redaction
from onhand.device.serving.asks import Wire
from onhand.device.serving.refusals import BackendFailed

BOB = "bob@x.com"


def user(content: object) -> dict[str, object]:
    """One message."""
    return {"messages": [{"role": "user", "content": content}]}


def content_of(fields: dict[str, Any], index: int = 0) -> Any:
    """Of a message that may leave."""
    made, _ = veiled(fields, find_all)
    messages: Any = made["messages"]
    return messages[index]["content"]


def test_messages_are_veiled_and_the_request_stays_as_it_is() -> None:
    """The same value has one word in all of them; numbers and switches pass."""
    fields = {
        "messages": [
            {"role": "system", "content": f"you write for {BOB}"},
            {"role": "user", "content": f"tell {BOB} and al@x.com, not 10.1.2.3"},
        ],
        "temperature": 0,
        "seed": 13800138000,
        "stop": ["END", BOB],
        "logit_bias": {"50256": -100},
        "reasoning_effort": "low",
    }
    before = json.dumps(fields)

    made, placeholders = veiled(fields, find_all)

    assert json.dumps(fields) == before
    assert made["messages"] == [
        {"role": "system", "content": "you write for [EMAIL1]"},
        {"role": "user", "content": "tell [EMAIL1] and [EMAIL2], not [HOST1]"},
    ]
    assert made["stop"] == ["END", "[EMAIL1]"]
    assert made["seed"] == 13800138000
    assert placeholders.counts == {"email": 2, "host": 1}


def test_parts_of_a_content_are_joined() -> None:
    """A value of which each part holds a half is found."""
    parts = [{"type": "text", "text": "bob@"}, {"type": "input_text", "text": "x.com"}]

    assert content_of(user(parts)) == "[EMAIL1]"


def test_a_placeholder_that_the_user_wrote_is_none() -> None:
    """Then all of the request's have another form."""
    assert content_of(user(f"what is [EMAIL1]? {BOB}")) == "what is [EMAIL1]? [EMAILQ1]"


def test_calls_and_results_stay_json() -> None:
    """Escapes within JSON hide nothing, numbers become words, names stay."""
    call = {
        "id": "call_1",
        "type": "function",
        "function": {
            "name": "send",
            "arguments": '{"to": "bob\\u0040x.com", "phone": 13800138000, "n": 3}',
        },
    }
    fields = {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": '["line\\n13800138000"]'},
        ]
    }

    made, _ = veiled(fields, find_all)

    messages: Any = made["messages"]
    sent = messages[0]["tool_calls"][0]
    assert json.loads(sent["function"]["arguments"]) == {
        "to": "[EMAIL1]",
        "phone": "[PHONE1]",
        "n": 3,
    }
    assert sent["function"]["name"] == "send"
    assert json.loads(messages[1]["content"]) == ["line\n[PHONE1]"]


def test_tools_and_formats_are_veiled_too() -> None:
    """Descriptions, choices and names of properties."""
    schema = {"type": "object", "properties": {BOB: {"enum": [BOB, 1]}}, "required": [BOB]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    made, _ = veiled(
        {"tools": [tool], "response_format": {"type": "json_schema", "json_schema": schema}},
        find_all,
    )

    assert BOB not in json.dumps(made)
    assert json.dumps(made).count("[EMAIL1]") == 6


def test_prompts_are_veiled() -> None:
    """One, or several."""
    assert veiled({"prompt": f"Dear {BOB}"}, find_all)[0] == {"prompt": "Dear [EMAIL1]"}
    assert veiled({"prompt": [BOB, "x"]}, find_all)[0] == {"prompt": ["[EMAIL1]", "x"]}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": {"text": BOB}},
        {"surprise": 1},
        {"temperature": BOB},
        {"reasoning_effort": f"ask {BOB}"},
        {"logit_bias": {BOB: 1}},
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"role": "user", "content": "x", "surprise": "y"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"messages": [{"role": "user", "name": BOB, "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "audio": {"id": "1"}}]},
        {"messages": [{"role": "assistant", "tool_calls": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "x": 1}}]}]},
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"surprise": 1, "function": {"name": "f"}}]}
            ]
        },
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": '{"cut": "o'}}],
                }
            ]
        },
    ],
)
def test_attack_a_field_that_is_not_understood(fields: dict[str, object]) -> None:
    """It does not leave, and the message holds nothing of it."""
    with pytest.raises(InputError) as raised:
        veiled(fields, find_all)

    assert BOB not in str(raised.value)


def test_attack_a_field_that_is_nested_too_deeply() -> None:
    """Neither leaves it."""
    deep: object = BOB
    for _ in range(200):
        deep = [deep]

    with pytest.raises(InputError, match="nested"):
        veiled({"tools": deep}, find_all)


@pytest.mark.parametrize("content", ["hello", f"hello {BOB} " + "long " * 5000])
def test_a_veil_is_made_once(content: str) -> None:
    """Long texts in a thread; whoever is asked second is sent the same."""
    calls: list[str] = []

    def find(text: str, *, names: object) -> list[Found]:
        calls.append(text)
        return find_all(text)

    veil = Redaction(find=find).veil()
    wire = Wire(path="chat/completions", fields=user(content))

    async def twice() -> list[object]:
        return [(await veil.over(wire))[0].fields for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first == second
    assert len(calls) == 2  # the content and the role
    assert not veil.finds_names


def test_a_detector_that_fails_keeps_the_request_here() -> None:
    """Whatever it raised, and without its words."""

    def find(text: str, *, names: object) -> list[Found]:
        raise ZeroDivisionError(text)

    veil = Redaction(find=find).veil()

    with pytest.raises(BackendFailed, match="a detector failed") as raised:
        asyncio.run(veil.over(Wire(path="completions", fields={"prompt": BOB})))
    assert BOB not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.refusal.status == 403


def test_what_is_sent_back_of_earlier_calls_is_taken_as_it_is() -> None:
    """Without arguments, with arguments that are JSON already, results that are no JSON."""
    calls = [
        {"id": "1", "function": {"name": "f", "arguments": {"to": BOB}}},
        {"id": "2", "function": {"name": "f", "arguments": None}},
        {"id": "3", "function": {"name": "f", "arguments": " "}},
    ]
    fields = {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "1", "content": '{"cut": "bob@x.com'},
            {"role": "tool", "tool_call_id": "2", "content": f"sent to {BOB}"},
            {"role": "assistant", "content": "ok", "tool_calls": None, "annotations": []},
        ]
    }

    made, _ = veiled(fields, find_all)

    messages: Any = made["messages"]
    arguments = [call["function"]["arguments"] for call in messages[0]["tool_calls"]]
    assert arguments == ['{"to": "[EMAIL1]"}', "{}", " "]
    assert [one["content"] for one in messages[1:3]] == ['{"cut": "[EMAIL1]', "sent to [EMAIL1]"]
    assert messages[3]["tool_calls"] is None


def test_numbers_in_schemas_are_numbers_unless_they_are_somebodys() -> None:
    """Small ones and fractions stay what they are."""
    made, _ = veiled({"tools": [{"a": [1, 2.5, True, None, 13800138000, 1e12]}]}, find_all)

    assert made == {"tools": [{"a": [1, 2.5, True, None, "[PHONE1]", 1e12]}]}


def test_attack_what_json_does_not_know() -> None:
    """A value of another type does not leave."""
    with pytest.raises(InputError, match="object: is not understood"):
        veiled({"tools": [object()]}, find_all)


def test_without_a_detector_what_is_personal_leaves() -> None:
    """So that it is the detectors that hold it back."""

    def find_nothing(text: str, *, names: object = ()) -> list[Found]:
        return []

    assert BOB in json.dumps(veiled(user(f"tell {BOB}"), find_nothing)[0])
    assert BOB not in json.dumps(veiled(user(f"tell {BOB}"), find_all)[0])
