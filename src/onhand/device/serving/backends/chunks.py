"""What another server says of an answer, event by event, as pieces and an ending."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from onhand.core.errors import InputError, OnhandError
from onhand.device.serving.asks import EndReason, Piece, Score
from onhand.device.tools.kinds import CallPart

__all__ = ["ChunkReader", "Counts", "SaidError"]

_REASONS: Final[Mapping[object, EndReason]] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
}
_MOST_CALLS: Final = 1024


class SaidError(OnhandError):
    """The server says that the answer failed.

    Attributes:
        message: its words.
        status: of HTTP, as it gives it; 0 without.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens, as the server counts them; all 0 where it does not."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0


class ChunkReader:
    """Reads one answer, in the form of `chat/completions` or `completions`.

    Attributes:
        reason: why it ended; None as long as it has not.
        counts: of tokens.
    """

    def __init__(self, *, with_scores: bool) -> None:
        """Begin.

        Args:
            with_scores: whether scores of tokens were asked for.
        """
        self._with_scores = with_scores
        self._n_pieces = 0
        self._is_counted = False
        self._open_call: int | None = None
        self.reason: EndReason | None = None
        self.counts = Counts()

    def read(self, data: bytes) -> list[Piece]:
        """Take one event, or a whole answer.

        Args:
            data: its JSON.

        Returns:
            What it adds to the answer.

        Raises:
            InputError: if it is not of that form.
            SaidError: if it says that the answer failed.
        """
        chunk = _object(data)
        _check_error(chunk.get("error"))
        usage = chunk.get("usage")
        if isinstance(usage, Mapping):
            self._count(usage)
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            if usage is None:
                raise InputError(f"choices is {_kind(choices)}, must be a list")
            return []
        for choice in choices:
            if isinstance(choice, Mapping) and choice.get("index", 0) == 0:
                return self._choice(choice)
        return []

    def finish(self) -> None:
        """Note that nothing more comes.

        Raises:
            InputError: if the answer has not ended.
        """
        if self.reason is None:
            raise InputError("the connection ended before the answer did")

    def done(self) -> None:
        """Note the server's word that the answer is whole."""
        self.reason = self.reason or "stop"

    def _choice(self, choice: Mapping[str, object]) -> list[Piece]:
        said = choice.get("delta") or choice.get("message")
        text = choice.get("text") if said is None else _said_text(said)
        if text is not None and not isinstance(text, str):
            raise InputError(f"a text is {_kind(text)}, must be one")
        scores = _scores(choice.get("logprobs")) if self._with_scores else ()
        pieces = [Piece(text or "", scores)] if text or scores else []
        pieces += self._calls(said.get("tool_calls") if isinstance(said, Mapping) else None)
        reason = choice.get("finish_reason")
        if reason is not None:
            self.reason = _REASONS.get(reason, "stop")
            if self.reason != "length":
                pieces += self._end_call()
        self._n_pieces += len(pieces)
        if not self._is_counted:  # a server that never counts sends about one token at a time
            self.counts = Counts(generated=self._n_pieces)
        return pieces

    def _calls(self, calls: object) -> list[Piece]:
        pieces: list[Piece] = []
        for place, call in enumerate(calls if isinstance(calls, list) else ()):
            if not isinstance(call, Mapping):
                raise InputError(f"a call is {_kind(call)}, must be an object")
            index = call.get("index", place)  # whole answers count by their order
            if not isinstance(index, int) or not 0 <= index < _MOST_CALLS:
                raise InputError(f"a call's index is {_kind(index)}, must be a whole number")
            if index != self._open_call:
                pieces += self._end_call()
                self._open_call = index
            function = call.get("function")
            told = function if isinstance(function, Mapping) else {}
            part = CallPart(
                index,
                id=_text(call.get("id")),
                name=_text(told.get("name")),
                arguments=_text(told.get("arguments")),
            )
            pieces.append(Piece("", call=part))
        return pieces

    def _end_call(self) -> list[Piece]:
        index, self._open_call = self._open_call, None
        return [] if index is None else [Piece("", call=CallPart(index, is_end=True))]

    def _count(self, usage: Mapping[str, object]) -> None:
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        self._is_counted = True
        self.counts = Counts(
            prompt=_whole(usage.get("prompt_tokens")),
            cached=_whole(cached),
            generated=_whole(usage.get("completion_tokens")),
        )


def _object(data: bytes) -> Mapping[str, object]:
    try:
        value = _DECODER.decode(data.removeprefix(b"\xef\xbb\xbf").decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"an event is not JSON: {_place(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"an event is {_kind(value)}, must be an object")
    return value


def _kind(value: object) -> str:
    # What a server sends is what somebody wrote or was answered: no message shows it.
    return "missing" if value is None else f"of type {type(value).__name__}"


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, at character {error.pos}"
    return type(error).__name__


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


# Made once: streams need it for every piece.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def _check_error(error: object) -> None:
    if error is None:
        return
    if not isinstance(error, Mapping):
        raise SaidError(str(error)[:500], 0)
    code = error.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) else 0
    raise SaidError(str(error.get("message") or code or "no reason given")[:500], status)


def _said_text(said: object) -> object:
    if not isinstance(said, Mapping):
        raise InputError(f"a delta is {_kind(said)}, must be an object")
    return said.get("content") or said.get("refusal")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _scores(logprobs: object) -> tuple[Score, ...]:
    if not isinstance(logprobs, Mapping):
        return ()
    content, tokens = logprobs.get("content"), logprobs.get("tokens")
    if isinstance(tokens, list):  # the older form, of `completions`
        content = _from_lists(tokens, logprobs)
    if not isinstance(content, list):
        return ()
    return tuple(_score(one) for one in content)


def _from_lists(tokens: list[object], logprobs: Mapping[str, object]) -> list[object]:
    likely, others = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    if not isinstance(likely, list) or len(likely) != len(tokens):
        raise InputError("token_logprobs must be a list as long as tokens")
    tables = others if isinstance(others, list) and len(others) == len(tokens) else []
    scores: list[object] = []
    for place, (token, logprob) in enumerate(zip(tokens, likely, strict=True)):
        table = tables[place] if tables else None
        listed = table.items() if isinstance(table, Mapping) else ()
        top = [{"token": other, "logprob": value} for other, value in listed]
        scores.append({"token": token, "logprob": logprob, "top_logprobs": top})
    return scores


def _score(one: object) -> Score:
    if not isinstance(one, Mapping):
        raise InputError(f"a score is {_kind(one)}, must be an object")
    logprob, others = one.get("logprob"), one.get("top_logprobs")
    if (
        isinstance(logprob, bool)
        or not isinstance(logprob, int | float)
        or not math.isfinite(logprob)
    ):
        raise InputError(f"logprob is {_kind(logprob)}, must be a number")
    listed: Sequence[object] = others if isinstance(others, list) else ()
    # JSON's -9999.0 for what cannot be: kept as it is said.
    return Score(_token(one), float(logprob), tuple(_score(other) for other in listed))


def _token(one: Mapping[str, object]) -> bytes:
    given = one.get("bytes")
    if isinstance(given, list) and all(isinstance(n, int) and 0 <= n < 256 for n in given):
        return bytes(given)
    return str(one.get("token", "")).encode()


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
