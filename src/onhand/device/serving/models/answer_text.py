"""The tokens of one answer as pieces: text up to a stop text, and calls of tools."""

from collections.abc import Callable, Sequence

from onhand.device.serving.asks import Piece, Score
from onhand.device.stop_strings import StopStrings
from onhand.device.text import TextStream
from onhand.device.tools.scanning import CallScanner

__all__ = ["AnswerText"]


class AnswerText:
    """Turns the tokens of one answer into pieces as they come. One thread at a time."""

    def __init__(
        self,
        stream: TextStream,
        *,
        stop: Sequence[str],
        calls: CallScanner | None,
        most_calls: int | None,
        post: Callable[[Piece], None],
    ) -> None:
        """Start before the first token.

        Args:
            stream: turns tokens into text.
            stop: texts that end the answer; they are not shown.
            calls: finds calls in the text; None where none are wanted.
            most_calls: whole calls after which the answer ends; None for no limit.
            post: is given each piece.
        """
        self._stream = stream
        self._stops = StopStrings(stop)
        self._calls = calls
        self._most_calls = most_calls
        self._post = post
        self._scores: list[Score] = []

    @property
    def has_calls(self) -> bool:
        """Whether it holds a call that is whole."""
        return self._calls is not None and self._calls.n_whole > 0

    def push(self, token: int, score: Score | None) -> bool:
        """Take one more token; say whether the answer ends with it."""
        if score is not None:
            self._scores.append(score)
        is_end = self._show(self._stream.push(token))
        if self._calls is not None and self._most_calls is not None:
            is_end = is_end or self._calls.n_whole >= self._most_calls
        if is_end:
            self._give_rest()
        return is_end

    def finish(self) -> bool:
        """Show what was held back; say whether a stop text came after all."""
        found = self._show(self._stream.finish())
        if not found:
            self._give(self._stops.finish())
        self._give_rest()
        return found

    def _show(self, text: str) -> bool:
        text, found = self._stops.push(text)
        if text or found:
            self._give(text)
        return found

    def _give(self, text: str) -> None:
        if self._calls is None:
            self._send(Piece(text))
        for part in () if self._calls is None else self._calls.push(text):
            self._send(Piece(part) if isinstance(part, str) else Piece("", call=part))

    def _give_rest(self) -> None:
        for part in () if self._calls is None else self._calls.finish():
            self._send(Piece(part) if isinstance(part, str) else Piece("", call=part))
        self._send(Piece(""))

    def _send(self, piece: Piece) -> None:
        if piece.text or piece.call is not None or self._scores:
            self._post(Piece(piece.text, tuple(self._scores), piece.call))
            self._scores.clear()
