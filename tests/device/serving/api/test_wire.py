"""What another server is sent is what was asked, and no more."""

from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.completions import read_chat
from onhand.device.serving.api.wire import chat_wire, completion_wire, response_wire, wire_of
from onhand.device.serving.asks import Ask
from onhand.device.template import Message
from onhand.device.tools.kinds import Tool, ToolCall, ToolUse

ASKED = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]


def test_a_chat_stays_as_it_is() -> None:
    """But for who calls, and how the answer is to come; nothing that a model here adds."""
    given = {
        "model": "house",
        "messages": ASKED,
        "temperature": 0.3,
        "stop": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 2,
        "user": "somebody",
        "metadata": {"a": "b"},
        "seed": 5,
    }
    asked = read_chat(Body(given), tenant="t", usual=Sampling(temperature=0.9, top_k=40))
    first, second = (ask.wire for ask in asked.asks)

    assert first is not None
    assert second is not None
    assert first.fields == {"messages": ASKED, "temperature": 0.3, "seed": 5}
    assert second.fields == {**first.fields, "seed": 6}
    assert (first.path, first.model) == ("chat/completions", "house")


def test_a_chat_with_tools_stays_as_it_is() -> None:
    """Tools, choices and formats are the other server's to understand."""
    given = {"messages": ASKED, "tools": [{"type": "function"}], "tool_choice": "required"}

    assert chat_wire(given).fields == given


def test_a_text() -> None:
    """Its echo is added here."""
    wire = completion_wire({"prompt": ["once"], "echo": True, "max_tokens": 3})

    assert (wire.path, wire.fields) == ("completions", {"prompt": "once", "max_tokens": 3})


def test_a_response_becomes_a_chat() -> None:
    """Instructions, turns, calls and their results, the format, and tools."""
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    tool = {"type": "function", "name": "light", "parameters": {"type": "object"}}
    wire = response_wire({
        "model": "house",
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "on"}]},
            {"type": "reasoning", "content": "hidden"},
            {"type": "function_call", "call_id": "1", "name": "light", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "light", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "done"},
        ],
        "text": {"format": schema},
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "light"},
        "max_output_tokens": 9,
        "temperature": 0,
        "store": False,
        "reasoning": {"effort": "low"},
    })
    call = {"type": "function", "function": {"name": "light", "arguments": "{}"}}
    bare = {"name": "light", "parameters": {"type": "object"}}

    assert wire.fields == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "on"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", **call}, {"id": "2", **call}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [{"type": "function", "function": bare}],
        "tool_choice": {"type": "function", "function": {"name": "light"}},
        "max_completion_tokens": 9,
        "temperature": 0,
        "reasoning_effort": "low",
    }


def test_a_response_of_one_text() -> None:
    """The usual case; no format is no field."""
    wire = response_wire({"input": "hello", "text": {"format": {"type": "text"}}})

    assert wire.fields == {"messages": [{"role": "user", "content": "hello"}]}


def test_what_came_by_no_route_is_put_into_words() -> None:
    """Messages, calls and tools of an ask made within a program."""
    turns = (
        Message("assistant", "", calls=(ToolCall("7", "light", "{}"),)),
        Message("tool", "done", call_id="7"),
    )
    tool = Tool(name="light", description="", parameters={"type": "object"})
    use = ToolUse(tools=(tool,), names=("light",), is_required=True, is_parallel=False)
    wire = wire_of(Ask(tenant="t", prompt=turns, n_scores=2, tools=use, max_tokens=4))
    called = {"id": "7", "type": "function", "function": {"name": "light", "arguments": "{}"}}

    assert wire.fields == {
        "messages": [
            {"role": "assistant", "content": "", "tool_calls": [called]},
            {"role": "tool", "content": "done", "tool_call_id": "7"},
        ],
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 4,
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [{"type": "function", "function": tool.described()}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
