"""Requests in the form in which another server takes them: as they were asked, and no more."""

from collections.abc import Mapping
from typing import Final

from onhand.device.serving.asks import Ask, Wire
from onhand.device.template import Message

__all__ = ["chat_wire", "completion_wire", "response_wire", "wire_of"]

# They say who calls, or how the answer is sent: the first stays here, the second is ours to say.
_OURS: Final = frozenset({
    "metadata",
    "model",
    "n",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "user",
})
# What a response may hold beside, and a chat completion does not know.
_OF_RESPONSES: Final = frozenset({
    "background",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
})


def chat_wire(given: Mapping[str, object]) -> Wire:
    """Return a request to `/v1/chat/completions`.

    Args:
        given: the fields of its body.

    Returns:
        What another server is sent.
    """
    return Wire(path="chat/completions", fields=_kept(given, _OURS), model=_model(given))


def completion_wire(given: Mapping[str, object]) -> Wire:
    """Return a request to `/v1/completions`; its echo is added here.

    Args:
        given: the fields of its body.

    Returns:
        What another server is sent.
    """
    fields = _kept(given, _OURS | {"best_of", "echo"})
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        fields["prompt"] = prompt[0]
    return Wire(path="completions", fields=fields, model=_model(given))


def response_wire(given: Mapping[str, object]) -> Wire:
    """Return a request to `/v1/responses` as a chat completion: more servers know that.

    Args:
        given: the fields of its body, which was understood.

    Returns:
        What another server is sent.
    """
    fields = _kept(given, _OURS | _OF_RESPONSES)
    fields["messages"] = _messages(given)
    if (most := given.get("max_output_tokens")) is not None:
        fields["max_completion_tokens"] = most
    if (wanted := _format(given.get("text"))) is not None:
        fields["response_format"] = wanted
    if isinstance(effort := _field(given.get("reasoning"), "effort"), str):
        fields["reasoning_effort"] = effort
    if isinstance(tools := given.get("tools"), list) and tools:
        fields["tools"] = [_tool(tool) for tool in tools]
        if (choice := given.get("tool_choice")) is not None:
            fields["tool_choice"] = _tool(choice)
    else:
        fields.pop("parallel_tool_calls", None)
    return Wire(path="chat/completions", fields=fields, model=_model(given))


def wire_of(ask: Ask) -> Wire:
    """Return an ask in that form: as its client gave it, or made from what it holds.

    Args:
        ask: what is asked.

    Returns:
        What another server is sent.
    """
    if ask.wire is not None:
        return ask.wire
    sampling = ask.sampling
    fields: dict[str, object] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if ask.max_tokens is not None:
        fields["max_tokens"] = ask.max_tokens
    if ask.stop:
        fields["stop"] = list(ask.stop)
    if isinstance(ask.prompt, str):
        return Wire(path="completions", fields={"prompt": ask.prompt} | fields)
    if ask.n_scores is not None:
        fields |= {"logprobs": True, "top_logprobs": ask.n_scores}
    if (use := ask.tools) is not None:
        fields["tools"] = [
            {"type": "function", "function": tool.described()} for tool in use.callable_tools
        ]
        fields["tool_choice"] = "required" if use.is_required else "auto"
        fields["parallel_tool_calls"] = use.is_parallel
    messages = [_turn(one) for one in ask.prompt]
    return Wire(path="chat/completions", fields={"messages": messages} | fields)


def _turn(message: Message) -> dict[str, object]:
    turn: dict[str, object] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.call_id:
        turn["tool_call_id"] = message.call_id
    return turn


def _kept(given: Mapping[str, object], without: frozenset[str]) -> dict[str, object]:
    # A field of null is one that was not given; some servers refuse it.
    return {
        name: value for name, value in given.items() if name not in without and value is not None
    }


def _model(given: Mapping[str, object]) -> str:
    model = given.get("model")
    return model if isinstance(model, str) else ""


def _messages(given: Mapping[str, object]) -> list[object]:
    messages: list[object] = []
    if isinstance(instructions := given.get("instructions"), str):
        messages.append({"role": "system", "content": instructions})
    turns = given.get("input")
    if isinstance(turns, str):
        return [*messages, {"role": "user", "content": turns}]
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping):
            _add(messages, turn)
    return messages


def _add(messages: list[object], turn: Mapping[str, object]) -> None:
    match turn.get("type"):
        case "function_call":
            called = {"name": turn.get("name"), "arguments": turn.get("arguments")}
            call = {"id": turn.get("call_id"), "type": "function", "function": called}
            last = messages[-1] if messages else None
            # Calls that were made together are one message there.
            if isinstance(last, dict) and isinstance(calls := last.get("tool_calls"), list):
                calls.append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            content = _text(turn.get("output"))
            messages.append({
                "role": "tool",
                "tool_call_id": turn.get("call_id"),
                "content": content,
            })
        case "reasoning":
            pass  # what a model thought is not said to another
        case _:
            messages.append({"role": turn.get("role"), "content": _text(turn.get("content"))})


def _text(content: object) -> object:
    if not isinstance(content, list):
        return content
    parts = [part for part in content if isinstance(part, Mapping)]
    return "".join(str(part.get("text", "")) for part in parts)


def _format(text: object) -> object:
    wanted = _field(text, "format")
    if not isinstance(wanted, Mapping) or wanted.get("type") in (None, "text"):
        return None
    if wanted.get("type") != "json_schema":
        return wanted
    schema = {name: value for name, value in wanted.items() if name != "type"}
    return {"type": "json_schema", "json_schema": {"name": "answer"} | schema}


def _tool(tool: object) -> object:
    """Nest what stands flat there: {"type": "function", "name": ...}; a word stays one."""
    if not isinstance(tool, Mapping) or "name" not in tool:
        return tool
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": tool.get("type", "function"), "function": function}


def _field(table: object, name: str) -> object:
    return table.get(name) if isinstance(table, Mapping) else None
