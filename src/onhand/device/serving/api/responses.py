"""`/v1/responses`, without a memory: what it may ask, and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body, as_json
from onhand.device.serving.api.reading import (
    MOST_TOKENS,
    WITHOUT_EFFECT,
    grammar_of,
    read_message,
    read_sampling,
)
from onhand.device.serving.api.shape import Answered, Asked, Stamp
from onhand.device.serving.api.wire import response_wire
from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.template import Message

__all__ = ["ResponseShape", "read_response"]


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
    messages = _messages(body)
    body.only("previous_response_id")
    body.only("conversation")
    body.only("background", False)
    body.only("store", False)
    body.only("tools", [])
    body.only("tool_choice", "none", "auto")
    body.only("truncation", "disabled")
    body.only("include", [])
    body.only("top_logprobs", 0)
    body.ignore(("parallel_tool_calls", "reasoning", "max_tool_calls", "stream_options"))
    ask = Ask(
        tenant=tenant,
        prompt=messages,
        max_tokens=body.whole("max_output_tokens", least=1, most=MOST_TOKENS),
        sampling=read_sampling(body, usual),
        grammar=_grammar(body),
        wire=response_wire(body.given),
    )
    is_stream = body.flag("stream", False)
    body.ignore(("model", *WITHOUT_EFFECT))
    body.end()
    return Asked(route="responses", asks=(ask,), is_stream=is_stream, shape=ResponseShape())


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """See `Shape`."""

    def whole(self, stamp: Stamp, answers: Sequence[Answered]) -> object:
        """See `Shape`."""
        ((pieces, ending),) = answers
        text = "".join(piece.text for piece in pieces)
        return _response(stamp, text, ending)

    def stream(self, stamp: Stamp, n_choices: int) -> "_Events":
        """See `Shape`."""
        return _Events(stamp)


class _Events:
    """See `StreamShape`."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._texts: list[str] = []
        self._number = -1
        self._at = {"item_id": f"msg_{stamp.id}", "output_index": 0, "content_index": 0}

    def begin(self) -> bytes:
        """See `StreamShape`."""
        begun = _response(self._stamp, None, None)
        item = _item(self._stamp, None, "in_progress")
        return b"".join([
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", part=_part(""), **self._at),
        ])

    def piece(self, index: int, piece: Piece) -> bytes:
        """See `StreamShape`."""
        self._texts.append(piece.text)
        return self._event("response.output_text.delta", delta=piece.text, logprobs=[], **self._at)

    def ending(self, index: int, ending: Ending) -> bytes:
        """See `StreamShape`."""
        text = "".join(self._texts)
        whole = _response(self._stamp, text, ending)
        item = _item(self._stamp, text, str(whole["status"]))
        return b"".join([
            self._event("response.output_text.done", text=text, logprobs=[], **self._at),
            self._event("response.content_part.done", part=_part(text), **self._at),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{whole['status']}", response=whole),
        ])

    def end(self) -> bytes:
        """See `StreamShape`."""
        return b""

    def failure(self, body: dict[str, object]) -> bytes:
        """See `StreamShape`."""
        error = body["error"]
        known = error if isinstance(error, dict) else {}
        return self._event(
            "error", code=known.get("code"), message=known.get("message"), param=known.get("param")
        )

    def _event(self, name: str, **fields: object) -> bytes:
        self._number += 1
        value = {"type": name, "sequence_number": self._number} | fields
        return b"event: " + name.encode() + b"\ndata: " + as_json(value) + b"\n\n"


def _response(stamp: Stamp, text: str | None, ending: Ending | None) -> dict[str, object]:
    status = "in_progress" if ending is None else "completed"
    incomplete = None
    if ending is not None and ending.reason == "length":
        status, incomplete = "incomplete", {"reason": "max_output_tokens"}
    return {
        "id": f"resp_{stamp.id}",
        "object": "response",
        "created_at": stamp.created_s,
        "status": status,
        "error": None,
        "incomplete_details": incomplete,
        "instructions": None,
        "metadata": {},
        "model": stamp.model,
        **stamp.mark,
        "output": [] if text is None else [_item(stamp, text, status)],
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
        "usage": None if ending is None else _usage(ending),
    }


def _item(stamp: Stamp, text: str | None, status: str) -> dict[str, object]:
    content = [] if text is None else [_part(text)]
    return {
        "id": f"msg_{stamp.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(ending: Ending) -> dict[str, object]:
    return {
        "input_tokens": ending.prompt_tokens,
        "input_tokens_details": {"cached_tokens": ending.cached_tokens},
        "output_tokens": ending.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": ending.prompt_tokens + ending.generated_tokens,
    }


def _messages(body: Body) -> list[Message]:
    messages: list[Message] = []
    if (instructions := body.text("instructions")) is not None:
        messages.append(Message("system", instructions))
    given = body.peek_value("input")
    if isinstance(given, str):
        body.ignore(("input",))
        return [*messages, Message("user", given)]
    for item in body.objects("input"):
        item.only("type", "message")
        item.ignore(("id", "status"))
        messages.append(read_message(item))
    return messages


def _grammar(body: Body) -> str | None:
    text = body.table("text")
    text.ignore(("verbosity",))
    grammar = grammar_of(text.table("format"), body, "text", is_flat=True)
    text.end()
    return grammar
