"""Answers as `/v1/responses` gives them: a list of items, each a text or a call."""

from collections.abc import Sequence
from dataclasses import dataclass

from onhand.device.serving.api.bodies import as_json
from onhand.device.serving.api.shape import Answered, Stamp, told_source
from onhand.device.serving.api.tool_fields import ToolFields
from onhand.device.serving.asks import Ending, Piece, joined
from onhand.device.tools.kinds import CallPart

__all__ = ["ResponseShape"]

_Item = dict[str, object]


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """See `Shape`.

    Attributes:
        tools: what the request says of them; its answers repeat it.
        instructions: of the request, likewise.
    """

    tools: ToolFields
    instructions: str | None

    def whole(self, stamp: Stamp, answers: Sequence[Answered]) -> object:
        """See `Shape`."""
        ((pieces, ending),) = answers
        items = [_item(stamp, place, piece) for place, piece in enumerate(joined(pieces))]
        return self.response(stamp, items or [_item(stamp, 0, Piece(""))], ending)

    def stream(self, stamp: Stamp, n_choices: int) -> "_Events":
        """See `Shape`."""
        return _Events(self, stamp)

    def response(
        self, stamp: Stamp, items: Sequence[_Item], ending: Ending | None
    ) -> dict[str, object]:
        """Return the response with the items that are known.

        Args:
            stamp: what marks it.
            items: in order; the state of the last texts is that of the response.
            ending: its end; None while it runs.
        """
        status = "in_progress" if ending is None else "completed"
        incomplete = None
        if ending is not None and ending.reason == "length":
            status, incomplete = "incomplete", {"reason": "max_output_tokens"}
        last = len(items) - 1
        output = [
            item | {"status": status} if place == last and item["type"] == "message" else item
            for place, item in enumerate(items)
        ]
        return {
            "id": f"resp_{stamp.id}",
            "object": "response",
            "created_at": stamp.created_s,
            "status": status,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": self.instructions,
            "metadata": {},
            "model": stamp.model,
            **stamp.mark,
            "output": output,
            "parallel_tool_calls": self.tools.is_parallel,
            "tool_choice": self.tools.choice,
            "tools": list(self.tools.tools),
            "usage": None if ending is None else _usage(ending),
        } | ({} if ending is None else told_source(ending))


class _Events:
    """See `StreamShape`."""

    def __init__(self, shape: ResponseShape, stamp: Stamp) -> None:
        self._shape = shape
        self._stamp = stamp
        self._number = -1
        self._items: list[_Item] = []
        self._open: Piece | None = None  # the item that is not told to its end

    def begin(self) -> bytes:
        """See `StreamShape`."""
        begun = self._shape.response(self._stamp, (), None)
        return b"".join([
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
        ])

    def piece(self, index: int, piece: Piece) -> bytes:
        """See `StreamShape`."""
        events: list[bytes] = []
        known = [] if self._open is None else joined([self._open, piece])
        if len(known) != 1:
            events += [self._close(), self._begin(piece)]
            known = [piece]
        self._open = known[0]
        return b"".join([*events, self._delta(piece)])

    def ending(self, index: int, ending: Ending) -> bytes:
        """See `StreamShape`."""
        events: list[bytes] = []
        if self._open is None and not self._items:
            self._open = Piece("")
            events.append(self._begin(self._open))
        status = "incomplete" if ending.reason == "length" else "completed"
        events.append(self._close(status))
        whole = self._shape.response(self._stamp, self._items, ending)
        return b"".join([*events, self._event(f"response.{whole['status']}", response=whole)])

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

    def _begin(self, piece: Piece) -> bytes:
        place = len(self._items)
        bare = Piece("")
        if piece.call is not None:
            bare = Piece("", call=CallPart(piece.call.index, piece.call.id, piece.call.name))
        item = _item(self._stamp, place, bare) | {"status": "in_progress"}
        if piece.call is None:
            item["content"] = []
        added = self._event("response.output_item.added", output_index=place, item=item)
        if piece.call is not None:
            return added
        part = {"content_index": 0, "part": _part("")}
        return added + self._event("response.content_part.added", **self._at(bare), **part)

    def _delta(self, piece: Piece) -> bytes:
        if piece.call is None:
            text = {"content_index": 0, "delta": piece.text, "logprobs": []}
            return self._event("response.output_text.delta", **self._at(piece), **text)
        if not piece.call.arguments:
            return b""
        return self._event(
            "response.function_call_arguments.delta",
            **self._at(self._open or piece),
            delta=piece.call.arguments,
        )

    def _close(self, status: str = "completed") -> bytes:
        """Tell the open item to its end."""
        piece, self._open = self._open, None
        if piece is None:
            return b""
        place = len(self._items)
        item = _item(self._stamp, place, piece)
        if piece.call is None:
            item["status"] = status
            text = self._at(piece) | {"content_index": 0}
            events = [
                self._event("response.output_text.done", **text, text=piece.text, logprobs=[]),
                self._event("response.content_part.done", **text, part=_part(piece.text)),
            ]
        elif piece.call.is_end:
            done = {"name": piece.call.name, "arguments": piece.call.arguments}
            at = self._at(piece)
            events = [self._event("response.function_call_arguments.done", **at, **done)]
        else:  # of a call that was cut off the arguments are never done
            events = []
        self._items.append(item)
        events.append(self._event("response.output_item.done", output_index=place, item=item))
        return b"".join(events)

    def _at(self, piece: Piece) -> dict[str, object]:
        place = len(self._items)
        return {"item_id": _item_id(self._stamp, place, piece), "output_index": place}

    def _event(self, name: str, /, **fields: object) -> bytes:
        self._number += 1
        value = {"type": name, "sequence_number": self._number} | fields
        return b"event: " + name.encode() + b"\ndata: " + as_json(value) + b"\n\n"


def _item(stamp: Stamp, place: int, piece: Piece) -> _Item:
    """Return a text or a call as an item of the output."""
    item_id = _item_id(stamp, place, piece)
    if piece.call is None:
        return {
            "id": item_id,
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [_part(piece.text)],
        }
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": piece.call.id,
        "name": piece.call.name,
        "arguments": piece.call.arguments,
        "status": "completed" if piece.call.is_end else "incomplete",
    }


def _item_id(stamp: Stamp, place: int, piece: Piece) -> str:
    return f"{'msg' if piece.call is None else 'fc'}_{stamp.id}{place:02d}"


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
