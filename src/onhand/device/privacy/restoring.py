"""Puts values back into an answer, across the borders of its pieces."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from onhand.device.privacy.placeholders import PATTERN, TAGS, Placeholders
from onhand.device.serving.asks import Ending, Piece
from onhand.device.tools.kinds import CallPart

__all__ = ["PieceRestorer", "TextRestorer", "in_json"]

# What may go on to be a word; longer than any word it is none.
_BEGUN: Final = re.compile(r"\[([A-Za-z]{0,24})[0-9]{0,7}")
_MOST_HELD: Final = 33


def in_json(value: str) -> str:
    """Return a value as it stands within a string of JSON."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


class TextRestorer:
    """Restores one text that comes piece by piece. One thread at a time.

    What may be the beginning of a placeholder waits until that is decided.
    """

    def __init__(self, placeholders: Placeholders, *, is_json: bool) -> None:
        """Begin.

        Args:
            placeholders: what stands for what.
            is_json: whether the text is JSON, so that values must be escaped.
        """
        self._placeholders = placeholders
        self._is_json = is_json
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece; return what is decided now."""
        text, self._held = self._held + text, ""
        begun = text.rfind("[", max(len(text) - _MOST_HELD, 0))
        if begun >= 0 and _may_become_one(text, begun):
            text, self._held = text[:begun], text[begun:]
        return PATTERN.sub(self._value, text)

    def finish(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return held

    def _value(self, match: re.Match[str]) -> str:
        value = self._placeholders.value(match.group())
        if value is None:
            return match.group()
        return in_json(value) if self._is_json else value


def _may_become_one(text: str, begun: int) -> bool:
    match = _BEGUN.fullmatch(text, begun)
    if match is None:
        return False
    letters = match[1].upper()
    if not letters:
        return match.end() == begun + 1  # digits need letters before them
    return any(tag.startswith(letters) or letters.startswith(tag) for tag in TAGS.values())


class PieceRestorer:
    """Restores one answer: its text, and the arguments of its calls. One thread at a time."""

    def __init__(self, placeholders: Placeholders, *, is_json: bool) -> None:
        """Begin.

        Args:
            placeholders: what stands for what.
            is_json: whether the answer's text follows a grammar of JSON.
        """
        self._placeholders = placeholders
        self._text = TextRestorer(placeholders, is_json=is_json)
        self._call: TextRestorer | None = None
        self._index = 0

    def push(self, part: Piece | Ending) -> Iterable[Piece | Ending]:
        """Take the next part of the answer; return what is decided now.

        Scores stay as they came: they are of the tokens that the other server wrote.

        Args:
            part: a piece, or the end.
        """
        if isinstance(part, Ending):
            return [*self._rest_of_text(), *self._rest_of_call(), part]
        if part.call is None:
            text = self._text.push(part.text)
            pieces = [*self._rest_of_call()]
            return [*pieces, replace(part, text=text)] if text or part.scores else pieces
        return [*self._rest_of_text(), *self._called(part, part.call)]

    def _called(self, piece: Piece, call: CallPart) -> list[Piece]:
        pieces: list[Piece] = []
        if self._call is None or call.index != self._index:
            pieces += self._rest_of_call()
            self._call = TextRestorer(self._placeholders, is_json=True)
            self._index = call.index
        arguments = self._call.push(call.arguments)
        if call.is_end:
            arguments += self._call.finish()
            self._call = None
        if arguments or call.is_end or call.id or call.name or piece.scores or piece.text:
            pieces.append(replace(piece, call=replace(call, arguments=arguments)))
        return pieces

    def _rest_of_text(self) -> list[Piece]:
        text = self._text.finish()
        return [Piece(text)] if text else []

    def _rest_of_call(self) -> list[Piece]:
        if self._call is None:
            return []
        arguments, self._call = self._call.finish(), None
        return [Piece("", call=CallPart(self._index, arguments=arguments))] if arguments else []
