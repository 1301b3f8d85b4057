"""Answers as `/v1/chat/completions` and `/v1/completions` give them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onhand.device.serving.api.bodies import as_json
from onhand.device.serving.api.old_scores import OldScores
from onhand.device.serving.api.shape import Answered, Stamp, told_source
from onhand.device.serving.asks import Ending, Piece, Score, joined
from onhand.device.tools.kinds import CallPart

__all__ = ["CompletionShape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionShape:
    """See `Shape`.

    Attributes:
        kind: which of the two routes.
        wants_usage: whether a stream ends with a chunk of counts.
        has_scores: whether scores of tokens are wanted.
        echoes: what stands before the text of each choice; empty for nothing.
        n_prompts: prompts that were asked at once; each has as many choices.
    """

    kind: Literal["chat", "text"]
    wants_usage: bool = False
    has_scores: bool = False
    echoes: tuple[str, ...] = ()
    n_prompts: int = 1

    def whole(self, stamp: Stamp, answers: Sequence[Answered]) -> object:
        """See `Shape`."""
        choices: list[dict[str, object]] = []
        for index, (pieces, ending) in enumerate(answers):
            text = "".join(piece.text for piece in pieces)
            scores = [score for piece in pieces for score in piece.scores]
            choice = self.choice(index, scores, ending, OldScores())
            if self.kind == "chat":
                choice["message"] = _message(text, joined(pieces))
            else:
                choice["text"] = self.echo(index) + text
            choices.append(choice)
        usage = self.usage([ending for _, ending in answers])
        return self.head(stamp, is_chunk=False) | {"choices": choices, "usage": usage}

    def stream(self, stamp: Stamp, n_choices: int) -> "_Chunks":
        """See `Shape`."""
        return _Chunks(self, stamp, n_choices)

    def head(self, stamp: Stamp, *, is_chunk: bool) -> dict[str, object]:
        """Return what every answer and chunk begins with."""
        is_chat = self.kind == "chat"
        kind = f"chat.completion{'.chunk' if is_chunk else ''}" if is_chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{stamp.id}",
            "object": kind,
            "created": stamp.created_s,
            "model": stamp.model,
            **stamp.mark,
        }

    def echo(self, index: int) -> str:
        """Return what stands before the text of a choice."""
        return self.echoes[index] if self.echoes else ""

    def usage(self, endings: Sequence[Ending]) -> dict[str, object]:
        """Return the counts of an answer; a prompt of several choices counts once."""
        firsts = endings[:: len(endings) // self.n_prompts]
        n_prompt = sum(ending.prompt_tokens for ending in firsts)
        n_answer = sum(ending.generated_tokens for ending in endings)
        n_cached = sum(ending.cached_tokens for ending in firsts)
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_answer,
            "total_tokens": n_prompt + n_answer,
            "prompt_tokens_details": {"cached_tokens": n_cached},
        }

    def choice(
        self, index: int, scores: Sequence[Score], ending: Ending | None, told: OldScores
    ) -> dict[str, object]:
        """Return what every choice begins with.

        Args:
            index: its number.
            scores: of its next tokens.
            ending: its end; None while it runs.
            told: where the older form of its scores stands.
        """
        logprobs: dict[str, object] | None = None
        if self.has_scores and self.kind == "text":
            logprobs = told.told(scores)
        elif self.has_scores:
            content = [
                _score(score) | {"top_logprobs": [_score(other) for other in score.others]}
                for score in scores
            ]
            logprobs = {"content": content, "refusal": None}
        reason = ending.reason if ending else None
        choice: dict[str, object] = {
            "index": index,
            "finish_reason": reason,
            "logprobs": logprobs,
        }
        return choice if ending is None else choice | told_source(ending)


class _Chunks:
    """See `StreamShape`."""

    def __init__(self, shape: CompletionShape, stamp: Stamp, n_choices: int) -> None:
        self._shape = shape
        self._head = shape.head(stamp, is_chunk=True)
        self._n_choices = n_choices
        self._endings: dict[int, Ending] = {}
        self._frames: dict[int, tuple[bytes, bytes]] = {}
        self._told = [OldScores() for _ in range(n_choices)]

    def begin(self) -> bytes:
        """See `StreamShape`."""
        opened = {"role": "assistant", "content": ""}
        events: list[bytes] = []
        for index in range(self._n_choices):
            choice = self._choice(index, (), None)
            events.append(self._event([self._with_text(choice, opened, self._shape.echo(index))]))
        return b"".join(events)

    def piece(self, index: int, piece: Piece) -> bytes:
        """See `StreamShape`."""
        if piece.call is None and not self._shape.has_scores:
            before, after = self._around(index)
            return b"".join((before, as_json(piece.text), after))
        choice = self._choice(index, piece.scores, None)
        delta: dict[str, object] = {"content": piece.text}
        if piece.call is not None:
            delta = {"tool_calls": [_call_delta(piece.call)]}
        return self._event([self._with_text(choice, delta, piece.text)])

    def ending(self, index: int, ending: Ending) -> bytes:
        """See `StreamShape`."""
        self._endings[index] = ending
        choice = self._choice(index, (), ending)
        choice["logprobs"] = None
        return self._event([self._with_text(choice, {}, "")])

    def end(self) -> bytes:
        """See `StreamShape`."""
        counts = b""
        if self._shape.wants_usage:
            endings = [self._endings[index] for index in sorted(self._endings)]
            counts = self._event([], self._shape.usage(endings))
        return counts + b"data: [DONE]\n\n"

    def failure(self, body: dict[str, object]) -> bytes:
        """See `StreamShape`."""
        return b"data: " + as_json(body) + b"\n\n"

    def _around(self, index: int) -> tuple[bytes, bytes]:
        """Return what stands before and after the text of a piece; made once for each choice."""
        if index not in self._frames:
            choice = self._with_text(self._choice(index, (), None), {"content": ""}, "")
            key = b'"content":' if self._shape.kind == "chat" else b'"text":'
            # Within a string its quotation marks would stand behind strokes.
            before, after = self._event([choice]).split(key + b'""')
            self._frames[index] = (before + key, after)
        return self._frames[index]

    def _choice(
        self, index: int, scores: Sequence[Score], ending: Ending | None
    ) -> dict[str, object]:
        return self._shape.choice(index, scores, ending, self._told[index])

    def _with_text(
        self, choice: dict[str, object], delta: Mapping[str, object], text: str
    ) -> dict[str, object]:
        return choice | ({"delta": delta} if self._shape.kind == "chat" else {"text": text})

    def _event(
        self, choices: list[dict[str, object]], usage: dict[str, object] | None = None
    ) -> bytes:
        value = self._head | {"choices": choices}
        if self._shape.wants_usage:
            value["usage"] = usage
        return b"data: " + as_json(value) + b"\n\n"


def _message(text: str, pieces: Sequence[Piece]) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
    # One that was cut off is left out: here nothing would tell it from a whole one.
    calls = [piece.call for piece in pieces if piece.call is not None and piece.call.is_end]
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": _function(call)} for call in calls
        ]
    return message


def _call_delta(part: CallPart) -> dict[str, object]:
    if part.name:
        head = {"index": part.index, "id": part.id, "type": "function"}
        return head | {"function": _function(part)}
    return {"index": part.index, "function": {"arguments": part.arguments}}


def _function(call: CallPart) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments}


def _score(score: Score) -> dict[str, object]:
    text = score.token.decode(errors="replace")
    return {"token": text, "logprob": score.logprob, "bytes": list(score.token)}
