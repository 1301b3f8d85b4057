"""`/v1/responses`, without a memory: what it may ask."""

from dataclasses import replace

from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.bounds import MOST_TOKENS
from onhand.device.serving.api.reading import (
    WITHOUT_EFFECT,
    grammar_of,
    read_call,
    read_message,
    read_sampling,
    text_of,
)
from onhand.device.serving.api.response_shape import ResponseShape
from onhand.device.serving.api.shape import Asked
from onhand.device.serving.api.tool_fields import read_tools
from onhand.device.serving.api.wire import response_wire
from onhand.device.serving.asks import Ask
from onhand.device.template import Message

__all__ = ["read_response"]


def read_response(body: Body, *, tenant: str, usual: Sampling) -> Asked:
    """Understand a request to `/v1/responses`.

    Args:
        body: its fields.
        tenant: whose it is.
        usual: the model's sampling where the request says nothing.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is wrong, unknown, or asks for what was said before.
    """
    instructions = body.text("instructions")
    messages = _messages(body, instructions)
    body.only("previous_response_id")
    body.only("conversation")
    body.only("background", False)
    body.only("store", False)
    body.only("truncation", "disabled")
    body.only("include", [])
    body.only("top_logprobs", 0)
    tools = read_tools(body, is_flat=True)
    body.ignore(("reasoning", "max_tool_calls", "stream_options"))
    ask = Ask(
        tenant=tenant,
        prompt=messages,
        max_tokens=body.whole("max_output_tokens", least=1, most=MOST_TOKENS),
        sampling=read_sampling(body, usual),
        grammar=_grammar(body),
        tools=tools.use,
        wire=response_wire(body.given),
    )
    is_stream = body.flag("stream", False)
    body.ignore(("model", *WITHOUT_EFFECT))
    body.end()
    return Asked(
        route="responses",
        asks=(ask,),
        is_stream=is_stream,
        shape=ResponseShape(tools, instructions),
    )


def _messages(body: Body, instructions: str | None) -> list[Message]:
    messages = [] if instructions is None else [Message("system", instructions)]
    given = body.peek_value("input")
    if isinstance(given, str):
        body.ignore(("input",))
        return [*messages, Message("user", given)]
    for item in body.objects("input"):
        kind = item.text("type") or "message"
        item.ignore(("id", "status"))
        if kind == "message":
            messages.append(read_message(item))
        elif kind == "function_call":
            _add_call(messages, item)
        elif kind == "function_call_output":
            output = item.value("output")
            text = "" if output is None else text_of(output, item, "output")
            messages.append(Message("tool", text, call_id=item.text("call_id") or ""))
            item.end()
        else:
            known = "message, function_call or function_call_output"
            raise item.wrong("type", f"is {kind[:80]!r}, must be {known}")
    return messages


def _add_call(messages: list[Message], item: Body) -> None:
    """Add a call to the turn of the assistant that it belongs to."""
    call = read_call(item, item.text("call_id") or "")
    item.ignore(("namespace", "caller"))
    item.end()
    if messages and messages[-1].role == "assistant":
        messages[-1] = replace(messages[-1], calls=(*messages[-1].calls, call))
    else:
        messages.append(Message("assistant", "", calls=(call,)))


def _grammar(body: Body) -> str | None:
    text = body.table("text")
    text.ignore(("verbosity",))
    grammar = grammar_of(text.table("format"), body, "text", is_flat=True)
    text.end()
    return grammar
